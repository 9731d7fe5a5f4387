//! dom0's initial RAM disk: busybox, the kernel modules that a dom0 needs, and the project's own `boot/dom0` on top.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::host;

/// Modules by name: Xen's device nodes, disks, network cards, and what tests look at.
const MODULES: &[&str] = &[
    "xen-evtchn",
    "xen-privcmd",
    "xen-gntdev",
    "xen-gntalloc",
    "xenfs",
    "ahci",
    "ata_piix",
    "ata_generic",
    "sd_mod",
    "sr_mod",
    "nvme",
    "e1000",
    "e1000e",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "msr",
    "cpuid",
    "isofs",
];
const BUSYBOX: &str = "/bin/busybox";

/// The image for the kernel in `folder`; made if it is missing or older than the overlay.
///
/// # Errors
/// A tool or a module is missing.
pub fn up_to_date(folder: &Path) -> Result<PathBuf> {
    let image = folder.join("initrd");
    let overlay = host::workspace().join("boot/dom0");
    let made = fs::metadata(&image)
        .and_then(|data| data.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH);
    if made > newest(&overlay) && made > newest(Path::new(BUSYBOX)) {
        return Ok(image);
    }
    let work = folder.join(format!("initrd.{}.part", std::process::id()));
    let tree = work.join("tree");
    fs::create_dir_all(&tree)?;
    fill(folder, &overlay, &tree)?;
    let part = work.join("initrd");
    pack(&tree, &part)?;
    fs::rename(&part, &image)?;
    fs::remove_dir_all(work)?;
    Ok(image)
}

fn fill(folder: &Path, overlay: &Path, tree: &Path) -> Result<()> {
    for name in [
        "bin", "sbin", "dev", "proc", "sys", "run", "tmp", "etc", "root", "usr/bin", "usr/sbin",
    ] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::copy(BUSYBOX, tree.join("bin/busybox"))
        .context("busybox is missing; package busybox-static has it")?;
    copy_tree(overlay, tree)?;
    let version = fs::read_to_string(folder.join("version"))?;
    let target = tree.join("lib/modules").join(&version);
    fs::create_dir_all(&target)?;
    let source = folder.join("modules");
    for module in closure(&source)? {
        let to = target.join(&module);
        fs::create_dir_all(to.parent().unwrap_or(&target))?;
        let from = source.join(&module);
        // busybox's modprobe reads plain modules only.
        match module.strip_suffix(".xz") {
            Some(_) => decompress(&from, &to.with_extension(""))?,
            None => drop(fs::copy(from, to)?),
        }
    }
    for list in ["modules.builtin", "modules.order"] {
        if source.join(list).exists() {
            fs::copy(source.join(list), target.join(list))?;
        }
    }
    host::run_quiet(
        Command::new("/sbin/depmod")
            .arg("-b")
            .arg(tree)
            .arg(&version),
    )
    .context("package kmod has depmod")
}

/// Files of [`MODULES`] and of all that they depend on, relative to the modules' folder. What is built in is not there.
fn closure(source: &Path) -> Result<BTreeSet<String>> {
    let dependencies = match fs::read_to_string(source.join("modules.dep")) {
        Ok(text) => text,
        // Packages leave the list to be made at installation.
        Err(_) => make_dependencies(source)?,
    };
    let base = |file: &str| {
        let name = file.rsplit('/').next().unwrap_or(file);
        name.split(".ko").next().unwrap_or(name).replace('-', "_")
    };
    let wanted: BTreeSet<String> = MODULES.iter().map(|name| name.replace('-', "_")).collect();
    let mut files = BTreeSet::new();
    for line in dependencies.lines() {
        let Some((module, needs)) = line.split_once(':') else {
            continue;
        };
        if wanted.contains(&base(module)) {
            files.insert(module.to_owned());
            files.extend(needs.split_ascii_whitespace().map(str::to_owned));
        }
    }
    if files.is_empty() {
        bail!(
            "{} lists none of the modules that dom0 needs",
            source.display()
        );
    }
    Ok(files)
}

fn make_dependencies(source: &Path) -> Result<String> {
    let parent = source.parent().context("modules lie in a folder")?;
    let version = fs::read_to_string(parent.join("version"))?;
    // depmod wants lib/modules/VERSION.
    let root = parent.join(format!("depmod.{}.part", std::process::id()));
    fs::create_dir_all(root.join("lib/modules"))?;
    std::os::unix::fs::symlink(
        source.canonicalize()?,
        root.join("lib/modules").join(&version),
    )?;
    let result = host::run_quiet(
        Command::new("/sbin/depmod")
            .arg("-b")
            .arg(&root)
            .arg(&version),
    );
    fs::remove_dir_all(&root)?;
    result.context("package kmod has depmod")?;
    Ok(fs::read_to_string(source.join("modules.dep"))?)
}

fn decompress(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("xz")
        .arg("-dc")
        .arg(from)
        .stdin(Stdio::null())
        .output()
        .context("package xz-utils has xz")?;
    if !output.status.success() {
        bail!("{} cannot be decompressed", from.display());
    }
    Ok(fs::write(to, output.stdout)?)
}

/// An uncompressed archive: unpacking is what costs time in an emulator.
fn pack(tree: &Path, image: &Path) -> Result<()> {
    let script = "find . -print0 | LC_ALL=C sort -z | cpio --null --create --format=newc --owner=0:0 --quiet > \"$0\"";
    host::run_quiet(
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(image)
            .current_dir(tree),
    )
    .context("package cpio has cpio")
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)
        .with_context(|| format!("{} cannot be read", from.display()))?
        .flatten()
    {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let mode = fs::metadata(entry.path())?.permissions().mode();
            fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// When the newest file below `path` was changed.
fn newest(path: &Path) -> SystemTime {
    let own = fs::metadata(path)
        .and_then(|data| data.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| newest(&entry.path()))
        .fold(own, SystemTime::max)
}
