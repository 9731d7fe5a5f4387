//! fio, which loads disks and network cards: built once from Debian's source, as one static file. The packaged one wants 80 MB of
//! libraries for storage that no guest here has, too much for an emulated machine's RAM disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{cache, packages, source};
use crate::host;
use crate::progress::Step;

/// The same binary on every machine, whatever CPU and libraries built it.
const OPTIONS: &[&str] = &[
    "--build-static",
    "--disable-native",
    "--disable-lex",
    "--disable-numa",
    "--disable-rdma",
    "--disable-rados",
    "--disable-rbd",
    "--disable-http",
    "--disable-gfapi",
    "--disable-pmem",
    "--disable-xnvme",
    "--disable-libzbc",
    "--disable-libnfs",
    "--disable-tcmalloc",
    "--disable-dfs",
];

/// The cache's folder, renamed with each change of what is built.
const FOLDER: &str = "fio-3.33-static";
/// In it, and in the source.
const BINARY: &str = "fio";

/// The binary, built if it is not in the cache.
///
/// # Errors
/// The source cannot be had, or does not build.
pub fn binary() -> Result<PathBuf> {
    packages()?;
    if !host::cache().join(FOLDER).exists() && !host::is_debian() {
        bail!("no fio: it is built from the source package of Debian 12");
    }
    Ok(cache::folder(FOLDER, build)?.join(BINARY))
}

fn build(work: &Path) -> Result<()> {
    let step = Step::start("building fio from Debian's source (a minute, once)");
    let tree = work.join("source");
    source::unpack("bookworm", "fio", &tree)?;
    step.detail("configure");
    source::configure(&tree, OPTIONS)?;
    step.detail("make");
    source::make(&tree, &[BINARY])?;
    let binary = work.join(BINARY);
    fs::copy(tree.join(BINARY), &binary).context("fio's source has made no binary")?;
    // Symbols are more than half of it.
    host::run_quiet(Command::new("strip").arg(&binary))?;
    fs::remove_dir_all(tree)?;
    step.done();
    Ok(())
}
