//! `cargo xtask test --miri`: what shares memory with a peer, interpreted by Miri.
//!
//! Tests that try many cases have fewer of them under Miri (`cfg!(miri)`), which takes some thousand times as long as the CPU.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{build, host};

/// The toolchain that has Miri.
const TOOLCHAIN: &str = "nightly";
/// Rings and what is on them. The back ends are no part of it, as Miri opens no file for direct I/O, nor is what moves frames byte by byte,
/// which takes it too long.
const PACKAGES: [&str; 4] = ["oxen-ring", "oxen-blkif", "oxen-netif", "oxen-blkfront"];
/// The module of tests whose threads are worth several orders, in its package.
const THREADS: (&str, &str) = ("oxen-ring", "threads::");
/// How many.
const ORDERS: u32 = 8;
/// Cases of each property test, where the user's environment does not say.
const CASES: (&str, &str) = ("PROPTEST_CASES", "4");

/// Runs the tests that have `filter` in their names. True if all have passed.
///
/// # Errors
/// Miri is not installed: the message says what to type.
pub fn test(filter: Option<&str>) -> Result<bool> {
    ready()?;
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    let mut passed = run(&packages.collect::<Vec<_>>(), filter, "")?;
    let (package, module) = THREADS;
    if filter.is_none_or(|filter| module.contains(filter)) {
        eprintln!("{module} in {ORDERS} orders");
        let orders = format!("-Zmiri-many-seeds=..{ORDERS}");
        passed &= run(&["--package", package], Some(module), &orders)?;
    }
    Ok(passed)
}

/// Fails where there is no Miri.
fn ready() -> Result<()> {
    let found = miri()
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        bail!(
            "Miri is not installed; type: rustup toolchain install {TOOLCHAIN} --component miri,rust-src"
        );
    }
    Ok(())
}

fn run(packages: &[&str], filter: Option<&str>, more_flags: &str) -> Result<bool> {
    // Property tests look for the cases that failed before, in files.
    let own = env::var("MIRIFLAGS").unwrap_or_default();
    let flags = format!("-Zmiri-disable-isolation {more_flags} {own}");
    let mut command = miri();
    command
        .args(["test", "--quiet", "--lib", "--no-fail-fast"])
        .args(packages)
        .args(filter)
        .env("MIRIFLAGS", flags.trim_end())
        .env("CARGO_TARGET_DIR", build::target_folder().join("miri"));
    let (cases, few) = CASES;
    if env::var_os(cases).is_none() {
        command.env(cases, few);
    }
    let status = command.status().context("cannot start rustup")?;
    Ok(status.success())
}

/// `cargo miri` of its toolchain, whatever toolchain this program was built with.
fn miri() -> Command {
    let mut command = Command::new("rustup");
    command
        .current_dir(host::workspace())
        .args(["run", TOOLCHAIN, "cargo", "miri"]);
    // They are this toolchain's.
    for variable in ["CARGO", "RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}
