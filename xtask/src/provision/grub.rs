//! GRUB as a PVH guest, from Debian's package: a guest that is not Linux.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::archive::{self, Archive};
use super::cache;
use crate::host;
use crate::progress::Step;

const PACKAGE: &str = "grub-xen-host";
/// In the package.
const IMAGE: &str = "usr/lib/grub-xen/grub-i386-xen_pvh.bin";
const FOLDER: &str = "grub-pvh";
const FILE: &str = "grub.bin";

/// The image, from the cache if it is there.
///
/// # Errors
/// The package cannot be had, or does not hold it.
pub fn pvh_image() -> Result<PathBuf> {
    if !host::cache().join(FOLDER).exists() && !host::is_debian() {
        bail!("no GRUB for guests: it comes from Debian's package {PACKAGE}");
    }
    let folder = cache::folder(FOLDER, |work| {
        let step = Step::start(format!("fetching {PACKAGE}"));
        let package = Archive::open(&["bookworm"], false)?.download(PACKAGE, work)?;
        let tree = work.join("tree");
        archive::unpack(&package, &tree)?;
        fs::copy(tree.join(IMAGE), work.join(FILE))
            .with_context(|| format!("package {PACKAGE} holds no {IMAGE}"))?;
        fs::remove_file(package)?;
        fs::remove_dir_all(tree)?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join(FILE))
}
