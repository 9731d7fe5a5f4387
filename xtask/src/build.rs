//! Building the hypervisor, and the small guests of tests and benchmarks, for the bare machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;
use crate::provision::sysroot::{self, Sysroot};

/// All packages for the bare machine.
pub const PACKAGES: [&str; 10] = [
    "oxen",
    "oxen-guest-runtime",
    "oxen-bench-guest",
    "oxen-disk-guest",
    "oxen-hostile-guest",
    "oxen-grants-guest",
    "oxen-network-guest",
    "oxen-registers-guest",
    "oxen-spin-guest",
    "oxen-visitor-guest",
];

/// What cargo needs to build the tests that try all orders of what threads do: crates whose atomics are loom's then.
pub const ALL_ORDERS: [&str; 11] = [
    "--package",
    "oxen-core",
    "--package",
    "oxen-ring",
    "--package",
    "oxen-xenstore",
    "--package",
    "oxen-xenconsoled",
    "--lib",
    "--features",
    "oxen-core/loom,oxen-ring/loom,oxen-xenstore/loom,oxen-xenconsoled/loom",
];

/// The bare machine.
pub const TARGET: &str = "x86_64-unknown-none";

/// Builds the hypervisor; returns its ELF file.
///
/// # Errors
/// The target's library cannot be had, or the build fails.
pub fn hypervisor() -> Result<PathBuf> {
    binary("oxen")
}

/// Builds a test guest by its package's name; returns its ELF file.
///
/// # Errors
/// As for [`hypervisor`].
pub fn guest(package: &str) -> Result<PathBuf> {
    binary(package)
}

/// The tools that run in dom0, as static binaries: their packages and what they are called.
const TOOLS: [(&str, &str); 5] = [
    ("oxen-blkback", "oxblk"),
    ("oxen-netback", "oxnet"),
    ("oxen-ox", "ox"),
    ("oxen-xenstored", "xenstored"),
    ("oxen-xenconsoled", "xenconsoled"),
];

/// Builds dom0's tools; returns their files.
///
/// # Errors
/// The build fails, for instance for want of a static C library.
pub fn tools() -> Result<Vec<PathBuf>> {
    let packages = TOOLS.iter().flat_map(|(package, _)| ["--package", package]);
    for_dom0(&packages.collect::<Vec<_>>())?;
    let folder = dom0_folder();
    Ok(TOOLS.iter().map(|(_, name)| folder.join(name)).collect())
}

/// Builds a package's example as a program for dom0; returns its file.
///
/// # Errors
/// As for [`tools`].
pub fn dom0_example(package: &str, example: &str) -> Result<PathBuf> {
    for_dom0(&["--package", package, "--example", example])?;
    Ok(dom0_folder().join("examples").join(example))
}

/// Builds a program that a test runs in dom0, by its package's name; returns its file.
///
/// # Errors
/// As for [`tools`].
pub fn program(package: &str) -> Result<PathBuf> {
    for_dom0(&["--package", package])?;
    Ok(dom0_folder().join(package))
}

/// Where dom0's own kernel runs programs.
const DOM0_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The workspace's profile for them.
const DOM0_PROFILE: &str = "tools";

fn dom0_folder() -> PathBuf {
    target_folder().join(DOM0_TARGET).join(DOM0_PROFILE)
}

fn for_dom0(what: &[&str]) -> Result<()> {
    let status = Command::new(host::cargo())
        .current_dir(host::workspace())
        .args(["build", "--quiet", "--profile", DOM0_PROFILE])
        .args(["--target", DOM0_TARGET])
        .args(what)
        .env("CARGO_TARGET_DIR", target_folder())
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C strip=symbols",
        )
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!(
            "dom0's programs cannot be built (a static C library missing? package libc6-dev has it)"
        );
    }
    Ok(())
}

fn binary(package: &str) -> Result<PathBuf> {
    cargo("build", package, &[])?;
    Ok(target_folder().join(TARGET).join("release").join(package))
}

/// Runs a cargo command (`build`, `clippy`) on a package for the bare machine.
///
/// # Errors
/// The target's library cannot be had, or the command fails.
pub fn cargo(verb: &str, package: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(host::cargo());
    command.current_dir(host::workspace()).args([
        verb,
        "--quiet",
        "--release",
        "--package",
        package,
        "--target",
        TARGET,
    ]);
    if let Sysroot::Source(library) = sysroot::find()? {
        // The installed toolchain has no library for the target: it is built from the same version's source.
        command
            .args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    command
        .env("CARGO_TARGET_DIR", target_folder())
        .args(arguments);
    // Cargo's own environment for this very program must not reach the other target's build.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo {verb} of {package} failed");
    }
    Ok(())
}

/// Where cargo puts what it builds.
pub fn target_folder() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| host::workspace().join("target"));
    // A relative one is meant from where we were started, not from where cargo will be.
    std::path::absolute(&folder).unwrap_or(folder)
}
