//! Oxen's machine-independent logic.
//!
//! Everything here is plain Rust over traits: it is unit-tested, property-tested and run under Miri on the host, and
//! the bare-metal binary supplies the traits. No assembly, no MSRs, no VMCS or VMCB, no global mutable state.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod acpi;
pub mod address;
pub mod apic;

pub mod cmdline;
pub mod context;
pub mod cpu_policy;
pub mod emulate;
pub mod event;
pub mod grant;
pub mod guest_page;
pub mod hvm_params;
pub mod hypercall;
pub mod id;
pub mod kernel;
pub mod log_ring;
pub mod memory;
pub mod pci;
pub mod registers;
pub mod schedule;
pub mod start;
mod sync;
pub mod time;
