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

/// Hypercall slots in a hypercall page.
pub const PAGE_SLOTS: usize = 128;

/// `CONSOLEIO_write`.
pub const CONSOLEIO_WRITE: u64 = 0;
/// `CONSOLEIO_read`.
pub const CONSOLEIO_READ: u64 = 1;

/// `VMASST_TYPE_runstate_update_flag`.
pub const VMASST_RUNSTATE_UPDATE_FLAG: u64 = 5;
