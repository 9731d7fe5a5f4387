//! Physical CPUs: descriptor tables, per-CPU data, features, bring-up.

pub mod debug_registers;
pub mod descriptors;
pub mod features;
pub mod fpu;
pub mod msr;
pub mod percpu;
pub mod smp;

pub use percpu::{PerCpu, current};

/// Most physical CPUs brought up; the rest stay parked and are named in the log.
pub const MAX_CPUS: usize = 64;
