//! The scheduler: which vCPU runs on which CPU, and for how long.
//!
//! Proportional share by virtual time. Each vCPU has a clock that advances with its running time divided by its weight,
//! and each CPU runs the vCPU whose clock is furthest behind, so that running time follows weight.
//!
//! **Sleepers.** The least clock on a CPU is its *floor*, which only advances. A vCPU that wakes is put at most [`BOOST`]
//! of its own running time behind the floor. That is enough to preempt vCPUs that only compute, which is the boost of
//! I/O, and no more is saved up by sleeping longer. A vCPU that uses its whole share has no such lead, so nobody can
//! starve others by waking often. One that wakes another on its own CPU runs on for
//! [`Scheduler::rate_limit`], as it may have more for it to do.
//!
//! **Several CPUs.** Each CPU has a queue with its own lock; there is no lock over all, and no path holds one queue's lock
//! while it waits for another's. Clocks of different CPUs are comparable, as each queue knows what its scale lacks to
//! the common one. A CPU whose turn ends looks at a few others, by what they publish in atomics, and pulls a waiting vCPU
//! that lags by more than [`PULL`], unless the other CPU carries less than itself. So three equal vCPUs on two CPUs get
//! two thirds of a CPU each, which balancing by load alone cannot give. Lag that nobody can make good, such as that of
//! vCPUs bound to a crowded CPU or of one too heavy for the share it is due, is forgiven over [`CATCH_UP`]; without that it
//! would count for ever, and unbalance the machine once the cause has gone. A pulled vCPU goes just before those that
//! compute until it has caught up, and not before those that wake.
//!
//! **Work conservation.** A CPU with nothing to run looks at all queues that have vCPUs to give. Whoever makes a vCPU
//! ready looks for an idle CPU. One announces itself before it looks and the other its vCPU, so they cannot miss each
//! other.
//!
//! **Caps.** A capped domain has a budget, filled each [`CAP_PERIOD`], that its vCPUs draw from while they run and return
//! what they do not use. Those who find it empty are parked until the next period.
//!
//! **Bounds.** [`Scheduler::pick`], [`Scheduler::wake`] and [`Scheduler::block`] allocate nothing. Beside the heaps, which
//! cost the logarithm of their length, they look at bounded numbers of vCPUs and CPUs; where one stops short with the CPU
//! idle it asks to be called again soon.
//!
//! The caller gives the time, calls with interrupts off, and sends the interrupts that are asked for. Nothing here
//! knows what a vCPU is beyond its name. No clock, no machine.

mod attention;
mod balance;
mod cpu_set;
mod domain;
mod entity;
mod heap;
mod pick;
mod published;
mod queue;
mod rate_limit;
mod scheduler;
mod seat;
mod virtual_time;
mod wake;

#[cfg(test)]
mod tests;

pub use attention::{Attention, RunsOn};
pub use cpu_set::{BITMAP_BYTES, CpuSet, MAX_CPUS};
pub use domain::{Domain, Params};
pub use entity::Affinity;
pub use rate_limit::RateLimit;
pub use scheduler::{Attachment, Error, Handle, Scheduler};
pub use seat::{Asked, Seat};

use crate::id::{DomainId, VcpuId};

/// Weight of a domain that sets none.
pub const DEFAULT_WEIGHT: u16 = 256;

/// Nanoseconds that a vCPU runs while others wait.
pub const SLICE: u64 = 5_000_000;
/// Running time, in nanoseconds, by which one that wakes must be behind the current vCPU to take its place: below it the
/// change would cost more than it gains.
pub const PREEMPTION: u64 = 500_000;
/// The most running time, in nanoseconds, that a vCPU is owed when it wakes.
pub const BOOST: u64 = SLICE;
/// Running time, in nanoseconds, that a waiting vCPU must lag before another CPU pulls it.
pub const PULL: u64 = 2 * SLICE;
/// Nanoseconds between the fillings of a capped domain's budget.
pub const CAP_PERIOD: u64 = 10_000_000;
/// Nanoseconds over which the lag of a whole CPU is forgiven.
pub const CATCH_UP: u64 = 4_000_000_000;

/// Lag, in nanoseconds of its own running, that a vCPU takes along to another CPU.
const CARRIED: u64 = 20 * SLICE;
/// Running time in nanoseconds by which a vCPU can be before the floor where it arrives.
const AHEAD: u64 = 4 * SLICE;
/// Nanoseconds between looks at other CPUs for vCPUs that lag.
const LOOK_PERIOD: u64 = SLICE / 2;
/// CPUs looked at for one to pull from, or to wake on.
const CPUS_LOOKED_AT: usize = 8;
/// vCPUs of a queue looked at for one that may move.
const VCPUS_LOOKED_AT: usize = 32;
/// Nanoseconds after which an idle CPU that could not look everywhere looks again.
const RETRY: u64 = 100_000;

/// Names a vCPU of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuKey {
    /// Its domain.
    pub domain: DomainId,
    /// Its number there.
    pub vcpu: VcpuId,
}

/// What a CPU is to do.
///
/// A vCPU that was running here and is not the one to run may be picked by another CPU at once: that one must wait until
/// this one has saved its state, and this one must save it before it waits for the state of the next.
#[derive(Clone)]
#[must_use]
pub struct Decision {
    /// The vCPU to run; with none the CPU idles.
    pub run: Option<Handle>,
    /// The time, in nanoseconds, at which to call `pick` again at the latest, which may have come; none if nothing is due.
    pub until: Option<u64>,
    /// CPUs to interrupt, so that they call `pick`: there is work for them.
    pub interrupt: CpuSet,
}

impl Decision {
    /// The name of the vCPU to run.
    pub fn key(&self) -> Option<VcpuKey> {
        self.run.as_ref().map(Handle::key)
    }
}
