//! What each CPU asks about itself: what to run next, and what becomes of the vCPU that it has run.

use alloc::sync::Arc;

use arrayvec::ArrayVec;

use super::balance::Look;
use super::domain::Draw;
use super::entity::{Entity, Phase};
use super::queue::{Current, RunQueue};
use super::virtual_time::{before, later};
use super::wake::Arrival;
use super::{CpuSet, Decision, Handle, RETRY, SLICE, Scheduler, VCPUS_LOOKED_AT};
use crate::id::CpuId;

/// vCPUs that go to idle CPUs in one call, and those CPUs.
type Surplus = ArrayVec<(Arc<Entity>, CpuId), 4>;

/// vCPUs that return from parking, or are tried, in one call.
const TRIES: usize = 16;

impl Scheduler {
    /// Decides what `cpu` does from now on; only that CPU calls this for itself.
    pub fn pick(&self, cpu: CpuId, now: u64) -> Decision {
        self.idle.take(cpu);
        self.unhurried.take(cpu);
        let mut guard = self.queues[cpu.index()].lock();
        let queue = &mut *guard;
        queue.settle(now, &self.front);
        unpark(queue, now);
        self.pull(queue, now);
        let leaver = self.review(queue, now);
        let again = if queue.current.is_none() {
            self.fill(queue, now)
        } else {
            None
        };
        self.publish(queue);
        let surplus = self.surplus(queue);
        let again = if surplus.is_full() { Some(now) } else { again };
        let until = self.until(queue).min(again.unwrap_or(u64::MAX));
        queue.until = until;
        let mut interrupt = self.helpers(queue);
        let run = queue
            .current
            .as_ref()
            .map(|current| Handle(current.entity.clone()));
        drop(guard);
        let leaver = leaver.and_then(|leaver| self.arrive(&leaver, Arrival::Moved, now));
        let moved = surplus
            .iter()
            .filter_map(|(entity, target)| self.arrive_at(entity, *target, Arrival::Moved, now));
        moved.chain(leaver).for_each(|cpu| interrupt.insert(cpu));
        Decision {
            run,
            until: (until != u64::MAX).then_some(until),
            interrupt,
        }
    }

    /// Charges the current vCPU of `cpu` up to now; `pick`, `block` and `yield_now` do so by themselves.
    pub fn account(&self, cpu: CpuId, now: u64) {
        self.queues[cpu.index()].lock().settle(now, &self.front);
    }

    /// The current vCPU of `cpu` waits for something. False if it was woken since it was picked: then it goes on, and must
    /// look at what was posted. The caller calls `pick` next.
    #[must_use]
    pub fn block(&self, cpu: CpuId, now: u64) -> bool {
        let mut queue = self.queues[cpu.index()].lock();
        queue.settle(now, &self.front);
        let Some(current) = queue.current.take() else {
            return true;
        };
        let mut state = current.entity.state.lock();
        if state.wake_pending && state.phase != Phase::Gone {
            state.wake_pending = false;
            drop(state);
            queue.current = Some(current);
            return false;
        }
        release(&current);
        queue.discount(&mut state);
        if state.phase != Phase::Gone {
            state.phase = Phase::Blocked;
        }
        drop(state);
        self.publish(&queue);
        true
    }

    /// Whether anything may come of [`Self::yield_now`]: somebody waits for `cpu`, or waits elsewhere and could come. Takes no
    /// lock; one who comes to wait at this moment may be missed.
    pub fn is_waited_for(&self, cpu: CpuId) -> bool {
        self.queues[cpu.index()].is_waited_for() || !self.overloaded.is_empty()
    }

    /// The current vCPU of `cpu` lets others that wait there go first. The caller calls `pick` next.
    pub fn yield_now(&self, cpu: CpuId, now: u64) {
        let mut queue = self.queues[cpu.index()].lock();
        let queue = &mut *queue;
        queue.settle(now, &self.front);
        if let (Some(current), Some(first)) = (&mut queue.current, queue.ready.first()) {
            let mut state = current.entity.state.lock();
            // It gives up what it is owed against the first of them, or it would be picked again.
            state.clock.now = later(state.clock.now, first.key);
            current.slice_end = now;
        }
    }

    /// Decides about the current vCPU: it stays, goes back among the ready ones, is parked, or is returned as it must leave
    /// this CPU.
    fn review(&self, queue: &mut RunQueue, now: u64) -> Option<Arc<Entity>> {
        let mut current = queue.current.take()?;
        let entity = current.entity.clone();
        let mut state = entity.state.lock();
        state.wake_pending = false;
        if state.phase == Phase::Gone {
            release(&current);
            queue.discount(&mut state);
            return None;
        }
        let affinity = &state.affinity;
        let turn_over = now >= current.slice_end;
        let leaves = !affinity.hard.contains(queue.cpu)
            || turn_over && self.belongs_elsewhere(queue.cpu, affinity);
        if leaves {
            release(&current);
            queue.send_off(&mut state);
            return Some(entity.clone());
        }
        match fund(&entity, current.grant, now) {
            Ok(grant) => current.grant = grant,
            Err(until) => {
                queue.park(&entity, &mut state, until);
                return None;
            }
        }
        queue.count(&entity, &mut state);
        let at = state.clock.now;
        let preempted = now >= current.spared_until
            && queue.preemption_at().is_some_and(|lead| !before(at, lead));
        drop(state);
        if turn_over {
            current.slice_end = now.saturating_add(SLICE);
        }
        let first = queue.ready.first().map(|first| first.key);
        if (turn_over || preempted) && first.is_some_and(|first| !before(at, first)) {
            release(&current);
            queue.admit(&entity, &mut entity.state.lock(), false);
        } else {
            queue.current = Some(current);
        }
        None
    }

    /// Finds a current vCPU if there is one to be had; returns when to try again if that is not certain.
    fn fill(&self, queue: &mut RunQueue, now: u64) -> Option<u64> {
        for _ in 0..TRIES {
            let Some(entity) = queue.pop() else {
                self.idle.insert(queue.cpu);
                match self.steal(queue) {
                    Look::Found => {
                        self.idle.take(queue.cpu);
                        continue;
                    }
                    Look::Nothing => return None,
                    Look::Unsure => return Some(now.saturating_add(RETRY)),
                }
            };
            let mut state = entity.state.lock();
            match fund(&entity, None, now) {
                Ok(grant) => {
                    queue.run(&entity, &mut state, grant, now);
                    return None;
                }
                Err(until) => queue.park(&entity, &mut state, until),
            }
        }
        Some(now)
    }

    /// When something is due here; notes whether the current vCPU may run without end.
    fn until(&self, queue: &RunQueue) -> u64 {
        let mut contended = true;
        if queue.current.is_some() && queue.ready.is_empty() {
            contended = !self.overloaded.is_empty();
            if !contended {
                self.unhurried.insert(queue.cpu);
                // Someone may have had to wait before this was known.
                contended = !self.overloaded.is_empty() && self.unhurried.take(queue.cpu);
            }
        }
        let returns = queue.parked.first().map_or(u64::MAX, |first| first.key);
        queue.turn_ends(contended).min(returns)
    }

    /// Takes out vCPUs that wait here for CPUs that are idle, which it claims. Each goes to the very CPU that was claimed for
    /// it: one left to choose might take another, and leave this one for a CPU that may not run it.
    fn surplus(&self, queue: &mut RunQueue) -> Surplus {
        let mut surplus = Surplus::new();
        while queue.movable > 0 && !surplus.is_full() && !self.idle.is_empty() {
            let waiting = queue.ready.entries().iter().take(VCPUS_LOOKED_AT);
            let found = waiting.filter(|entry| entry.movable).find_map(|entry| {
                let affinity = entry.entity.state.lock().affinity;
                let claimed = self.claim_idle(&affinity.preferred(), queue.cpu);
                let claimed = claimed.or_else(|| self.claim_idle(&affinity.hard, queue.cpu));
                claimed.map(|cpu| (entry.entity.clone(), cpu))
            });
            let Some((entity, cpu)) = found else {
                break;
            };
            queue.take(&entity);
            queue.send_off(&mut entity.state.lock());
            surplus.push((entity, cpu));
        }
        if !surplus.is_empty() {
            self.publish(queue);
        }
        surplus
    }

    /// CPUs that run without end, to be told that there is somebody to share with.
    fn helpers(&self, queue: &RunQueue) -> CpuSet {
        let mut helpers = CpuSet::EMPTY;
        if queue.movable == 0 {
            return helpers;
        }
        let unhurried = self.unhurried.load();
        if unhurried.is_empty() {
            return helpers;
        }
        let waiting = queue.ready.entries().iter().take(VCPUS_LOOKED_AT);
        for entry in waiting.filter(|entry| entry.movable) {
            let affinity = entry.entity.state.lock().affinity;
            let candidates = unhurried.and(&affinity.preferred());
            if let Some(cpu) = candidates.iter().find(|&cpu| self.unhurried.take(cpu)) {
                helpers.insert(cpu);
            }
        }
        helpers
    }

    /// Whether a vCPU runs outside its soft affinity while a CPU in it has nothing to do.
    fn belongs_elsewhere(&self, cpu: CpuId, affinity: &super::Affinity) -> bool {
        !affinity.prefers(cpu) && !self.idle.load().and(&affinity.preferred()).is_empty()
    }
}

/// Brings back those parked vCPUs whose time has come.
fn unpark(queue: &mut RunQueue, now: u64) {
    for _ in 0..TRIES {
        if queue.parked.first().is_none_or(|first| first.key > now) {
            return;
        }
        let Some(entry) = queue.parked.pop() else {
            return;
        };
        let entity = &entry.entity;
        let mut state = entity.state.lock();
        let offset = state.clock.now.wrapping_sub(queue.floor);
        queue.place(&mut state, offset, entity.domain.weight());
        queue.admit(entity, &mut state, false);
    }
}

/// Running time for a vCPU that has `grant` left; the error says when to ask again.
fn fund(entity: &Entity, grant: Option<u64>, now: u64) -> Result<Option<u64>, u64> {
    if grant.is_some_and(|left| left > 0) {
        return Ok(grant);
    }
    match entity.domain.draw(entity.id, now) {
        Draw::Unlimited => Ok(None),
        Draw::Granted(nanos) => Ok(Some(nanos)),
        Draw::Empty(until) => Err(until),
    }
}

/// Returns what is left of a grant.
fn release(current: &Current) {
    if let Some(left) = current.grant {
        current.entity.domain.give_back(left);
    }
}
