//! Frames of one domain that another has mapped by its privilege.
//!
//! The mapper remembers whose frame lies where, and the frame is held (`held.rs`) for as long. Order of locks: a mapper's
//! list, the owner's map.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use oxen_abi::Errno;
use oxen_core::address::{Gfn, Mfn};
use oxen_core::memory::p2m::Kind;
use spin::Mutex;

use super::Domain;

/// What a domain has mapped of others.
#[derive(Default)]
pub struct Foreign {
    mapped: Mutex<BTreeMap<Gfn, Mapped>>,
}

/// A frame of another domain.
struct Mapped {
    owner: Arc<Domain>,
    /// The page and its frame, which are held; `None` for a frame of the hypervisor's, which stays as long as the domain's
    /// structures do.
    held: Option<(Gfn, Mfn)>,
}

impl Domain {
    /// Maps a page of another domain's RAM at `gfn`, where this domain has no RAM of its own.
    ///
    /// # Errors
    /// `Inval` if there is no such page, or RAM at `gfn`; `NoMem`.
    pub fn map_foreign(&self, gfn: Gfn, owner: &Arc<Domain>, page: Gfn) -> Result<(), Errno> {
        let mut mapped = self.foreign.mapped.lock();
        self.clear_place(&mut mapped, gfn)?;
        let frame = owner.hold_page(page).ok_or(Errno::Inval)?;
        if self.p2m.lock().map(gfn, frame, 1, Kind::Foreign).is_err() {
            owner.let_go(page, frame);
            return Err(Errno::NoMem);
        }
        let (owner, held) = (owner.clone(), Some((page, frame)));
        mapped.insert(gfn, Mapped { owner, held });
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
        let (owner, held) = (owner.clone(), None);
        mapped.insert(gfn, Mapped { owner, held });
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
    fn clear_place(&self, mapped: &mut BTreeMap<Gfn, Mapped>, gfn: Gfn) -> Result<(), Errno> {
        let here = self.p2m.lock().lookup(gfn);
        match here.map(|mapping| mapping.kind) {
            None => Ok(()),
            Some(Kind::Foreign) => self.unmap_in(mapped, gfn),
            Some(_) => Err(Errno::Inval),
        }
    }

    fn unmap_in(&self, mapped: &mut BTreeMap<Gfn, Mapped>, gfn: Gfn) -> Result<(), Errno> {
        if !mapped.contains_key(&gfn) {
            return Err(Errno::NoEnt);
        }
        self.p2m.lock().unmap(gfn, 1).map_err(|_| Errno::NoMem)?;
        if let Some(gone) = mapped.remove(&gfn)
            && let Some((page, frame)) = gone.held
        {
            gone.owner.let_go(page, frame);
        }
        Ok(())
    }
}
