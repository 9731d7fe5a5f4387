//! The host's own packages: which are missing, and how they are installed.

use std::io::{IsTerminal, stdin};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::host;
use crate::progress::Step;

/// A Debian package that is needed, with files of which one tells that it is there, whoever installed it.
struct Needed {
    package: &'static str,
    files: &'static [&'static str],
}

const fn needed(package: &'static str, files: &'static [&'static str]) -> Needed {
    Needed { package, files }
}

const NEEDED: &[Needed] = &[
    needed("qemu-system-x86", &["/usr/bin/qemu-system-x86_64"]),
    needed("qemu-utils", &["/usr/bin/qemu-img"]),
    needed(
        "ovmf",
        &[
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
            "/usr/share/OVMF/OVMF_CODE.fd",
            "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
            "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        ],
    ),
    needed("grub-common", &["/usr/bin/grub-mkrescue"]),
    needed("grub-pc-bin", &["/usr/lib/grub/i386-pc/multiboot2.mod"]),
    needed(
        "grub-efi-amd64-bin",
        &["/usr/lib/grub/x86_64-efi/multiboot2.mod"],
    ),
    needed("xorriso", &["/usr/bin/xorriso"]),
    needed("mtools", &["/usr/bin/mformat"]),
    needed("busybox-static", &["/bin/busybox", "/usr/bin/busybox"]),
    needed("kmod", &["/sbin/depmod", "/usr/sbin/depmod"]),
    needed("xz-utils", &["/usr/bin/xz"]),
    // A Debian guest's root: its maker, what that takes where it is not root, and what makes and checks its file system.
    needed("mmdebstrap", &["/usr/bin/mmdebstrap"]),
    needed("uidmap", &["/usr/bin/newuidmap"]),
    needed("e2fsprogs", &["/sbin/mke2fs", "/usr/sbin/mke2fs"]),
    // The emulator Bochs: its firmware, and what builds it.
    needed("bochsbios", &["/usr/share/bochs/BIOS-bochs-latest"]),
    needed("vgabios", &["/usr/share/vgabios/vgabios.bin"]),
    needed("g++", &["/usr/bin/g++"]),
    needed("make", &["/usr/bin/make"]),
    needed("libc6-dev", &["/usr/include/stdlib.h"]),
    // Downloads of other suites' packages, which apt checks with Debian's keys.
    needed("dpkg-dev", &["/usr/bin/dpkg-source"]),
    needed(
        "debian-archive-keyring",
        &["/usr/share/keyrings/debian-archive-keyring.gpg"],
    ),
];

/// Makes sure of the host's packages, once in a process.
///
/// # Errors
/// Packages are missing and cannot be installed; the error holds the command to type.
pub fn packages() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_none() {
        let missing = missing_packages();
        if !missing.is_empty() {
            install(&missing)?;
        }
        // Another thread that was here too has found the same.
        let _ = DONE.set(());
    }
    Ok(())
}

/// The packages that are not there.
pub fn missing_packages() -> Vec<&'static str> {
    let there = |needed: &&Needed| !needed.files.iter().any(|file| Path::new(file).exists());
    NEEDED
        .iter()
        .filter(there)
        .map(|needed| needed.package)
        .collect()
}

fn install(missing: &[&str]) -> Result<()> {
    let list = missing.join(" ");
    if !host::is_debian() {
        bail!(
            "this is no Debian, and what its packages {list} hold is missing: install what your system calls them"
        );
    }
    let Some(prefix) = privilege() else {
        bail!(
            "packages are missing; as root, type: apt-get install --no-install-recommends {list}"
        );
    };
    let step = Step::start(format!("installing packages: {list}"));
    apt_install(&prefix, missing)?;
    // One that was there may have had to give way, such as a backport's qemu-utils to the qemu-system-x86 that is installed: it comes
    // again, in the version that goes with the others.
    let given_way = missing_packages();
    if !given_way.is_empty() {
        apt_install(&prefix, &given_way)?;
    }
    let still_missing = missing_packages();
    if !still_missing.is_empty() {
        bail!(
            "packages {} are installed, but not their files",
            still_missing.join(" ")
        );
    }
    step.done();
    Ok(())
}

fn apt_install(prefix: &[&str], packages: &[&str]) -> Result<()> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    if apt(prefix, &arguments).is_err() {
        // The lists are old or absent.
        apt(prefix, &["update"]).context("apt's package lists cannot be fetched")?;
        apt(prefix, &arguments)
            .with_context(|| format!("packages {} cannot be installed", packages.join(" ")))?;
    }
    Ok(())
}

/// The words before a command that only root may run; `None` where we cannot become root.
fn privilege() -> Option<Vec<&'static str>> {
    if host::is_root() {
        return Some(Vec::new());
    }
    host::find_command("sudo")?;
    let asks_nothing = host::run_quiet(Command::new("sudo").args(["-n", "true"])).is_ok();
    // On a terminal sudo asks for its password itself.
    (asks_nothing || stdin().is_terminal()).then(|| vec!["sudo"])
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    let mut words = prefix.to_vec();
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    words.extend(arguments);
    let (program, rest) = words.split_first().context("an empty command")?;
    host::run_quiet(Command::new(program).args(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_file_to_know_it_by() {
        assert!(NEEDED.iter().all(|needed| !needed.files.is_empty()));
    }
}
