//! Bochs 3.0, built once from Debian's source package: the packaged one is a slow debugger build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::{in_cache, packages};
use crate::host::{self, say};

/// Where VMX is emulated whole, fast, and without a display.
const OPTIONS: &[&str] = &[
    "--enable-x86-64",
    "--enable-smp",
    "--enable-vmx=2",
    "--enable-svm",
    "--enable-avx",
    "--enable-evex",
    "--enable-all-optimizations",
    "--enable-handlers-chaining",
    "--enable-long-phy-address",
    "--enable-e1000",
    "--enable-ne2000",
    "--enable-protection-keys",
    "--enable-cet",
    "--enable-configurable-msrs",
    "--disable-plugins",
    "--with-nogui",
    "--disable-docbook",
];

/// The binary, built if it is not in the cache.
///
/// # Errors
/// The source cannot be had, or does not build.
pub fn binary() -> Result<PathBuf> {
    let cached = cached();
    if cached.exists() {
        return Ok(cached);
    }
    packages()?;
    if !host::is_debian() {
        bail!(
            "Bochs 3.0 is missing; build it with {} and give its path with --bochs",
            OPTIONS.join(" ")
        );
    }
    say("building Bochs 3.0 (a few minutes, once)");
    in_cache("bochs-3.0", build)?;
    Ok(cached)
}

/// Where the binary is or would be.
pub fn cached() -> PathBuf {
    host::cache().join("bochs-3.0/bochs")
}

fn build(work: &Path) -> Result<()> {
    let archive = Archive::open(&["trixie"], true)?;
    let tarball = archive.download_source("bochs", work)?;
    let tree = work.join("source");
    std::fs::create_dir(&tree)?;
    host::run_quiet(
        Command::new("tar")
            .arg("xf")
            .arg(&tarball)
            .args(["--strip-components=1", "-C"])
            .arg(&tree),
    )?;
    host::run_quiet(Command::new("./configure").args(OPTIONS).current_dir(&tree))
        .context("Bochs cannot be configured")?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    host::run_quiet(
        Command::new("make")
            .arg(format!("-j{jobs}"))
            .current_dir(&tree),
    )
    .context("Bochs does not build")?;
    std::fs::copy(tree.join("bochs"), work.join("bochs"))?;
    std::fs::remove_dir_all(tree)?;
    for entry in std::fs::read_dir(work)?
        .flatten()
        .filter(|entry| entry.file_name() != "bochs")
    {
        std::fs::remove_file(entry.path())?;
    }
    Ok(())
}
