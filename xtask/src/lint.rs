//! Format and clippy, for every crate.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, host};

/// Checks the format of all crates, then clippy with warnings denied: the host's crates with their tests, those that try
/// all orders, the hypervisor and the test guests for their own target.
///
/// # Errors
/// The first check that fails.
pub fn lint() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    // The default members are exactly what is built for the host.
    cargo(&[
        "clippy",
        "--quiet",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ])?;
    let mut all_orders = vec!["clippy", "--quiet", "--tests"];
    all_orders.extend(build::ALL_ORDERS);
    all_orders.extend(["--", "--deny", "warnings"]);
    cargo(&all_orders)?;
    for package in build::PACKAGES {
        build::cargo("clippy", package, &["--", "--deny", "warnings"])?;
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let verb = arguments.first().copied().unwrap_or_default();
    let status = Command::new(host::cargo())
        .current_dir(host::workspace())
        .args(arguments)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!(
            "cargo {verb} found faults (its component missing? type: rustup component add rustfmt clippy)"
        );
    }
    Ok(())
}
