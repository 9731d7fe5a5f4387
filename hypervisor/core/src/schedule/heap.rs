//! Priority queues of vCPUs from which any member can be taken: binary heaps whose members know their place.
//!
//! Pushing never allocates: room for every vCPU of the machine is made when the vCPU is added.

use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::entity::Entity;
use super::virtual_time::before;

/// A member of a heap.
pub struct Entry {
    /// What it is ordered by; compared as moments are, across the wrap.
    pub key: u64,
    /// It has woken and not run since: it may preempt.
    pub woken: bool,
    /// Its affinity has more than one CPU.
    pub movable: bool,
    /// The vCPU.
    pub entity: Arc<Entity>,
}

/// A heap; a vCPU is in one at most.
#[derive(Default)]
pub struct Heap(Vec<Entry>);

impl Heap {
    /// Makes room for `members` in all.
    pub fn reserve(&mut self, members: usize) -> Result<(), TryReserveError> {
        self.0.try_reserve(members.saturating_sub(self.0.len()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The earliest.
    pub fn first(&self) -> Option<&Entry> {
        self.0.first()
    }

    /// Members in no particular order, though the early ones tend to come first.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub fn push(&mut self, entry: Entry) {
        debug_assert!(self.0.len() < self.0.capacity(), "room is made in advance");
        self.0.push(entry);
        self.rise(self.0.len() - 1);
    }

    pub fn pop(&mut self) -> Option<Entry> {
        self.take_at(0)
    }

    /// Takes the given vCPU out, if it is in.
    pub fn remove(&mut self, entity: &Arc<Entity>) -> Option<Entry> {
        let place = entity.place.load(Ordering::Relaxed) as usize;
        let here = self
            .0
            .get(place)
            .is_some_and(|entry| Arc::ptr_eq(&entry.entity, entity));
        if here { self.take_at(place) } else { None }
    }

    fn take_at(&mut self, place: usize) -> Option<Entry> {
        if place >= self.0.len() {
            return None;
        }
        let taken = self.0.swap_remove(place);
        if place < self.0.len() {
            // What fills the gap came from the end: it may belong on either side of its new parent.
            let place = self.rise(place);
            self.sink(place);
        }
        Some(taken)
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if !before(self.0[place].key, self.0[parent].key) {
                break;
            }
            self.0.swap(place, parent);
            self.note(place);
            place = parent;
        }
        self.note(place);
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.0.len() && before(self.0[child].key, self.0[least].key) {
                    least = child;
                }
            }
            if least == place {
                break;
            }
            self.0.swap(place, least);
            self.note(place);
            place = least;
        }
        self.note(place);
    }

    fn note(&self, place: usize) {
        self.0[place]
            .entity
            .place
            .store(place as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CpuId, DomainId, VcpuId};
    use crate::schedule::{Affinity, Domain, Params};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn members_come_out_in_order_and_any_can_be_taken(
            start in any::<u64>(),
            keys in proptest::collection::vec(0u64..50, 1..40),
            taken in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
        ) {
            let domain = Domain::new(DomainId(1), Params::default());
            let mut heap = Heap::default();
            heap.reserve(keys.len()).expect("the host has memory");
            let mut model = Vec::new();
            for (id, key) in keys.iter().enumerate() {
                let key = start.wrapping_add(*key);
                let entity = Arc::new(Entity::new(&domain, VcpuId(id as u16), Arc::new(()), CpuId(0), Affinity::default(), 0));
                heap.push(Entry { key, woken: false, movable: true, entity: entity.clone() });
                model.push((key, entity));
            }
            for index in taken {
                if model.is_empty() { break; }
                let (key, entity) = model.swap_remove(index.index(model.len()));
                prop_assert_eq!(heap.remove(&entity).map(|entry| entry.key), Some(key));
                prop_assert!(heap.remove(&entity).is_none());
            }
            model.sort_by_key(|(key, _)| key.wrapping_sub(start));
            for (key, _) in model {
                prop_assert_eq!(heap.pop().map(|entry| entry.key), Some(key));
            }
            prop_assert!(heap.is_empty());
        }
    }
}
