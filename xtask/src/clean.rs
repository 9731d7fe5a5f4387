//! `cargo xtask clean`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::say;
use crate::{host, provision};

/// Removes what was built with the logs of all runs, and what was provisioned if asked.
///
/// # Errors
/// Something cannot be removed.
pub fn clean(cache: bool) -> Result<()> {
    // Cargo knows its own folder, and removes no other.
    host::run_quiet(
        Command::new(host::cargo())
            .current_dir(host::workspace())
            .arg("clean"),
    )?;
    // Logs and images of runs lie in the workspace's own folder, wherever cargo builds.
    let target = host::workspace().join("target");
    if target.exists() {
        fs::remove_dir_all(&target)
            .with_context(|| format!("{} cannot be removed", target.display()))?;
    }
    if cache {
        say(&format!(
            "removing what was provisioned in {}",
            host::cache().display()
        ));
        provision::forget()?;
    }
    Ok(())
}
