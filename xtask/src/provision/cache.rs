//! Folders of the cache, each whole or not there at all, and made by one process at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host;
use crate::progress::say;

/// The folder `name` of the cache, made by `make` if it is not there.
///
/// `make` fills a folder beside it, which gets its name only when it is complete: what an interrupted run leaves is never
/// taken for the whole, and is thrown away by the next one.
///
/// # Errors
/// What `make` fails with, or the cache cannot be written.
pub(crate) fn folder(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = host::cache().join(name);
    if folder.exists() {
        return Ok(folder);
    }
    let _lock = lock(name)?;
    // Another process may have made it meanwhile.
    if folder.exists() {
        return Ok(folder);
    }
    let work = host::cache().join(format!("{name}.part"));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work).with_context(|| format!("{} cannot be made", work.display()))?;
    make(&work)?;
    fs::rename(&work, &folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// Waits until no other process works on `name`. The lock goes with the file, also when this process is killed.
///
/// # Errors
/// The cache cannot be written.
pub(crate) fn lock(name: &str) -> Result<File> {
    let cache = host::cache();
    let path = cache.join(format!("{name}.lock"));
    fs::create_dir_all(&cache).with_context(|| {
        format!(
            "{} cannot be made; OXEN_CACHE names another place",
            cache.display()
        )
    })?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    if file.try_lock().is_err() {
        say(&format!(
            "waiting for another cargo xtask that works on {name}"
        ));
        file.lock()
            .with_context(|| format!("{} cannot be locked", path.display()))?;
    }
    Ok(file)
}

/// Removes what this module's users made, and nothing else: the folder may hold other things too.
///
/// # Errors
/// Something cannot be removed.
pub(crate) fn clear() -> Result<()> {
    let cache = host::cache();
    for entry in fs::read_dir(&cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !is_ours(&name.to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("{} cannot be removed", path.display()))?;
    }
    // Only an empty folder goes.
    let _ = fs::remove_dir(cache);
    Ok(())
}

fn is_ours(name: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "apt",
        "bochs",
        "debian-",
        "fio-",
        "grub-",
        "linux-",
        "rust-src-",
        "xen-",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_provisioned_is_cleared() {
        for name in [
            "apt",
            "bochs",
            "debian-bookworm-1",
            "fio-3.33-static",
            "grub-pvh",
            "linux-sid",
            "linux-sid.lock",
            "rust-src-1.95.0.part",
            "xen-4.17-tools",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["Documents", ".bashrc", "thesis.txt"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
