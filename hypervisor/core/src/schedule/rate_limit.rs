//! How long a vCPU that wakes another may go on.

use core::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::sysctl::scheduler::RATE_LIMITS;

/// How long a vCPU runs on that wakes another on its own CPU, before that one may take its place.
///
/// One that loses it at once has its work cut into pieces: a back end would answer one request at a time, and its guest ask for one. Xen's
/// limit is for any vCPU that has just begun to run; here one that is woken by a device, a timer or another CPU does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit(u32);

impl Default for RateLimit {
    fn default() -> Self {
        Self(500)
    }
}

impl RateLimit {
    /// So many microseconds, 0 for no limit; `None` outside of Xen's bounds.
    pub fn from_micros(micros: u32) -> Option<Self> {
        (micros == 0 || RATE_LIMITS.contains(&micros)).then_some(Self(micros))
    }

    /// In microseconds.
    pub const fn micros(self) -> u32 {
        self.0
    }

    /// In nanoseconds.
    pub fn nanos(self) -> u64 {
        u64::from(self.0) * 1000
    }
}

/// One that can be changed at any time.
pub(super) struct AtomicRateLimit(AtomicU32);

impl AtomicRateLimit {
    pub const fn new(limit: RateLimit) -> Self {
        Self(AtomicU32::new(limit.0))
    }

    pub fn load(&self) -> RateLimit {
        RateLimit(self.0.load(Ordering::Relaxed))
    }

    pub fn store(&self, limit: RateLimit) {
        self.0.store(limit.0, Ordering::Relaxed);
    }
}
