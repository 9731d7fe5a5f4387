//! Debian's kernels, for dom0 and for guests, from its packages: downloaded and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::{self, Archive};
use super::{cache, initrd, modules};
use crate::host;
use crate::progress::Step;

/// A Debian suite whose newest kernel dom0 can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Debian 12: Linux 6.1
    #[default]
    Bookworm,
    /// Debian 13: Linux 6.12
    Trixie,
    /// Unstable: the newest Linux
    Sid,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Sid];

    /// Its name in the archive.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// The parts of the archive where its newest packages are. Unstable has no security updates of its own.
    const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &["bookworm", "bookworm-security"],
            Self::Trixie => &["trixie", "trixie-security"],
            Self::Sid => &["sid"],
        }
    }

    /// Its kernel's folder in the cache.
    fn folder_name(self) -> String {
        format!("linux-{}", self.name())
    }

    /// The kernel version in the cache, if it is there.
    pub fn cached_version(self) -> Option<String> {
        let folder = host::cache().join(self.folder_name());
        Some(
            fs::read_to_string(folder.join("version"))
                .ok()?
                .trim()
                .to_owned(),
        )
    }
}

/// What dom0 boots from.
#[derive(Clone, Debug)]
pub struct Dom0 {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk with its modules.
    pub initrd: PathBuf,
}

/// The newest kernel of a suite with its initial RAM disk, from the cache if they are there.
///
/// # Errors
/// The packages cannot be had, or do not hold what they should.
pub fn dom0(suite: Suite) -> Result<Dom0> {
    let name = suite.folder_name();
    if !host::cache().join(&name).exists() && !host::is_debian() {
        bail!("no dom0 kernel: give one with --dom0-kernel and --dom0-initrd");
    }
    let folder = cache::folder(&name, |work| fetch(suite, work))?;
    Ok(Dom0 {
        kernel: folder.join("vmlinuz"),
        // The overlay is the project's and may have changed: the image is made anew when it has.
        initrd: initrd::up_to_date(&folder, &name)?,
    })
}

/// The kernel that Debian makes for machines in a cloud, of a suite: smaller than the full one, and with the frontends of guests
/// only. From the cache if it is there.
///
/// # Errors
/// As for [`dom0`].
pub fn cloud(suite: Suite) -> Result<PathBuf> {
    let folder = cache::folder(&format!("linux-cloud-{}", suite.name()), |work| {
        let step = Step::start(format!(
            "fetching the cloud kernel of Debian {}",
            suite.name()
        ));
        let tree = unpack(suite, "linux-image-cloud-amd64", work, &step)?;
        fs::copy(tree.kernel()?, work.join("vmlinuz"))?;
        fs::remove_dir_all(tree.root)?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("vmlinuz"))
}

/// Leaves `vmlinuz`, `version` and `modules` (the modules' folder of that version) in `work`.
fn fetch(suite: Suite, work: &Path) -> Result<()> {
    let step = Step::start(format!("fetching the kernel of Debian {}", suite.name()));
    let tree = unpack(suite, "linux-image-amd64", work, &step)?;
    let version = tree.modules.file_name().unwrap_or_default().to_owned();
    fs::copy(tree.kernel()?, work.join("vmlinuz"))?;
    fs::rename(&tree.modules, work.join("modules"))?;
    fs::write(work.join("version"), version.to_string_lossy().as_bytes())?;
    fs::remove_dir_all(tree.root)?;
    modules::make_lists(work)?;
    step.done();
    Ok(())
}

/// Kernel packages, unpacked.
struct Tree {
    root: PathBuf,
    /// The modules' folder of the kernel's version.
    modules: PathBuf,
}

impl Tree {
    /// The kernel's file.
    fn kernel(&self) -> Result<PathBuf> {
        let version = self.modules.file_name().unwrap_or_default();
        let boot = fs::read_dir(self.root.join("boot"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        boot.filter(|file| {
            file.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .chain([
            self.root
                .join("usr/lib/modules")
                .join(version)
                .join("vmlinuz"),
            self.modules.join("vmlinuz"),
        ])
        .find(|file| file.exists())
        .context("the kernel package holds no kernel")
    }
}

/// Unpacks what a suite's meta package stands for, below `work`.
fn unpack(suite: Suite, meta: &str, work: &Path, step: &Step) -> Result<Tree> {
    let archive = Archive::open(suite.parts(), false)?;
    let root = work.join("tree");
    for package in packages(&archive, meta)? {
        step.detail(&package);
        let file = archive.download(&package, work)?;
        archive::unpack(&file, &root)?;
        fs::remove_file(file)?;
    }
    let modules = ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .filter_map(|folder| fs::read_dir(root.join(folder)).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path())
        .find(|folder| folder.join("kernel").exists())
        .context("the kernel package holds no modules")?;
    Ok(Tree { root, modules })
}

/// The packages behind a suite's meta package: one up to Debian 13, split in three since.
fn packages(archive: &Archive, meta: &str) -> Result<Vec<String>> {
    const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
    let is_part = |name: &String| PARTS.iter().any(|part| name.starts_with(part));
    let mut found: Vec<String> = Vec::new();
    let mut queue: Vec<String> = vec![meta.to_owned()];
    while let Some(package) = queue.pop() {
        for dependency in archive.dependencies(&package).into_iter().filter(is_part) {
            if !found.contains(&dependency) {
                found.push(dependency.clone());
                queue.push(dependency);
            }
        }
    }
    if found.is_empty() {
        bail!("{meta} depends on no kernel package");
    }
    Ok(found)
}
