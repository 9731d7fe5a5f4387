//! dom0's image with what makes guests: the tools, a demo guest. Built from this workspace, so it lies in its target folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::newc::Newc;
use super::{Dom0, initrd};
use crate::build;

/// The same dom0 with the tools, and a guest with the same kernel, in an archive behind its own: the kernel unpacks both.
///
/// # Errors
/// The tools do not build, or a file cannot be read or written.
pub fn with_tools(dom0: Dom0) -> Result<Dom0> {
    let mut archive = Newc::new();
    for tool in build::tools()? {
        let name = tool.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("usr/sbin/{name}"), read(&tool)?, true);
    }
    archive.file("boot/guest/vmlinuz", read(&dom0.kernel)?, false);
    archive.file("boot/guest/initrd", initrd::guest()?, false);
    let image = archive.behind(&dom0.initrd)?;
    let folder = build::target_folder().join("dom0");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    // Named by its content, so that no test finds it half written by another.
    let digest = Sha256::digest(&image);
    let name: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = folder.join(format!("initrd-{name}"));
    if !path.exists() {
        let part = tempfile::NamedTempFile::new_in(&folder)?;
        fs::write(part.path(), &image)?;
        part.persist(&path)?;
    }
    Ok(Dom0 {
        initrd: path,
        ..dom0
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
