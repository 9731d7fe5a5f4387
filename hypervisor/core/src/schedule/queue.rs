//! The vCPUs of one CPU: the current one, those ready to run and those out of budget.

use alloc::sync::Arc;

use super::entity::{Entity, Phase, State};
use super::heap::{Entry, Heap};
use super::virtual_time::{Front, before, earlier, later, scaled, unscaled};
use super::{AHEAD, BOOST, CARRIED, CATCH_UP, PREEMPTION, PULL, SLICE};
use crate::id::CpuId;

/// Ready vCPUs among which the one to offer to other CPUs is looked for.
const OFFERED: usize = 8;
/// Running time, in nanoseconds, by which one that catches up stays behind the floor: enough to go before others, too
/// little for those that wake to count.
const LEAD: u64 = PREEMPTION / 2;
/// Virtual time that no vCPU is ahead.
const NEVER: u64 = 1 << 62;

/// The vCPU that has the CPU.
pub struct Current {
    pub entity: Arc<Entity>,
    /// Up to when its running time has been charged.
    pub since: u64,
    /// Until when one that wakes does not take its place: see [`RunQueue::spare_current`].
    pub spared_until: u64,
    /// When others that are due get their turn.
    pub slice_end: u64,
    /// What is left of the running time that a capped domain granted.
    pub grant: Option<u64>,
}

/// What a queue's lock covers.
pub struct RunQueue {
    pub cpu: CpuId,
    pub current: Option<Current>,
    /// By virtual time.
    pub ready: Heap,
    /// By the time of their return.
    pub parked: Heap,
    /// What the last `pick` said, or the end of time.
    pub until: u64,
    /// The least virtual time of those here, on this CPU's scale; it only advances.
    pub floor: u64,
    /// The least one now: one that has woken may be behind the floor.
    least: Option<u64>,
    /// When other CPUs are to be looked at for one that lags.
    pub look_at: u64,
    /// What this CPU's scale lacks to the common one.
    pub base: u64,
    /// The CPU that was last asked for work.
    pub asked: CpuId,
    /// Counts looks for work, so that long queues are looked at from different places.
    pub looks: usize,
    /// Of the ready ones, those that may run elsewhere.
    pub movable: usize,
    load: u64,
    caught_up: u64,
}

impl RunQueue {
    pub fn new(cpu: CpuId) -> Self {
        Self {
            cpu,
            current: None,
            ready: Heap::default(),
            parked: Heap::default(),
            until: u64::MAX,
            floor: 0,
            least: None,
            look_at: 0,
            base: 0,
            asked: cpu,
            looks: 0,
            movable: 0,
            load: 0,
            caught_up: 0,
        }
    }

    /// Weights of all that run or are ready.
    pub fn load(&self) -> u64 {
        self.load
    }

    /// The floor on the common scale.
    pub fn common_floor(&self) -> u64 {
        self.floor.wrapping_add(self.base)
    }

    /// Charges the current vCPU up to now and advances this CPU's virtual time.
    pub fn settle(&mut self, now: u64, front: &Front) {
        self.least = self.ready.first().map(|entry| entry.key);
        if let Some(current) = &mut self.current {
            let ran = now.saturating_sub(current.since);
            current.since = current.since.max(now);
            if let Some(grant) = &mut current.grant {
                current.entity.domain.overdraw(ran.saturating_sub(*grant));
                *grant = grant.saturating_sub(ran);
            }
            let weight = current.entity.domain.weight();
            let mut state = current.entity.state.lock();
            state.clock.advance(ran, weight);
            state.spend_credit(self.floor.wrapping_sub(scaled(LEAD, weight)));
            let at = state.clock.now;
            self.least = Some(self.least.map_or(at, |least| earlier(least, at)));
        }
        let Some(least) = self.least else {
            self.caught_up = now;
            return;
        };
        self.floor = later(self.floor, least);
        let here = self.common_floor();
        let lag = front.advance(here).wrapping_sub(here);
        if lag == 0 {
            self.caught_up = self.caught_up.max(now);
            return;
        }
        // A CPU that lags and that nobody relieves, as its vCPUs are bound to it or too heavy, is slowly forgiven.
        let elapsed = now.saturating_sub(self.caught_up).min(CATCH_UP);
        self.caught_up = self.caught_up.max(now);
        let forgiven = u128::from(lag) * u128::from(elapsed) / u128::from(CATCH_UP);
        self.base = self.base.wrapping_add(forgiven as u64);
    }

    /// Makes one ready that wakes and whose CPU this is already.
    pub fn wake(&mut self, entity: &Arc<Entity>, state: &mut State, front: &Front) {
        self.catch_up_if_empty(front);
        let offset = state.clock.now.wrapping_sub(self.floor);
        self.place(state, offset, entity.domain.weight());
        self.admit(entity, state, true);
    }

    /// An empty queue is as far as the furthest: nothing waited here.
    pub fn catch_up_if_empty(&mut self, front: &Front) {
        if self.current.is_none() && self.ready.is_empty() {
            let lag = front.get().wrapping_sub(self.common_floor());
            if before(0, lag) {
                self.base = self.base.wrapping_add(lag);
            }
        }
    }

    /// Sets the virtual time of one that wakes, or comes without haste, and is `offset` from the floor: as it is, but at most
    /// [`BOOST`] behind the floor and a bounded time before it.
    pub fn place(&self, state: &mut State, offset: u64, weight: u16) {
        let low = -(scaled(BOOST, weight) as i64);
        let high = scaled(AHEAD, weight) as i64;
        let offset = (offset as i64).clamp(low, high);
        state.clock.now = self.floor.wrapping_add(offset as u64);
        state.credit = 0;
    }

    /// Sets the virtual time of one that was ready on another CPU, where it was `offset` from this floor. What it lags it
    /// keeps, within bounds, though not so that those that wake must wait for it to catch up.
    pub fn carry(&self, state: &mut State, offset: u64, weight: u16) {
        let lead = -(scaled(LEAD, weight) as i64);
        let lag = lead.saturating_sub(offset as i64);
        if lag <= 0 {
            return self.place(state, offset, weight);
        }
        state.clock.now = self.floor.wrapping_add(lead as u64);
        state.credit = (lag as u64).min(scaled(CARRIED, weight));
    }

    /// Puts a vCPU among the ready ones, with the virtual time it has.
    pub fn admit(&mut self, entity: &Arc<Entity>, state: &mut State, woken: bool) {
        self.count(entity, state);
        state.phase = Phase::Ready;
        entity.set_home(self.cpu);
        let movable = state.affinity.hard.len() > 1;
        self.movable += usize::from(movable);
        self.ready.push(Entry {
            key: state.clock.now,
            woken,
            movable,
            entity: entity.clone(),
        });
    }

    /// Takes out the first of the ready ones; it still counts for the load.
    pub fn pop(&mut self) -> Option<Arc<Entity>> {
        let entry = self.ready.pop()?;
        self.movable -= usize::from(entry.movable);
        Some(entry.entity)
    }

    /// Takes out one of the ready ones; it still counts for the load.
    pub fn take(&mut self, entity: &Arc<Entity>) {
        if let Some(entry) = self.ready.remove(entity) {
            self.movable -= usize::from(entry.movable);
        }
    }

    /// The earliest virtual time of those that run or are ready, as of the last charge.
    pub fn least(&self) -> Option<u64> {
        self.least
    }

    /// Lets the load know of a vCPU's weight.
    pub fn count(&mut self, entity: &Entity, state: &mut State) {
        self.discount(state);
        state.counted = entity.domain.weight().into();
        self.load += state.counted;
    }

    /// Takes a vCPU's weight from the load.
    pub fn discount(&mut self, state: &mut State) {
        self.load -= core::mem::take(&mut state.counted);
    }

    /// Takes a vCPU that is neither ready nor current away: its virtual time becomes relative to the floor.
    pub fn send_off(&mut self, state: &mut State) {
        self.discount(state);
        state.phase = Phase::Moving;
        state.clock.now = state.clock.now.wrapping_sub(self.floor);
    }

    /// Parks a vCPU that is neither ready nor current.
    pub fn park(&mut self, entity: &Arc<Entity>, state: &mut State, until: u64) {
        self.discount(state);
        state.phase = Phase::Parked;
        self.parked.push(Entry {
            key: until,
            woken: false,
            movable: false,
            entity: entity.clone(),
        });
    }

    /// The current vCPU's virtual time from which on one that has woken takes its place.
    pub fn preemption_at(&self) -> Option<u64> {
        let first = self.ready.first().filter(|first| first.woken)?;
        let lead = scaled(PREEMPTION, first.entity.domain.weight());
        Some(first.key.wrapping_add(lead))
    }

    /// When the current vCPU must be looked at again, if others wait here or elsewhere.
    pub fn turn_ends(&self, contended: bool) -> u64 {
        let Some(current) = &self.current else {
            return u64::MAX;
        };
        let mut until = u64::MAX;
        if contended || !self.ready.is_empty() {
            until = current.slice_end;
        }
        if let Some(at) = self.preemption_at() {
            let left = at.wrapping_sub(current.entity.state.lock().clock.now);
            let left = if before(left, 0) { 0 } else { left };
            let after = unscaled(left, current.entity.domain.weight());
            let at = current.since.saturating_add(after);
            until = until.min(at.max(current.spared_until));
        }
        if let Some(grant) = current.grant {
            until = until.min(current.since.saturating_add(grant));
        }
        until
    }

    /// The current vCPU has woken another, and runs on for `nanos` before it may lose its place to one that wakes; not if it already
    /// may.
    pub fn spare_current(&mut self, now: u64, nanos: u64) {
        if self.preemption_at().is_some() {
            return;
        }
        if let Some(current) = &mut self.current {
            current.spared_until = now.saturating_add(nanos);
            // One that has run alone has long been at the end of its turn.
            current.slice_end = current.slice_end.max(current.spared_until);
        }
    }

    /// Makes the CPU's own a vCPU that is in no queue.
    pub fn run(&mut self, entity: &Arc<Entity>, state: &mut State, grant: Option<u64>, now: u64) {
        self.count(entity, state);
        state.phase = Phase::Running;
        state.wake_pending = false;
        entity.set_home(self.cpu);
        self.current = Some(Current {
            entity: entity.clone(),
            since: now,
            spared_until: now,
            slice_end: now.saturating_add(SLICE),
            grant,
        });
    }

    /// Common virtual time from which on others should pull.
    pub fn pull_at(&self) -> u64 {
        self.ready
            .entries()
            .iter()
            .take(OFFERED)
            .filter(|entry| entry.movable)
            .map(|entry| {
                let reserve = scaled(PULL, entry.entity.domain.weight());
                entry.key.wrapping_add(self.base).wrapping_add(reserve)
            })
            .reduce(earlier)
            .unwrap_or_else(|| self.common_floor().wrapping_add(NEVER))
    }
}
