//! Frames of one domain that another has mapped by its privilege.
//!
//! The mapper remembers whose frame lies where; the owner counts, and a frame that is counted is not given back before the
//! last mapping has gone. Order of locks: a mapper's list, the owner's map, the owner's counts.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use oxen_abi::Errno;
use oxen_core::address::{Gfn, Mfn};
use oxen_core::memory::p2m::Kind;
use spin::Mutex;

use super::Domain;
use crate::memory::frames;

/// A domain's part in foreign mappings.
#[derive(Default)]
pub struct Foreign {
    /// What it has mapped.
    mapped: Mutex<BTreeMap<Gfn, (Arc<Domain>, Mfn)>>,
    /// How often others have mapped its frames.
    counts: Mutex<BTreeMap<Mfn, u32>>,
}

impl Foreign {
    /// Whether any of the frames is mapped by another domain.
    pub fn is_held(&self, first: Mfn, count: u64) -> bool {
        self.counts
            .lock()
            .range(first..first + count)
            .next()
            .is_some()
    }
}

impl Domain {
    /// Maps a page of another domain's RAM at `gfn`, where this domain has no RAM of its own.
    ///
    /// # Errors
    /// `Inval` if there is no such page, or RAM at `gfn`; `NoMem`.
    pub fn map_foreign(&self, gfn: Gfn, owner: &Arc<Domain>, page: Gfn) -> Result<(), Errno> {
        let mut mapped = self.foreign.mapped.lock();
        self.clear_place(&mut mapped, gfn)?;
        let frame = {
            let map = owner.p2m.lock();
            let found = map
                .lookup(page)
                .filter(|mapping| mapping.kind == Kind::Ram && !owner.life.is_dying())
                .ok_or(Errno::Inval)?;
            *owner.foreign.counts.lock().entry(found.frame).or_insert(0) += 1;
            found.frame
        };
        if self.p2m.lock().map(gfn, frame, 1, Kind::Foreign).is_err() {
            owner.drop_foreign(frame);
            return Err(Errno::NoMem);
        }
        mapped.insert(gfn, (owner.clone(), frame));
        Ok(())
    }

    /// Maps a frame of the hypervisor's that belongs to another domain, such as one of its grant table. The domain's
    /// structures last until the mapping has gone.
    ///
    /// # Errors
    /// `Inval` if there is RAM at `gfn`, `NoMem`.
    pub fn map_resource(&self, gfn: Gfn, owner: &Arc<Domain>, frame: Mfn) -> Result<(), Errno> {
        let mut mapped = self.foreign.mapped.lock();
        self.clear_place(&mut mapped, gfn)?;
        self.p2m
            .lock()
            .map(gfn, frame, 1, Kind::Foreign)
            .map_err(|_| Errno::NoMem)?;
        mapped.insert(gfn, (owner.clone(), frame));
        Ok(())
    }

    /// Takes a foreign mapping away.
    ///
    /// # Errors
    /// `NoEnt` if there is none at `gfn`, `NoMem`.
    pub fn unmap_foreign(&self, gfn: Gfn) -> Result<(), Errno> {
        self.unmap_in(&mut self.foreign.mapped.lock(), gfn)
    }

    /// Takes away what is mapped of others at `gfn`; an error if the domain has something of its own there.
    fn clear_place(
        &self,
        mapped: &mut BTreeMap<Gfn, (Arc<Domain>, Mfn)>,
        gfn: Gfn,
    ) -> Result<(), Errno> {
        let here = self.p2m.lock().lookup(gfn);
        match here.map(|mapping| mapping.kind) {
            None => Ok(()),
            Some(Kind::Foreign) => self.unmap_in(mapped, gfn),
            Some(_) => Err(Errno::Inval),
        }
    }

    fn unmap_in(
        &self,
        mapped: &mut BTreeMap<Gfn, (Arc<Domain>, Mfn)>,
        gfn: Gfn,
    ) -> Result<(), Errno> {
        if !mapped.contains_key(&gfn) {
            return Err(Errno::NoEnt);
        }
        self.p2m.lock().unmap(gfn, 1).map_err(|_| Errno::NoMem)?;
        if let Some((owner, frame)) = mapped.remove(&gfn) {
            owner.drop_foreign(frame);
        }
        Ok(())
    }

    /// One mapping of a frame of this domain has gone.
    fn drop_foreign(&self, frame: Mfn) {
        {
            let mut counts = self.foreign.counts.lock();
            let Some(count) = counts.get_mut(&frame) else {
                return;
            };
            *count -= 1;
            if *count > 0 {
                return;
            }
            counts.remove(&frame);
        }
        if self.life.is_dying() {
            self.release_last(frame);
        }
    }

    /// Gives back a frame that destruction had to leave.
    fn release_last(&self, frame: Mfn) {
        let mut own = self.own.lock();
        let mut p2m = self.p2m.lock();
        let place = own
            .iter()
            .flat_map(|range| range.start >> 12..range.end >> 12)
            .map(Gfn)
            .find(|&gfn| {
                p2m.lookup(gfn)
                    .is_some_and(|mapping| mapping.kind == Kind::Ram && mapping.frame == frame)
            });
        if let Some(gfn) = place
            && p2m.unmap(gfn, 1).is_ok()
        {
            own.remove(gfn.0 << 12..(gfn.0 + 1) << 12);
            frames::give_back(frame);
        }
        drop((p2m, own));
        self.finish_if_empty();
    }
}
