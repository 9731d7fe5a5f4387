//! Xen to compare with: Debian's own hypervisor, and a dom0 with its tools.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::{self, Archive};
use super::newc::Newc;
use super::{Dom0, cache, initrd, toolstack, xen};
use crate::host;
use crate::progress::Step;

/// In the cache. Another version gets another name.
const FOLDER: &str = "xen-4.17-hypervisor";
const PACKAGE: &str = "xen-hypervisor-4.17-amd64";
/// In the package.
const IMAGE: &str = "boot/xen-4.17-amd64.gz";

/// Debian's Xen.
#[derive(Clone, Debug)]
pub struct Xen {
    /// Its image, unpacked: an ELF file for a multiboot2 loader.
    pub hypervisor: PathBuf,
    /// The package's version.
    pub version: String,
}

impl Xen {
    /// From the cache if it is there.
    ///
    /// # Errors
    /// The package cannot be had, or does not hold what it should.
    pub fn provision() -> Result<Self> {
        super::packages()?;
        if !host::cache().join(FOLDER).exists() && !host::is_debian() {
            bail!("no Xen to compare with: it comes from Debian 12's package {PACKAGE}");
        }
        let folder = cache::folder(FOLDER, |work| {
            let step = Step::start(format!("fetching {PACKAGE}"));
            let archive = Archive::open(&["bookworm", "bookworm-security"], false)?;
            let package = archive.download(PACKAGE, work)?;
            let tree = work.join("tree");
            archive::unpack(&package, &tree)?;
            let image = Command::new("gzip")
                .arg("-dc")
                .arg(tree.join(IMAGE))
                .output()
                .context("cannot start gzip")?;
            if !image.status.success() || image.stdout.is_empty() {
                bail!("package {PACKAGE} holds no {IMAGE}");
            }
            fs::write(work.join("xen"), image.stdout)?;
            let versions = archive.versions(PACKAGE);
            let version = versions.first().context("Xen's package has no version")?;
            fs::write(work.join("version"), version)?;
            fs::remove_file(package)?;
            fs::remove_dir_all(tree)?;
            step.done();
            Ok(())
        })?;
        let version = folder.join("version");
        Ok(Self {
            hypervisor: folder.join("xen"),
            version: fs::read_to_string(&version)
                .with_context(|| format!("{} cannot be read", version.display()))?,
        })
    }

    /// The same dom0 with Xen's tools and daemons in place of ours, and a guest with the same kernel.
    ///
    /// # Errors
    /// The tools cannot be had, or a file cannot be read or written.
    pub fn with_tools(&self, dom0: Dom0) -> Result<Dom0> {
        let mut archive = Newc::new();
        initrd::add_tree(&mut archive, &host::workspace().join("boot/xen"), "")?;
        toolstack::add_guest(&mut archive, &dom0.kernel)?;
        let with_tools = xen::with_xen_tools(&dom0.initrd)?;
        let initrd = toolstack::keep(&archive.behind(&with_tools)?)?;
        Ok(Dom0 { initrd, ..dom0 })
    }
}
