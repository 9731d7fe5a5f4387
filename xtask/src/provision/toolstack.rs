//! dom0's image with what makes guests: the tools, a demo guest. Built from this workspace, so it lies in its target folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::initrd;
use super::newc::Newc;
use crate::build;

/// dom0's image `initrd` with the tools and a guest, whose kernel is given, in an archive behind its own: dom0's kernel
/// unpacks both.
///
/// # Errors
/// The tools do not build, or a file cannot be read or written.
pub fn with_tools(initrd: &Path, guest_kernel: &Path) -> Result<PathBuf> {
    let mut archive = Newc::new();
    for tool in build::tools()? {
        let name = tool.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("usr/sbin/{name}"), read(&tool)?, true);
    }
    add_guest(&mut archive, guest_kernel)?;
    keep(&archive.behind(initrd)?)
}

/// Adds the demo guest, whose kernel is given.
///
/// # Errors
/// A file cannot be read.
pub(super) fn add_guest(archive: &mut Newc, guest_kernel: &Path) -> Result<()> {
    archive.file("boot/guest/vmlinuz", read(guest_kernel)?, false);
    archive.file("boot/guest/initrd", initrd::guest(guest_kernel)?, false);
    Ok(())
}

/// Keeps an image in the target folder; returns its file.
///
/// # Errors
/// It cannot be written.
pub(super) fn keep(image: &[u8]) -> Result<PathBuf> {
    let folder = build::target_folder().join("dom0");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    // Named by its content, so that no test finds it half written by another.
    let digest = Sha256::digest(image);
    let name: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = folder.join(format!("initrd-{name}"));
    if !path.exists() {
        let part = tempfile::NamedTempFile::new_in(&folder)?;
        fs::write(part.path(), image)?;
        part.persist(&path)?;
    }
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
