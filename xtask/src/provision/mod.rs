//! Everything that building, running and testing needs beyond a Rust toolchain.
//!
//! What is there already is left alone, so every verb may ask for what it needs. Nothing of the system is changed but for
//! the host packages: the rest goes to the cache.

pub mod archive;
pub mod bochs;
mod cache;
pub mod debian;
pub mod fio;
mod grub;
pub mod initrd;
pub mod kernels;
mod modules;
pub mod newc;
mod packages;
mod peer;
pub mod plain;
mod source;
pub mod sysroot;
mod toolstack;
mod xen;

use anyhow::{Result, bail};

use crate::progress::say;

pub use grub::pvh_image as pvh_grub;
pub use kernels::{Dom0, Suite, cloud as cloud_kernel};
pub use packages::{missing_packages, packages};
pub use peer::Xen;
pub use toolstack::with_tools;
pub use xen::{tools as xen_tools, with_xen_tools};

/// Provisions it all, what is needed most first. A part that cannot be had does not keep the others away.
///
/// # Errors
/// The parts that failed, each with its causes.
pub fn everything() -> Result<()> {
    packages()?;
    let parts = [
        sysroot::find().map(drop),
        kernels::dom0(Suite::Bookworm).map(drop),
        bochs::binary().map(drop),
        kernels::dom0(Suite::Trixie).map(drop),
        kernels::dom0(Suite::Sid).map(drop),
        grub::pvh_image().map(drop),
        xen::tools().map(drop),
        debian::root().map(drop),
        plain::kernel(Suite::Bookworm).map(drop),
        kernels::cloud(Suite::Bookworm).map(drop),
    ];
    let failed: Vec<String> = parts
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("\nerror: "));
    }
    say("everything is there; `cargo xtask run` boots it");
    Ok(())
}

/// Removes all that was provisioned but for the host's packages.
///
/// # Errors
/// Something cannot be removed.
pub fn forget() -> Result<()> {
    cache::clear()
}

/// The kernel and the initial RAM disk of a suite, provisioned if they are missing.
///
/// # Errors
/// See [`kernels::dom0`].
pub fn dom0(suite: Suite) -> Result<Dom0> {
    packages()?;
    kernels::dom0(suite)
}
