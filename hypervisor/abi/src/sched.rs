//! `sched_op` (`public/sched.h`).

use crate::Narrow;

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const YIELD: u64 = 0;
    pub const BLOCK: u64 = 1;
    pub const SHUTDOWN: u64 = 2;
    pub const POLL: u64 = 3;
    pub const REMOTE_SHUTDOWN: u64 = 4;
    pub const SHUTDOWN_CODE: u64 = 5;
    pub const WATCHDOG: u64 = 6;
    pub const PIN_OVERRIDE: u64 = 7;
}

/// Reasons for a shutdown.
#[allow(missing_docs)]
pub mod reason {
    pub const POWEROFF: u32 = 0;
    pub const REBOOT: u32 = 1;
    pub const SUSPEND: u32 = 2;
    pub const CRASH: u32 = 3;
    pub const WATCHDOG: u32 = 4;
    pub const SOFT_RESET: u32 = 5;
    /// The highest.
    pub const MAX: u32 = SOFT_RESET;
}

/// Most ports in one poll.
pub const POLL_PORTS: u32 = 128;

/// Bytes of a `sched_poll`: ports' address u64, their number u32, padding, timeout u64.
pub const POLL_SIZE: usize = 24;
/// The same in 32-bit mode.
pub const POLL_NARROW: &Narrow = &[(0, 0, 4), (4, 8, 4), (8, 16, 8)];
