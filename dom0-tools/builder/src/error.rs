//! Why a guest cannot be built.

use std::io;
use std::path::PathBuf;

use oxen_core::kernel::KernelError;

/// Why a guest cannot be built: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BuildError {
    /// The configuration asks for what cannot be.
    #[error("{0}")]
    Config(String),
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The kernel is none that can be booted.
    #[error("{}: {cause}", path.display())]
    Kernel { path: PathBuf, cause: KernelError },
    /// Kernel, ramdisk and start information are more than the guest's memory.
    #[error(
        "{memory_mib} MiB are too little for the kernel and the ramdisk: set memory to {needed_mib} or more"
    )]
    TooSmall { memory_mib: u64, needed_mib: u64 },
    /// The kernel lies where no memory is.
    #[error(
        "the kernel wants to be at {start:#x}-{end:#x}, where a guest has no memory (it ends below {limit:#x}); use an unmodified distribution kernel"
    )]
    Misplaced { start: u64, end: u64, limit: u64 },
    /// The machine has not enough free memory.
    #[error(
        "not enough free memory for the guest's {wanted_mib} MiB: free some (ox mem-set 0 ...) or give the guest less"
    )]
    OutOfMemory { wanted_mib: u64 },
    /// A call to the hypervisor failed.
    #[error("{step}: {source}; `ox dmesg` may tell why")]
    Step {
        step: &'static str,
        source: io::Error,
    },
}
