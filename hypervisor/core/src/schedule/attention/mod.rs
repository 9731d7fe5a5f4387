//! How whoever posts something to a vCPU makes it look, without a lock: through the CPU that runs it, or by waking it.
//!
//! A poster posts, asks [`RunsOn`] where the vCPU is, and then either asks that CPU for [`Attention`] or wakes the vCPU. The
//! CPU notes that it runs the vCPU before it first looks at what was posted, and that it does not any more before it looks
//! last. So whatever the order, what was posted is looked at, or the vCPU is woken.

#[cfg(all(test, feature = "loom"))]
mod all_orders;

use crate::id::CpuId;
use crate::sync::atomic::{AtomicBool, AtomicU16, Ordering, fence};

/// The CPU that is running a vCPU.
#[derive(Debug)]
pub struct RunsOn(AtomicU16);

/// No CPU runs it.
const NOWHERE: u16 = u16::MAX;

impl Default for RunsOn {
    fn default() -> Self {
        Self(AtomicU16::new(NOWHERE))
    }
}

impl RunsOn {
    /// The CPU that is running it.
    pub fn get(&self) -> Option<CpuId> {
        Some(CpuId(self.0.load(Ordering::SeqCst))).filter(|cpu| cpu.0 != NOWHERE)
    }

    /// The same for one who has posted something: a CPU that is not named here looks later than that.
    pub fn get_after_post(&self) -> Option<CpuId> {
        fence(Ordering::SeqCst);
        self.get()
    }

    /// Notes it. What is looked at behind this is looked at later.
    pub fn set(&self, cpu: Option<CpuId>) {
        self.0
            .store(cpu.map_or(NOWHERE, |cpu| cpu.0), Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

/// What a CPU was asked for by others.
#[derive(Debug, Default)]
pub struct Attention {
    /// To look up before the next entry, at least at what was posted to the running vCPU.
    asked: AtomicBool,
    /// To ask the scheduler; set before that.
    reschedule: AtomicBool,
}

impl Attention {
    /// Asks the CPU to look. True if it must be interrupted for that; else somebody has asked already, and the CPU has not
    /// looked yet.
    pub fn ask(&self) -> bool {
        !self.asked.swap(true, Ordering::AcqRel)
    }

    /// Asks the CPU to ask the scheduler; returns the same.
    pub fn ask_to_reschedule(&self) -> bool {
        self.reschedule.store(true, Ordering::Release);
        self.ask()
    }

    /// Whether the CPU, the calling one, was asked since the last call.
    #[inline]
    pub fn take(&self) -> bool {
        // The load keeps the common case free of a locked instruction.
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::AcqRel)
    }

    /// Whether nobody has asked since.
    pub fn is_undisturbed(&self) -> bool {
        !self.asked.load(Ordering::Acquire)
    }

    /// Whether it was asked to reschedule since the last [`Self::begin_round`].
    pub fn must_reschedule(&self) -> bool {
        self.reschedule.load(Ordering::Acquire)
    }

    /// The scheduler is asked now: requests so far are heeded by that.
    pub fn begin_round(&self) {
        self.take();
        // What was done before a request that is dropped here is seen from here on.
        if self.must_reschedule() {
            self.reschedule.swap(false, Ordering::AcqRel);
        }
    }
}
