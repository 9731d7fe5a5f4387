//! Builds PVH guests.
//!
//! [`Guest::load`] reads the kernel and plans everything without touching the hypervisor; [`Guest::build`] then makes the
//! domain on a [`Machine`]: [`Xen`] in dom0, a model in tests. A build that fails leaves nothing behind. What the domain gets
//! besides memory (xenstore nodes, devices, shares of the CPUs) is the caller's, and so is unpausing it.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod context;
pub mod extents;
pub mod layout;
pub mod start_info;

mod build;
mod cache;
mod content;
mod error;
mod guest;
mod kernel;
mod machine;
mod xen;

pub use build::{Built, Ring};
pub use cache::KernelCache;
pub use error::BuildError;
pub use guest::{Config, Guest};
pub use machine::Machine;
pub use xen::Xen;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
