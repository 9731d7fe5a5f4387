//! Hypercall numbers (`public/xen.h`).

#![allow(missing_docs)]

pub const PLATFORM_OP: u64 = 7;
pub const MEMORY_OP: u64 = 12;
pub const MULTICALL: u64 = 13;
pub const SET_TIMER_OP: u64 = 15;
pub const XEN_VERSION: u64 = 17;
pub const CONSOLE_IO: u64 = 18;
pub const GRANT_TABLE_OP: u64 = 20;
pub const VM_ASSIST: u64 = 21;
pub const VCPU_OP: u64 = 24;
pub const SCHED_OP: u64 = 29;
pub const EVENT_CHANNEL_OP: u64 = 32;
pub const PHYSDEV_OP: u64 = 33;
pub const HVM_OP: u64 = 34;
pub const SYSCTL: u64 = 35;
pub const DOMCTL: u64 = 36;

/// `multicall_entry` (`public/xen.h`).
#[allow(missing_docs)]
pub mod multicall {
    use crate::Narrow;

    /// Bytes of an entry: operation, result, six arguments, each of the caller's width.
    pub const SIZE: usize = 64;
    pub const OPERATION: usize = 0;
    pub const RESULT: usize = 8;
    pub const ARGUMENTS: usize = 16;
    /// The same in 32-bit mode; the result is at 4 there.
    pub const NARROW: &Narrow = &[
        (0, 0, 4),
        (4, 8, 4),
        (8, 16, 4),
        (12, 24, 4),
        (16, 32, 4),
        (20, 40, 4),
        (24, 48, 4),
        (28, 56, 4),
    ];
}

/// Hypercall slots in a hypercall page.
pub const PAGE_SLOTS: usize = 128;

/// `CONSOLEIO_write`.
pub const CONSOLEIO_WRITE: u64 = 0;
/// `CONSOLEIO_read`.
pub const CONSOLEIO_READ: u64 = 1;

/// `VMASST_TYPE_runstate_update_flag`.
pub const VMASST_RUNSTATE_UPDATE_FLAG: u64 = 5;
