//! Programs built from Debian's source packages, where the packaged binary will not do.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Archive;
use crate::host;

/// Downloads the original source of a suite's package and unpacks it to `tree`, which must not be there.
///
/// # Errors
/// It cannot be had or unpacked.
pub(super) fn unpack(suite: &str, package: &str, tree: &Path) -> Result<()> {
    fs::create_dir(tree).with_context(|| format!("{} cannot be made", tree.display()))?;
    let tarball = Archive::open(&[suite], true)?.download_source(package, tree)?;
    host::run_quiet(
        Command::new("tar")
            .arg("xf")
            .arg(&tarball)
            .args(["--strip-components=1", "-C"])
            .arg(tree),
    )
}

/// Runs `./configure` with these options.
///
/// # Errors
/// It fails.
pub(super) fn configure(tree: &Path, options: &[&str]) -> Result<()> {
    host::run_quiet(Command::new("./configure").args(options).current_dir(tree))
        .with_context(|| format!("{} cannot be configured", tree.display()))
}

/// Builds these targets of the makefile, its first one if there are none.
///
/// # Errors
/// `make` fails.
pub(super) fn make(tree: &Path, targets: &[&str]) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    // Someone may be working at this machine meanwhile.
    host::run_quiet(
        Command::new("nice")
            .arg("make")
            .arg(format!("-j{jobs}"))
            .args(targets)
            .current_dir(tree),
    )
    .with_context(|| format!("{} does not build", tree.display()))
}
