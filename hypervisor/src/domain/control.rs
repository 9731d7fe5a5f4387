//! What the control domain has set for a domain, beside its life: memory kept for it, how it sees its CPUs.

use core::sync::atomic::{AtomicBool, Ordering};

use oxen_core::memory::claims::Claim;
use spin::Mutex;

/// A domain's settings.
#[derive(Default)]
pub struct Control {
    /// Memory that is kept for it while it is built.
    pub claim: Mutex<Claim>,
    /// MSRs that it does not have read as 0, and writes to them are dropped.
    relaxed_msrs: AtomicBool,
}

impl Control {
    /// Sets whether MSRs that it does not have raise #GP (`XEN_X86_MSR_RELAXED`).
    pub fn set_relaxed_msrs(&self, relaxed: bool) {
        self.relaxed_msrs.store(relaxed, Ordering::Relaxed);
    }

    /// Whether they do not.
    pub fn relaxed_msrs(&self) -> bool {
        self.relaxed_msrs.load(Ordering::Relaxed)
    }
}
