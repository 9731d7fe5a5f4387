//! The scheduler's whole state, and what is done to it rarely: vCPUs come, go and change their affinity.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::sync::atomic::Ordering;

use spin::Mutex;

use super::cpu_set::AtomicCpuSet;
use super::entity::{Affinity, Entity, Phase, State};
use super::published::Queue;
use super::queue::RunQueue;
use super::rate_limit::AtomicRateLimit;
use super::virtual_time::Front;
use super::wake::Arrival;
use super::{CpuSet, Domain, MAX_CPUS, RateLimit, VcpuKey};
use crate::id::{CpuId, VcpuId};

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The hypervisor's memory is used up.
    NoMemory,
    /// The hard affinity names no CPU of this machine.
    NoCpu,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "no memory for another vCPU in the scheduler's queues",
            Self::NoCpu => "the hard affinity names no CPU of this machine",
        })
    }
}

/// What the caller keeps with a vCPU, so that a decision leads to it without a search.
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// A vCPU known to the scheduler. It stays known until [`Scheduler::remove`].
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Entity>);

impl Handle {
    /// Which vCPU it is.
    pub fn key(&self) -> VcpuKey {
        self.0.key()
    }

    /// What was given with it.
    pub fn attachment(&self) -> &Attachment {
        &self.0.attachment
    }

    /// The CPU that runs it, or did last; it may change at any time.
    pub fn cpu(&self) -> CpuId {
        self.0.home()
    }
}

/// The scheduler of a machine.
pub struct Scheduler {
    pub(super) queues: Box<[Queue]>,
    pub(super) cpus: CpuSet,
    /// CPUs that have nothing to run. Who takes one out must give it something to do and interrupt it.
    pub(super) idle: AtomicCpuSet,
    /// CPUs with vCPUs that wait and may run elsewhere.
    pub(super) overloaded: AtomicCpuSet,
    /// CPUs that run a vCPU with no end to its turn, as nothing waited anywhere.
    pub(super) unhurried: AtomicCpuSet,
    /// The furthest floor, on the common scale.
    pub(super) front: Front,
    rate_limit: AtomicRateLimit,
    /// vCPUs that the queues have room for.
    vcpus: Mutex<usize>,
}

impl Scheduler {
    /// A scheduler of CPUs 0 to `cpus`, of which those from [`MAX_CPUS`] on are left out.
    pub fn new(cpus: usize) -> Self {
        Self::starting_at(cpus, 0)
    }

    /// One whose virtual time starts at `virtual_time`, as if it had run for long.
    pub(super) fn starting_at(cpus: usize, virtual_time: u64) -> Self {
        let cpus = CpuSet::first(cpus.min(MAX_CPUS));
        let queues: Box<[Queue]> = cpus.iter().map(Queue::new).collect();
        for queue in &queues {
            queue.lock().floor = virtual_time;
        }
        Self {
            queues,
            cpus,
            idle: AtomicCpuSet::new(),
            overloaded: AtomicCpuSet::new(),
            unhurried: AtomicCpuSet::new(),
            front: Front::new(virtual_time),
            rate_limit: AtomicRateLimit::new(RateLimit::default()),
            vcpus: Mutex::new(0),
        }
    }

    /// How long a vCPU runs on that wakes another on its own CPU.
    pub fn rate_limit(&self) -> RateLimit {
        self.rate_limit.load()
    }

    /// Sets [`Self::rate_limit`] from now on.
    pub fn set_rate_limit(&self, limit: RateLimit) {
        self.rate_limit.store(limit);
    }

    /// Makes a vCPU of `domain` known, with what the caller keeps with it; it is blocked until it is woken.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::NoCpu`].
    pub fn add(
        &self,
        domain: &Arc<Domain>,
        vcpu: VcpuId,
        affinity: Affinity,
        attachment: Attachment,
    ) -> Result<Handle, Error> {
        let affinity = self.checked(affinity)?;
        {
            let mut vcpus = self.vcpus.lock();
            for queue in &self.queues {
                let mut queue = queue.lock();
                let room = queue.ready.reserve(*vcpus + 1);
                room.and_then(|()| queue.parked.reserve(*vcpus + 1))
                    .map_err(|_| Error::NoMemory)?;
            }
            *vcpus += 1;
        }
        let start = affinity.hard.iter().next().ok_or(Error::NoCpu)?;
        let home = self.least_loaded(&affinity.preferred(), start);
        let floor = self.queues[home.index()].lock().floor;
        domain.vcpus.fetch_add(1, Ordering::Relaxed);
        let entity = Entity::new(domain, vcpu, attachment, home, affinity, floor);
        Ok(Handle(Arc::new(entity)))
    }

    /// Forgets a vCPU, whatever it does. Returns the CPU to interrupt if it runs: it does until that calls `pick`.
    pub fn remove(&self, vcpu: &Handle) -> Option<CpuId> {
        let entity = &vcpu.0;
        let (was, cpu) = self.at_home(entity, |queue, state| {
            let was = core::mem::replace(&mut state.phase, Phase::Gone);
            match was {
                Phase::Ready => {
                    queue.take(entity);
                    queue.discount(state);
                }
                Phase::Parked => {
                    queue.parked.remove(entity);
                }
                _ => {}
            }
            (was, queue.cpu)
        });
        if was != Phase::Gone {
            *self.vcpus.lock() -= 1;
            entity.domain.vcpus.fetch_sub(1, Ordering::Relaxed);
        }
        (was == Phase::Running).then_some(cpu)
    }

    /// The affinity of a vCPU, of which the hard one has this machine's CPUs only.
    pub fn affinity(&self, vcpu: &Handle) -> Affinity {
        self.at_home(&vcpu.0, |_, state| state.affinity)
    }

    /// Sets the affinity. Returns the CPU to interrupt; a vCPU that runs where it no longer may leaves when that calls
    /// `pick`.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn set_affinity(
        &self,
        vcpu: &Handle,
        affinity: Affinity,
        now: u64,
    ) -> Result<Option<CpuId>, Error> {
        let affinity = self.checked(affinity)?;
        let entity = &vcpu.0;
        let (phase, cpu) = self.at_home(entity, |queue, state| {
            state.affinity = affinity;
            match state.phase {
                Phase::Ready => {
                    queue.settle(now, &self.front);
                    queue.take(entity);
                    queue.send_off(state);
                }
                Phase::Parked if !affinity.hard.contains(queue.cpu) => {
                    queue.settle(now, &self.front);
                    queue.parked.remove(entity);
                    queue.send_off(state);
                }
                _ => {}
            }
            (state.phase, queue.cpu)
        });
        Ok(match phase {
            Phase::Running => Some(cpu),
            Phase::Moving => self.arrive(entity, Arrival::Moved, now),
            _ => None,
        })
    }

    fn checked(&self, mut affinity: Affinity) -> Result<Affinity, Error> {
        affinity.hard = affinity.hard.and(&self.cpus);
        if affinity.hard.is_empty() {
            return Err(Error::NoCpu);
        }
        Ok(affinity)
    }

    /// Does something to a vCPU under the lock of its home. A vCPU that runs must not be charged there, as its state is
    /// locked.
    pub(super) fn at_home<R>(
        &self,
        entity: &Arc<Entity>,
        act: impl FnOnce(&mut RunQueue, &mut State) -> R,
    ) -> R {
        loop {
            let home = entity.home();
            let mut queue = self.queues[home.index()].lock();
            let mut state = entity.state.lock();
            // It may have moved before the lock was had.
            if entity.home() == home {
                let result = act(&mut queue, &mut state);
                self.publish(&queue);
                return result;
            }
        }
    }

    /// Tells other CPUs about a queue that was changed, before its lock is released.
    pub(super) fn publish(&self, queue: &RunQueue) {
        self.queues[queue.cpu.index()].publish(queue);
        self.overloaded.set(queue.cpu, queue.movable > 0);
    }
}
