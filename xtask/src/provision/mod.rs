//! Everything that building, running and testing needs beyond a Rust toolchain.

pub mod archive;
pub mod bochs;
pub mod initrd;
pub mod kernels;
pub mod sysroot;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::host::{self, say};

pub use kernels::{Dom0, Suite};

/// Host packages, each with a file that tells whether it is there.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("ovmf", "/usr/share/OVMF/OVMF_CODE.fd"),
    ("grub-common", "/usr/bin/grub-mkrescue"),
    ("grub-pc-bin", "/usr/lib/grub/i386-pc/multiboot2.mod"),
    (
        "grub-efi-amd64-bin",
        "/usr/lib/grub/x86_64-efi/multiboot2.mod",
    ),
    ("xorriso", "/usr/bin/xorriso"),
    ("mtools", "/usr/bin/mformat"),
    ("busybox-static", "/bin/busybox"),
    ("bochsbios", "/usr/share/bochs/BIOS-bochs-latest"),
    ("vgabios", "/usr/share/vgabios/vgabios.bin"),
    ("g++", "/usr/bin/g++"),
    ("make", "/usr/bin/make"),
    ("patch", "/usr/bin/patch"),
    ("libc6-dev", "/usr/include/stdlib.h"),
    ("dpkg-dev", "/usr/bin/dpkg-source"),
    (
        "debian-archive-keyring",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
    ("kmod", "/sbin/depmod"),
    ("cpio", "/usr/bin/cpio"),
    ("xz-utils", "/usr/bin/xz"),
];

/// Does it all; what is there already is left alone.
///
/// # Errors
/// The first step that fails, with its cause.
pub fn everything() -> Result<()> {
    packages()?;
    sysroot::find()?;
    for suite in Suite::ALL {
        kernels::dom0(suite)?;
    }
    bochs::binary()?;
    say("everything is there; `cargo xtask run` boots it");
    Ok(())
}

/// The kernel and the initial RAM disk of a suite, provisioned if they are missing.
///
/// # Errors
/// See [`kernels::dom0`].
pub fn dom0(suite: Suite) -> Result<Dom0> {
    packages()?;
    kernels::dom0(suite)
}

/// Makes sure of the host packages, once in a process.
///
/// # Errors
/// Packages are missing and cannot be installed; the error is the command to type.
pub fn packages() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_some() {
        return Ok(());
    }
    let missing = missing_packages();
    if !missing.is_empty() {
        install(&missing)?;
    }
    let _ = DONE.set(());
    Ok(())
}

/// Host packages that are not there.
pub fn missing_packages() -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|(_, file)| !Path::new(file).exists())
        .map(|(name, _)| *name)
        .collect()
}

fn install(missing: &[&str]) -> Result<()> {
    let list = missing.join(" ");
    if !host::is_debian() {
        bail!(
            "this host lacks the tools of the Debian packages {list}: install what your system calls them"
        );
    }
    let sudo = if host::is_root() {
        None
    } else if host::find_command("sudo").is_some()
        && Command::new("sudo")
            .args(["-n", "true"])
            .status()
            .is_ok_and(|status| status.success())
    {
        Some("sudo")
    } else {
        bail!("packages are missing; as root, type: apt-get install {list}");
    };
    say(&format!("installing packages: {list}"));
    let apt = |arguments: &[&str]| {
        let mut command = match sudo {
            Some(sudo) => {
                let mut command = Command::new(sudo);
                command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
                command
            }
            None => Command::new("apt-get"),
        };
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments);
        host::run_quiet(&mut command)
    };
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing);
    if apt(&arguments).is_ok() {
        return Ok(());
    }
    // The lists may be old or absent.
    apt(&["update"])?;
    apt(&arguments).with_context(|| format!("packages {list} cannot be installed"))
}

/// Removes the build's folder, and the cache if asked.
///
/// # Errors
/// A folder cannot be removed.
pub fn clean(cache: bool) -> Result<()> {
    let target = host::workspace().join("target");
    let folders = [Some(target), cache.then(host::cache)];
    for folder in folders
        .into_iter()
        .flatten()
        .filter(|folder| folder.exists())
    {
        say(&format!("removing {}", folder.display()));
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// Makes a folder in the cache whole or not at all: `make` fills a temporary one, which is then renamed.
pub(crate) fn in_cache(
    name: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<std::path::PathBuf> {
    let folder = host::cache().join(name);
    if folder.exists() {
        return Ok(folder);
    }
    let work = host::cache().join(format!("{name}.{}.part", std::process::id()));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work).with_context(|| format!("{} cannot be made", work.display()))?;
    make(&work)?;
    match fs::rename(&work, &folder) {
        Ok(()) => Ok(folder),
        // Another process was faster.
        Err(_) if folder.exists() => {
            fs::remove_dir_all(&work)?;
            Ok(folder)
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be made", folder.display())),
    }
}
