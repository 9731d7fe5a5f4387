//! What the control domain has set for a domain, beside its life: memory kept for it, how it sees its CPUs.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use oxen_core::address::Gfn;
use oxen_core::cpu_policy::Policy;
use oxen_core::memory::claims::Claim;
use oxen_core::time::NANOS_PER_SECOND;
use spin::{Mutex, RwLock};

use crate::memory::frames::Block;

/// A vCPU's copy of what CPUID shows it, so that its CPUIDs share neither a lock nor a count of references.
#[derive(Default)]
pub struct PolicyCopy {
    version: u32,
    /// As of the last update.
    pub policy: Option<Arc<Policy>>,
}

/// A domain's settings.
#[derive(Default)]
pub struct Control {
    /// Seconds that its wall clock is ahead of UTC.
    time_offset: AtomicI64,
    /// What CPUID shows it, if not what all guests are shown.
    cpu_policy: RwLock<Option<Arc<Policy>>>,
    /// How often that has been set: vCPUs have copies.
    policies_set: AtomicU32,
    /// Memory that is kept for it while it is built.
    pub claim: Mutex<Claim>,
    /// What a call was in the middle of clearing for it, and for which place.
    pub clearing: Mutex<Option<(Gfn, Block)>>,
    /// MSRs that it does not have read as 0, and writes to them are dropped.
    relaxed_msrs: AtomicBool,
}

impl Control {
    /// Sets whether MSRs that it does not have raise #GP (`XEN_X86_MSR_RELAXED`).
    pub fn set_relaxed_msrs(&self, relaxed: bool) {
        self.relaxed_msrs.store(relaxed, Ordering::Relaxed);
    }

    /// Sets by how many seconds its wall clock is ahead of UTC.
    pub fn set_time_offset(&self, seconds: i64) {
        self.time_offset.store(seconds, Ordering::Relaxed);
    }

    /// The wall clock that it is shown where UTC is `nanos` since 1970.
    pub fn wall_clock(&self, nanos: u64) -> u64 {
        let offset = self.time_offset.load(Ordering::Relaxed);
        nanos.saturating_add_signed(offset.saturating_mul(NANOS_PER_SECOND.cast_signed()))
    }

    /// Sets what CPUID shows it.
    pub fn set_cpu_policy(&self, policy: Arc<Policy>) {
        *self.cpu_policy.write() = Some(policy);
        self.policies_set.fetch_add(1, Ordering::Release);
    }

    /// That, if it has been set.
    pub fn cpu_policy(&self) -> Option<Arc<Policy>> {
        self.cpu_policy.read().clone()
    }

    /// Brings a copy of that up to date.
    #[inline]
    pub fn update_cpu_policy(&self, copy: &mut PolicyCopy) {
        let version = self.policies_set.load(Ordering::Acquire);
        if copy.version != version {
            *copy = PolicyCopy {
                version,
                policy: self.cpu_policy(),
            };
        }
    }

    /// Whether they do not.
    pub fn relaxed_msrs(&self) -> bool {
        self.relaxed_msrs.load(Ordering::Relaxed)
    }
}
