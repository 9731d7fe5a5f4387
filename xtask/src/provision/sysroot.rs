//! The library of the bare-metal target: installed, added by rustup, or built from Debian's package of the same source.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::{self, Archive};
use super::cache;
use crate::build::TARGET;
use crate::host;
use crate::progress::Step;

/// Where the target's library comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sysroot {
    /// The toolchain has it.
    Installed,
    /// It is built from the source in this folder (`library`).
    Source(PathBuf),
}

/// Finds the library, provisioning it if it is missing.
///
/// # Errors
/// None of the three ways works.
pub fn find() -> Result<Sysroot> {
    if let Some(found) = present()? {
        return Ok(found);
    }
    if host::find_command("rustup").is_some() {
        let step = Step::start(format!("adding the target {TARGET} to the toolchain"));
        let added = host::run_quiet(
            Command::new("rustup")
                .args(["target", "add", TARGET])
                .current_dir(host::workspace()),
        );
        if added.is_ok() && installed()? {
            step.done();
            return Ok(Sysroot::Installed);
        }
    }
    if !host::is_debian() {
        bail!("the target {TARGET} is missing; type: rustup target add {TARGET}");
    }
    source().map(Sysroot::Source)
}

/// The library where it is there already.
///
/// # Errors
/// There is no compiler, or the cache is damaged.
pub fn present() -> Result<Option<Sysroot>> {
    if installed()? {
        return Ok(Some(Sysroot::Installed));
    }
    let cached = host::cache().join(format!("rust-src-{}", version()?));
    if cached.exists() {
        return Ok(Some(Sysroot::Source(library(&cached)?)));
    }
    Ok(None)
}

fn installed() -> Result<bool> {
    let sysroot = host::capture("rustc", &["--print", "sysroot"])?;
    Ok(Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .exists())
}

/// The compiler's version, such as 1.95.0.
fn version() -> Result<String> {
    let text = host::capture("rustc", &["--version"])?;
    text.split_ascii_whitespace()
        .nth(1)
        .map(str::to_owned)
        .context("rustc tells no version")
}

fn source() -> Result<PathBuf> {
    let version = version()?;
    let folder = cache::folder(&format!("rust-src-{version}"), |work| {
        let step = Step::start(format!(
            "fetching the source of Rust {version}'s library from Debian"
        ));
        let archive = Archive::open(&["trixie-backports", "trixie"], false)?;
        let exact = archive
            .versions("rust-src")
            .into_iter()
            .find(|candidate| candidate.starts_with(&format!("{version}+")));
        let package = exact
            .map(|exact| format!("rust-src={exact}"))
            .with_context(|| {
                format!("Debian has no rust-src {version}; type: rustup target add {TARGET}")
            })?;
        let file = archive.download(&package, work)?;
        archive::unpack(&file, work)?;
        std::fs::remove_file(file)?;
        step.done();
        Ok(())
    })?;
    library(&folder)
}

fn library(folder: &Path) -> Result<PathBuf> {
    let sources = folder.join("usr/src");
    let found = std::fs::read_dir(&sources).ok().and_then(|entries| {
        entries
            .flatten()
            .map(|entry| entry.path().join("library"))
            .find(|path| path.exists())
    });
    found.with_context(|| {
        format!(
            "{} holds no library source; remove it and try again",
            folder.display()
        )
    })
}
