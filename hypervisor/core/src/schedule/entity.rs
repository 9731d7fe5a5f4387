//! A vCPU as the scheduler sees it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use spin::Mutex;

use super::virtual_time::{Clock, before};
use super::{Attachment, CpuSet, Domain, VcpuKey};
use crate::id::{CpuId, VcpuId};

/// The CPUs on which a vCPU may run, and those on which it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// It runs on no other.
    pub hard: CpuSet,
    /// It runs on others only where those have nothing else to do; no CPU of `hard` in it means no preference.
    pub soft: CpuSet,
}

impl Default for Affinity {
    fn default() -> Self {
        Self {
            hard: CpuSet::ALL,
            soft: CpuSet::ALL,
        }
    }
}

impl Affinity {
    /// Whether `cpu` is one of those to choose first.
    pub(super) fn prefers(&self, cpu: CpuId) -> bool {
        self.hard.contains(cpu) && (self.soft.contains(cpu) || self.hard.and(&self.soft).is_empty())
    }

    /// The CPUs to choose from first.
    pub(super) fn preferred(&self) -> CpuSet {
        let both = self.hard.and(&self.soft);
        if both.is_empty() { self.hard } else { both }
    }
}

/// Where a vCPU is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for something to happen.
    Blocked,
    /// It waits for its CPU, in the queue of ready ones.
    Ready,
    /// It is its CPU's current one.
    Running,
    /// Its domain has used up its budget; it waits for the next, in the queue of parked ones.
    Parked,
    /// In no queue, between two CPUs; whoever took it out puts it in.
    Moving,
    /// It has been removed.
    Gone,
}

/// A vCPU; its home is the CPU whose lock covers it.
pub struct Entity {
    pub domain: Arc<Domain>,
    pub id: VcpuId,
    pub attachment: Attachment,
    /// Written with both the new home's lock and `state` held.
    home: AtomicU16,
    /// Its place in the heap that it is in.
    pub place: AtomicU32,
    /// Taken with a queue's lock held, so never waited for long.
    pub state: Mutex<State>,
}

/// What changes of a vCPU.
pub struct State {
    pub phase: Phase,
    /// Virtual time on the scale of its home; while moving, relative to the least of the home it left.
    pub clock: Clock,
    /// Virtual time that it lags in truth, having come from another CPU, beyond what its clock shows.
    pub credit: u64,
    /// Hard affinity has the machine's CPUs only, and at least one.
    pub affinity: Affinity,
    /// The weight that its home's load has for it.
    pub counted: u64,
    /// It was woken while it ran, so it must not block before it has looked.
    pub wake_pending: bool,
}

impl State {
    /// Turns the clock back as far as the credit goes, to `to` at most.
    pub fn spend_credit(&mut self, to: u64) {
        if self.credit > 0 && before(to, self.clock.now) {
            let spent = self.clock.now.wrapping_sub(to).min(self.credit);
            self.clock.now = self.clock.now.wrapping_sub(spent);
            self.credit -= spent;
        }
    }
}

impl Entity {
    pub fn new(
        domain: &Arc<Domain>,
        id: VcpuId,
        attachment: Attachment,
        home: CpuId,
        affinity: Affinity,
        at: u64,
    ) -> Self {
        Self {
            domain: domain.clone(),
            id,
            attachment,
            home: AtomicU16::new(home.0),
            place: AtomicU32::new(0),
            state: Mutex::new(State {
                phase: Phase::Blocked,
                clock: Clock::at(at),
                credit: 0,
                affinity,
                counted: 0,
                wake_pending: false,
            }),
        }
    }

    pub fn key(&self) -> VcpuKey {
        VcpuKey {
            domain: self.domain.id(),
            vcpu: self.id,
        }
    }

    pub fn home(&self) -> CpuId {
        CpuId(self.home.load(Ordering::Acquire))
    }

    pub fn set_home(&self, home: CpuId) {
        self.home.store(home.0, Ordering::Release);
    }
}
