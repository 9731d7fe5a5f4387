//! vCPUs that become ready: where they go and who is to know.

use alloc::sync::Arc;

use super::entity::{Affinity, Entity, Phase};
use super::queue::RunQueue;
use super::{CPUS_LOOKED_AT, CpuSet, Handle, Scheduler};
use crate::id::CpuId;

/// How a vCPU comes to wait for a CPU.
#[derive(Clone, Copy)]
pub enum Arrival {
    /// It was ready elsewhere.
    Moved,
    /// It wakes, where `by` says on account of the vCPU that runs on that CPU.
    Woken { by: Option<CpuId> },
}

impl Scheduler {
    /// Makes a blocked vCPU ready; one that runs is kept from blocking before it has looked again.
    ///
    /// Whoever posts something to a vCPU calls this behind it. Returns the CPU to interrupt, which may be the caller's
    /// own: the one where the vCPU is to run, or where it runs and is to look at what was posted.
    pub fn wake(&self, vcpu: &Handle, now: u64) -> Option<CpuId> {
        self.wake_by(vcpu, None, now)
    }

    /// As [`Self::wake`]; `by` is the calling CPU where the vCPU that runs on it has asked for this. That one may go on for
    /// [`Self::rate_limit`] before the other takes its place: it may have more for it to do.
    pub fn wake_by(&self, vcpu: &Handle, by: Option<CpuId>, now: u64) -> Option<CpuId> {
        let entity = &vcpu.0;
        let (phase, cpu) = self.at_home(entity, |queue, state| {
            match state.phase {
                Phase::Running => state.wake_pending = true,
                Phase::Blocked => {
                    // What it lags counts from where the others are now.
                    queue.settle(now, &self.front);
                    // The most frequent case, and what `arrive` would do: its CPU has nothing else to do.
                    if state.affinity.prefers(queue.cpu) && self.idle.take(queue.cpu) {
                        queue.wake(entity, state, &self.front);
                    } else {
                        queue.send_off(state);
                    }
                }
                _ => return (Phase::Gone, queue.cpu),
            }
            (state.phase, queue.cpu)
        });
        match phase {
            Phase::Running | Phase::Ready => Some(cpu),
            Phase::Moving => self.arrive(entity, Arrival::Woken { by }, now),
            _ => None,
        }
    }

    /// Puts a moving vCPU among the ready ones of a CPU; returns the CPU to interrupt.
    pub(super) fn arrive(&self, entity: &Arc<Entity>, arrival: Arrival, now: u64) -> Option<CpuId> {
        let affinity = entity.state.lock().affinity;
        let target = self.place_for(&affinity, entity.home());
        self.arrive_at(entity, target, arrival, now)
    }

    /// The same for a CPU already chosen, and claimed if it was idle.
    pub(super) fn arrive_at(
        &self,
        entity: &Arc<Entity>,
        mut target: CpuId,
        arrival: Arrival,
        now: u64,
    ) -> Option<CpuId> {
        loop {
            let mut queue = self.queues[target.index()].lock();
            queue.settle(now, &self.front);
            let mut state = entity.state.lock();
            if state.phase != Phase::Moving {
                // Removed in between; the target may have been claimed from the idle ones.
                return Some(target);
            }
            let affinity = state.affinity;
            if !affinity.hard.contains(target) {
                drop(state);
                drop(queue);
                self.unclaim(target);
                target = self.place_for(&affinity, entity.home());
                continue;
            }
            queue.catch_up_if_empty(&self.front);
            let offset = state.clock.now;
            queue.place(&mut state, offset, entity.domain.weight());
            if matches!(arrival, Arrival::Woken { by: Some(waker) } if waker == target) {
                queue.spare_current(now, self.rate_limit().nanos());
            }
            let woken = matches!(arrival, Arrival::Woken { .. });
            queue.admit(entity, &mut state, woken);
            drop(state);
            self.publish(&queue);
            return self.notified(&queue, &affinity);
        }
    }

    /// The CPU that should know of a vCPU that has just become ready in `queue`.
    fn notified(&self, queue: &RunQueue, affinity: &Affinity) -> Option<CpuId> {
        if queue.current.is_none() {
            return Some(queue.cpu);
        }
        // One that has become idle since the place was chosen takes it.
        if let Some(idle) = self.claim_idle(&affinity.hard, queue.cpu) {
            return Some(idle);
        }
        if queue.turn_ends(true) < queue.until {
            return Some(queue.cpu);
        }
        let helpers = self.unhurried.load().and(&affinity.preferred());
        helpers.iter().find(|&cpu| self.unhurried.take(cpu))
    }

    /// The last CPU if idle, else an idle one, else the least loaded; an idle one outside soft affinity goes before a
    /// busy one in it. An idle one is claimed.
    fn place_for(&self, affinity: &Affinity, last: CpuId) -> CpuId {
        let preferred = affinity.preferred();
        self.claim_idle(&preferred, last)
            .or_else(|| self.claim_idle(&affinity.hard, last))
            .unwrap_or_else(|| self.least_loaded(&preferred, last))
    }

    /// Takes an idle CPU of the set, `last` before any other: it must be interrupted.
    pub(super) fn claim_idle(&self, set: &CpuSet, last: CpuId) -> Option<CpuId> {
        if self.idle.is_empty() {
            return None;
        }
        let idle = self.idle.load().and(set);
        if idle.is_empty() {
            return None;
        }
        if idle.contains(last) && self.idle.take(last) {
            return Some(last);
        }
        idle.iter_after(last).find(|&cpu| self.idle.take(cpu))
    }

    /// Undoes a claim, if it was one and the CPU has not become busy otherwise.
    fn unclaim(&self, cpu: CpuId) {
        let queue = self.queues[cpu.index()].lock();
        if queue.current.is_none() && queue.ready.is_empty() {
            self.idle.insert(cpu);
        }
    }

    /// The CPU of the set with the least load of those looked at, `last` where it is among the least.
    pub(super) fn least_loaded(&self, set: &CpuSet, last: CpuId) -> CpuId {
        let first = set.contains(last).then_some(last);
        let mut but_last = *set;
        but_last.remove(last);
        if but_last.is_empty() {
            return last;
        }
        let others = set.iter_after(last).take(CPUS_LOOKED_AT);
        first
            .into_iter()
            .chain(others)
            .min_by_key(|cpu| self.queues[cpu.index()].load())
            .unwrap_or(last)
    }
}
