//! vCPUs that wait on one CPU and go to another, which asks for them.

use alloc::sync::Arc;

use super::entity::Entity;
use super::queue::RunQueue;
use super::virtual_time::{before, scaled};
use super::{CPUS_LOOKED_AT, LOOK_PERIOD, PULL, Scheduler, VCPUS_LOOKED_AT};

/// What came of a look for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is some in the queue now.
    Found,
    /// There is none anywhere.
    Nothing,
    /// Not all could be looked at.
    Unsure,
}

/// What can be had from a queue.
struct Offer {
    entity: Arc<Entity>,
    woken: bool,
    key: u64,
    preferred: bool,
}

impl Scheduler {
    /// Brings a vCPU here that lags behind all that are here, if it is time to look for one.
    pub(super) fn pull(&self, queue: &mut RunQueue, now: u64) {
        if now < queue.look_at || self.overloaded.is_empty() {
            return;
        }
        let others = self.overloaded.load();
        let Some(best) = queue.least() else {
            return;
        };
        queue.look_at = now.saturating_add(LOOK_PERIOD);
        let best = best.wrapping_add(queue.base);
        for cpu in others.iter_after(queue.asked).take(CPUS_LOOKED_AT) {
            let other = &self.queues[cpu.index()];
            let worthwhile = before(other.pull_at(), best) && queue.load() <= other.load();
            if cpu == queue.cpu || !worthwhile {
                continue;
            }
            // One that is busy with its queue is left alone: there will be other turns.
            let Some(mut from) = other.try_lock() else {
                continue;
            };
            queue.asked = cpu;
            let Some(offer) = offer(&from, queue, 0).filter(|offer| offer.preferred) else {
                continue;
            };
            let reserve = scaled(PULL, offer.entity.domain.weight());
            let at = offer.key.wrapping_add(from.base).wrapping_add(reserve);
            if before(at, best) {
                self.migrate(&mut from, queue, &offer);
                return;
            }
        }
    }

    /// Brings a vCPU here that waits anywhere, as there is nothing to run.
    pub(super) fn steal(&self, queue: &mut RunQueue) -> Look {
        let mut look = Look::Nothing;
        queue.looks = queue.looks.wrapping_add(1);
        for cpu in self.overloaded.load().iter_after(queue.cpu) {
            if cpu == queue.cpu {
                continue;
            }
            let Some(mut from) = self.queues[cpu.index()].try_lock() else {
                look = Look::Unsure;
                continue;
            };
            let length = from.ready.len();
            let start = if length > VCPUS_LOOKED_AT {
                look = Look::Unsure;
                queue.looks.wrapping_mul(VCPUS_LOOKED_AT) % length
            } else {
                0
            };
            if let Some(offer) = offer(&from, queue, start) {
                queue.catch_up_if_empty(&self.front);
                self.migrate(&mut from, queue, &offer);
                return Look::Found;
            }
        }
        look
    }

    fn migrate(&self, from: &mut RunQueue, to: &mut RunQueue, offer: &Offer) {
        let entity = &offer.entity;
        from.take(entity);
        let mut state = entity.state.lock();
        from.discount(&mut state);
        let here = state.clock.now.wrapping_sub(state.credit);
        let common = here.wrapping_add(from.base);
        let offset = common.wrapping_sub(to.common_floor());
        to.carry(&mut state, offset, entity.domain.weight());
        to.admit(entity, &mut state, offer.woken);
        drop(state);
        self.publish(from);
    }
}

/// The vCPU of `from` that `to` may run and that is furthest behind, one that should run there before all others.
fn offer(from: &RunQueue, to: &RunQueue, start: usize) -> Option<Offer> {
    let (early, late) = from.ready.entries().split_at(start);
    let mut best: Option<Offer> = None;
    for entry in late.iter().chain(early).take(VCPUS_LOOKED_AT) {
        if !entry.movable {
            continue;
        }
        let affinity = entry.entity.state.lock().affinity;
        if !affinity.hard.contains(to.cpu) {
            continue;
        }
        let preferred = affinity.preferred().contains(to.cpu);
        let better = best.as_ref().is_none_or(|best| {
            (preferred && !best.preferred)
                || (preferred == best.preferred && before(entry.key, best.key))
        });
        if better {
            best = Some(Offer {
                entity: entry.entity.clone(),
                woken: entry.woken,
                key: entry.key,
                preferred,
            });
        }
    }
    best
}
