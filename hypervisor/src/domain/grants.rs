//! A domain's grants, on this machine: frames of its table, and pages of others in its guest-physical map.
//!
//! Order of locks: a grant table, then the granting domain's guest-physical map. No two tables are locked at a time, and a
//! list of mappings is locked alone.

use alloc::sync::Arc;

use arrayvec::ArrayVec;
use oxen_abi::Errno;
use oxen_abi::grant::Status;
use oxen_core::address::{Gfn, GuestPhys, Mfn};
use oxen_core::grant::{
    Access, Ask, Content, GrantTable, LetGo, Limits, Mapping, Maptrack, Purpose,
};
use oxen_core::id::{GrantHandle, GrantRef};
use oxen_core::memory::p2m::Kind;
use spin::{Mutex, MutexGuard};

use super::{Domain, p2m};
use crate::memory::HostPages;

/// A domain's part in grants.
pub struct Grants {
    table: Mutex<GrantTable<HostPages>>,
    mapped: Mutex<Maptrack<Arc<Domain>>>,
}

/// Mappings that are taken away with one flush.
pub const UNMAPS_A_FLUSH: usize = 32;

/// A grant that has gone from the map, but maybe not yet from what CPUs remember of it.
pub struct Unmapped {
    handle: GrantHandle,
    mapping: Mapping<Arc<Domain>>,
}

/// Such grants, up to the next flush.
pub type UnmappedList = ArrayVec<Unmapped, UNMAPS_A_FLUSH>;

impl Grants {
    /// A table of one frame, where the limits allow that, as Xen makes it. `None` without memory.
    pub fn new(limits: Limits) -> Option<Self> {
        let mut table = GrantTable::new(limits);
        table.grow(limits.frames.min(1), zeroed_frame).ok()?;
        Some(Self {
            table: Mutex::new(table),
            mapped: Mutex::new(Maptrack::new(limits.handles)),
        })
    }

    /// The domain's entries.
    pub fn table(&self) -> MutexGuard<'_, GrantTable<HostPages>> {
        self.table.lock()
    }

    /// Grants that it has mapped, at most so many, and bytes of hypervisor memory that all this takes.
    pub fn usage(&self) -> (u32, u32, u64) {
        let (used, limit, bytes) = {
            let mapped = self.mapped.lock();
            (mapped.used(), mapped.limit(), mapped.memory())
        };
        (used, limit, bytes + self.table.lock().memory())
    }
}

/// A frame for a table.
pub fn zeroed_frame() -> Option<HostPages> {
    HostPages::new_zeroed(1)
}

impl Domain {
    /// A frame of the table by its index, which may be one of status words; the table grows as far as that takes.
    ///
    /// # Errors
    /// `Inval` beyond the table's limit, `NoMem`.
    pub fn grant_frame(&self, index: u64) -> Result<Mfn, Errno> {
        let mut table = self.grants.table();
        table.frame_at(index, zeroed_frame).map(HostPages::first)
    }

    /// Maps a frame of the table into the domain itself, in place of where it was.
    ///
    /// # Errors
    /// Those of [`Domain::grant_frame`], and `Inval` if there is something at `gfn` that cannot be given up.
    pub fn map_grant_frame(&self, gfn: Gfn, index: u64) -> Result<(), Errno> {
        let frame = self.grant_frame(index)?;
        self.move_shared(gfn, frame, |gfn| self.grants.table().place(index, gfn))?;
        Ok(())
    }

    /// Maps a page that `owner` grants to this domain at a place where nothing is; the handle stands for the mapping.
    ///
    /// # Errors
    /// `NoSpace` at the limit of handles; those of [`GrantTable::pin`], with `BadPage` for what is not the owner's own RAM;
    /// `GeneralError` if something is at the place already, or nothing can be. `refused`: the caller wants more than a place.
    pub fn map_grant(
        &self,
        owner: &Arc<Domain>,
        grant: GrantRef,
        place: Gfn,
        write: bool,
        refused: bool,
    ) -> Result<(GrantHandle, Mfn), Status> {
        let handle = self.grants.mapped.lock().reserve()?;
        let result = self.map_granted(owner, grant, place, write, refused);
        let mut mapped = self.grants.mapped.lock();
        match result {
            Ok(mapping) => {
                let frame = mapping.frame;
                mapped.set(handle, mapping);
                Ok((handle, frame))
            }
            Err(status) => {
                mapped.free(handle);
                Err(status)
            }
        }
    }

    fn map_granted(
        &self,
        owner: &Arc<Domain>,
        grant: GrantRef,
        place: Gfn,
        write: bool,
        refused: bool,
    ) -> Result<Mapping<Arc<Domain>>, Status> {
        let access = Access::host(write);
        let ask = Ask {
            who: self.id,
            access,
            purpose: Purpose::Map,
        };
        let content = owner.use_grant(grant, &ask)?;
        if let Content::Page { frame, .. } = content
            && !refused
            && self.place_granted(place, frame, write)
        {
            return Ok(Mapping {
                owner: owner.clone(),
                grant,
                place,
                frame,
                write,
            });
        }
        owner.end_grant_use(grant, access);
        Err(Status::GeneralError)
    }

    fn place_granted(&self, place: Gfn, frame: Mfn, write: bool) -> bool {
        let mut p2m = self.p2m.lock();
        p2m.lookup(place).is_none() && p2m.map(place, frame, 1, kind(write)).is_ok()
    }

    /// Takes a mapped grant out of the map. With the address zero nothing happens, as the ABI has it. The mapping ends for
    /// good with [`Domain::finish_unmaps`].
    ///
    /// # Errors
    /// `BadHandle` for one that stands for nothing, `GeneralError` if its mapping is not at that address.
    pub fn unmap_grant(
        &self,
        handle: GrantHandle,
        address: GuestPhys,
    ) -> Result<Option<Unmapped>, Status> {
        let mapping = self.grants.mapped.lock().take(handle)?;
        let named = address.frame() == mapping.place;
        if address.0 != 0 && named && self.displace(&mapping) {
            return Ok(Some(Unmapped { handle, mapping }));
        }
        self.grants.mapped.lock().set(handle, mapping);
        if address.0 == 0 {
            Ok(None)
        } else {
            Err(Status::GeneralError)
        }
    }

    fn displace(&self, mapping: &Mapping<Arc<Domain>>) -> bool {
        let mut p2m = self.p2m.lock();
        let is_there = p2m
            .lookup(mapping.place)
            .is_some_and(|there| there.kind == kind(mapping.write) && there.frame == mapping.frame);
        is_there && p2m.unmap_unflushed(mapping.place, 1).is_ok()
    }

    /// Ends mappings that were taken out of the map: when no CPU can use them any more, their owners get to know.
    pub fn finish_unmaps(&self, list: &mut UnmappedList) {
        if list.is_empty() {
            return;
        }
        let tables = self.p2m.lock().take_unlinked();
        p2m::flush_and_release(tables);
        for Unmapped { handle, mapping } in list.drain(..) {
            let access = Access::host(mapping.write);
            mapping.owner.end_grant_use(mapping.grant, access);
            self.grants.mapped.lock().free(handle);
        }
    }

    /// Takes this domain's grant into use for another, or for itself.
    ///
    /// # Errors
    /// Those of [`GrantTable::pin`], with `BadPage` for what is not the domain's own RAM.
    pub fn use_grant(&self, grant: GrantRef, ask: &Ask) -> Result<Content, Status> {
        let hold = |gfn| self.hold_page(gfn).ok_or(Status::BadPage);
        self.grants.table().pin(grant, ask, hold)
    }

    /// Ends a use.
    pub fn end_grant_use(&self, grant: GrantRef, access: Access) {
        let gone = self.grants.table().unpin(grant, access);
        if let Some(LetGo { gfn, frame }) = gone {
            self.let_go(gfn, frame);
        }
    }

    /// A step of taking away all that the domain has mapped, at its end.
    ///
    /// # Errors
    /// `Restart` as long as there is more.
    pub fn drop_mapped_grants(&self) -> Result<(), Errno> {
        const ROUNDS: usize = 32;
        let mut list = UnmappedList::new();
        let mut next = GrantHandle(0);
        for _ in 0..ROUNDS {
            {
                let mut mapped = self.grants.mapped.lock();
                while !list.is_full()
                    && let Some((handle, mapping)) = mapped.take_from(next)
                {
                    next = GrantHandle(handle.0 + 1);
                    list.push(Unmapped { handle, mapping });
                }
            }
            if list.is_empty() {
                return Ok(());
            }
            for unmapped in &list {
                self.displace(&unmapped.mapping);
            }
            self.finish_unmaps(&mut list);
        }
        Err(Errno::Restart)
    }
}

const fn kind(write: bool) -> Kind {
    if write {
        Kind::Grant
    } else {
        Kind::GrantReadOnly
    }
}
