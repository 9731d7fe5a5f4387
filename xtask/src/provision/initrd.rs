//! dom0's initial RAM disk: busybox, the kernel modules that a dom0 needs, and the project's own `boot/dom0` on top.
//!
//! The image is not compressed: an emulated CPU takes longer to unpack it than an emulated disk to read it.

use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::newc::Newc;
use super::{cache, modules};
use crate::host;

/// Changes whenever this module puts something else into the image from the same files.
const FORMAT: &str = "1";
/// How the names of images start.
const PREFIX: &str = "initrd-";
/// How long an image is kept beside a newer one.
const KEPT: Duration = Duration::from_secs(24 * 3600);
const FOLDERS: &[&str] = &[
    "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "var",
];

/// The image for the kernel in `folder` of the cache, known as `name` there; made if anything that goes into it has changed.
///
/// # Errors
/// A tool or a module is missing.
pub fn up_to_date(folder: &Path, name: &str) -> Result<PathBuf> {
    let overlay = host::workspace().join("boot/dom0");
    let busybox = busybox()?;
    let digest = digest(folder, &overlay, &busybox)?;
    let _lock = cache::lock(name)?;
    // Named by what went into it: clones with different overlays share the cache.
    let image = folder.join(format!("{PREFIX}{digest}"));
    if image.exists() {
        return Ok(image);
    }
    remove_old(folder)?;
    let part = folder.join("initrd.part");
    let mut archive = Newc::new();
    fill(&mut archive, folder, &overlay, &busybox)?;
    let mut file = BufWriter::new(fs::File::create(&part)?);
    archive.write_to(&mut file)?;
    file.flush()?;
    fs::rename(&part, &image)?;
    Ok(image)
}

/// Removes images that nobody has made for a while.
fn remove_old(folder: &Path) -> Result<()> {
    for entry in entries(folder)? {
        let is_image = entry
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let made = fs::metadata(&entry).and_then(|data| data.modified());
        let age = made.ok().and_then(|time| time.elapsed().ok());
        if is_image && age.is_some_and(|age| age > KEPT) {
            fs::remove_file(entry)?;
        }
    }
    Ok(())
}

fn fill(image: &mut Newc, folder: &Path, overlay: &Path, busybox: &Path) -> Result<()> {
    for path in FOLDERS {
        image.folder(path);
    }
    // The kernel opens the console for init before anything is mounted.
    image.character_device("dev/console", 5, 1);
    image.file("bin/busybox", fs::read(busybox)?, true);
    let applets = host::capture(&busybox.to_string_lossy(), &["--list-full"])?;
    for applet in applets.lines().filter(|line| *line != "bin/busybox") {
        image.symlink(applet, "/bin/busybox");
    }
    modules::add_to(image, folder, modules::DOM0)?;
    add_tree(image, overlay, "")
}

/// Adds what a folder holds at `to`, which has no slash at either end.
///
/// # Errors
/// A file cannot be read.
pub(super) fn add_tree(image: &mut Newc, from: &Path, to: &str) -> Result<()> {
    for entry in entries(from)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let target = match to {
            "" => name.into_owned(),
            to => format!("{to}/{name}"),
        };
        let data = fs::symlink_metadata(&entry)?;
        if data.is_symlink() {
            image.symlink(&target, &fs::read_link(&entry)?.to_string_lossy());
        } else if data.is_dir() {
            image.folder(&target);
            add_tree(image, &entry, &target)?;
        } else {
            let executable = data.permissions().mode() & 0o111 != 0;
            image.file(&target, fs::read(&entry)?, executable);
        }
    }
    Ok(())
}

/// A hash of all that the image depends on.
fn digest(folder: &Path, overlay: &Path, busybox: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for text in [
        FORMAT,
        &modules::DOM0.join(" "),
        &fs::read_to_string(folder.join("version"))?,
    ] {
        hash.update(text);
        hash.update([0]);
    }
    hash.update(fs::read(busybox)?);
    digest_tree(&mut hash, overlay)?;
    // Half of it is more than enough to tell images apart.
    Ok(hash
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn digest_tree(hash: &mut Sha256, folder: &Path) -> Result<()> {
    for entry in entries(folder)? {
        let data = fs::symlink_metadata(&entry)?;
        hash.update(entry.as_os_str().as_encoded_bytes());
        hash.update(data.permissions().mode().to_le_bytes());
        if data.is_symlink() {
            hash.update(fs::read_link(&entry)?.as_os_str().as_encoded_bytes());
        } else if data.is_dir() {
            digest_tree(hash, &entry)?;
        } else {
            hash.update(fs::read(&entry)?);
        }
    }
    Ok(())
}

/// What a folder holds, in a fixed order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

/// The demo guest's image: busybox, an init of the project's own, and the drivers of PV devices for its kernel, where that is one of the
/// cache's.
///
/// # Errors
/// A tool or a module is missing.
pub fn guest(kernel: &Path) -> Result<Vec<u8>> {
    let mut archive = Newc::new();
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", fs::read(busybox()?)?, true);
    if let Some(folder) = kernel
        .parent()
        .filter(|folder| folder.join("modules").exists())
    {
        modules::add_to(&mut archive, folder, modules::GUEST)?;
    }
    add_tree(&mut archive, &host::workspace().join("boot/guest"), "")?;
    let mut bytes = Vec::new();
    archive.write_to(&mut bytes)?;
    Ok(bytes)
}

/// The static busybox. One that needs libraries would not start in the image.
fn busybox() -> Result<PathBuf> {
    let path = host::find_command("busybox")
        .context("busybox is missing; package busybox-static has it")?;
    let needs_libraries = Command::new("ldd")
        .arg(&path)
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libc."));
    if needs_libraries {
        bail!(
            "{} is not static; package busybox-static has one that is",
            path.display()
        );
    }
    Ok(path)
}
