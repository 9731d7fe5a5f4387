//! The using side: what a domain has mapped of others' grants, by the handles that it gets for that.

use alloc::vec::Vec;

use oxen_abi::grant::Status;

use crate::address::{Gfn, Mfn};
use crate::id::{GrantHandle, GrantRef};

/// A grant that is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping<O> {
    /// Whose it is.
    pub owner: O,
    /// Its number there.
    pub grant: GrantRef,
    /// Where it is mapped.
    pub place: Gfn,
    /// The frame.
    pub frame: Mfn,
    /// Whether for writing.
    pub write: bool,
}

#[derive(Debug)]
enum Slot<O> {
    /// Free, and which one is free after it.
    Free(u32),
    /// Somebody is at work on it.
    Busy,
    Mapped(Mapping<O>),
}

/// Handles in one piece of memory: large enough that it comes in whole frames.
const CHUNK: usize = 1024;
/// No slot.
const NONE: u32 = u32::MAX;

/// One domain's mappings; `O` stands for the domain that granted.
///
/// A handle is worked on by one at a time: [`Maptrack::reserve`] and [`Maptrack::take`] keep others off it until it is set,
/// put back or freed.
#[derive(Debug)]
pub struct Maptrack<O> {
    slots: Vec<Vec<Slot<O>>>,
    first_free: u32,
    limit: u32,
    used: u32,
}

impl<O> Maptrack<O> {
    /// No mappings, and at most `limit`.
    pub const fn new(limit: u32) -> Self {
        Self {
            slots: Vec::new(),
            first_free: NONE,
            limit,
            used: 0,
        }
    }

    /// Handles in use.
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Handles at most.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Bytes that it takes.
    pub const fn memory(&self) -> u64 {
        (self.slots.len() * CHUNK * size_of::<Slot<O>>()) as u64
    }

    /// A handle for a mapping that is to be made.
    ///
    /// # Errors
    /// `NoSpace` at the limit, or without memory.
    pub fn reserve(&mut self) -> Result<GrantHandle, Status> {
        if self.used >= self.limit {
            return Err(Status::NoSpace);
        }
        if self.first_free == NONE {
            self.grow().ok_or(Status::NoSpace)?;
        }
        let handle = GrantHandle(self.first_free);
        let slot = self.slot(handle).ok_or(Status::NoSpace)?;
        let Slot::Free(next) = *slot else {
            return Err(Status::NoSpace);
        };
        *slot = Slot::Busy;
        self.first_free = next;
        self.used += 1;
        Ok(handle)
    }

    /// The mapping of a handle, to be taken away: the handle is put back or freed afterwards.
    ///
    /// # Errors
    /// `BadHandle` if it stands for nothing, or somebody is at work on it.
    pub fn take(&mut self, handle: GrantHandle) -> Result<Mapping<O>, Status> {
        let slot = self.slot(handle).ok_or(Status::BadHandle)?;
        match core::mem::replace(slot, Slot::Busy) {
            Slot::Mapped(mapping) => Ok(mapping),
            other => {
                *slot = other;
                Err(Status::BadHandle)
            }
        }
    }

    /// Makes a handle that was reserved or taken stand for a mapping.
    pub fn set(&mut self, handle: GrantHandle, mapping: Mapping<O>) {
        if let Some(slot) = self.slot(handle) {
            *slot = Slot::Mapped(mapping);
        }
    }

    /// Frees a handle that was reserved or taken.
    pub fn free(&mut self, handle: GrantHandle) {
        let next = self.first_free;
        if let Some(slot) = self.slot(handle) {
            *slot = Slot::Free(next);
            self.first_free = handle.0;
            self.used -= 1;
        }
    }

    /// Takes some mapping, for the end of the domain: like [`Maptrack::take`], from the handle `from` on.
    pub fn take_from(&mut self, from: GrantHandle) -> Option<(GrantHandle, Mapping<O>)> {
        let end = (self.slots.len() * CHUNK) as u32;
        (from.0..end)
            .map(GrantHandle)
            .find_map(|handle| Some((handle, self.take(handle).ok()?)))
    }

    fn slot(&mut self, handle: GrantHandle) -> Option<&mut Slot<O>> {
        self.slots
            .get_mut(handle.index() / CHUNK)?
            .get_mut(handle.index() % CHUNK)
    }

    fn grow(&mut self) -> Option<()> {
        let first = (self.slots.len() * CHUNK) as u32;
        let mut chunk = Vec::new();
        chunk.try_reserve_exact(CHUNK).ok()?;
        self.slots.try_reserve(1).ok()?;
        let last = first + CHUNK as u32 - 1;
        chunk.extend((first..=last).map(|at| Slot::Free(if at == last { NONE } else { at + 1 })));
        self.slots.push(chunk);
        self.first_free = first;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn mapping(grant: u32) -> Mapping<u8> {
        Mapping {
            owner: 3,
            grant: GrantRef(grant),
            place: Gfn(7),
            frame: Mfn(9),
            write: true,
        }
    }

    #[test]
    fn a_slot_is_as_small_as_a_mapping() {
        assert_eq!(size_of::<Slot<Arc<u8>>>(), 32);
    }

    #[test]
    fn handles_end_at_the_limit_and_come_back() {
        let mut track = Maptrack::<u8>::new(1500);
        let handles: Vec<_> = (0..1500)
            .map(|_| track.reserve().expect("below the limit"))
            .collect();
        assert_eq!(track.reserve(), Err(Status::NoSpace));
        let distinct: std::collections::HashSet<_> = handles.iter().collect();
        assert_eq!(distinct.len(), 1500);
        track.free(handles[700]);
        assert_eq!((track.used(), track.reserve()), (1499, Ok(handles[700])));
        assert_eq!(Maptrack::<u8>::new(0).reserve(), Err(Status::NoSpace));
    }

    #[test]
    fn one_at_a_time_works_on_a_handle() {
        let mut track = Maptrack::new(8);
        let handle = track.reserve().expect("there is room");
        assert_eq!(track.take(handle), Err(Status::BadHandle));
        track.set(handle, mapping(5));
        assert_eq!(track.take(handle), Ok(mapping(5)));
        assert_eq!(track.take(handle), Err(Status::BadHandle));
        track.set(handle, mapping(5));
        assert_eq!(track.take_from(GrantHandle(0)), Some((handle, mapping(5))));
        track.free(handle);
        for bad in [handle, GrantHandle(1024), GrantHandle(u32::MAX)] {
            assert_eq!(track.take(bad), Err(Status::BadHandle));
        }
        assert_eq!((track.used(), track.take_from(GrantHandle(0))), (0, None));
    }
}
