//! Frames of one domain that another has mapped by its privilege.
//!
//! The mapper remembers whose frame lies where, and the frame is held (`held.rs`) for as long. Order of locks: a mapper's
//! list, then a map, the mapper's or the owner's; no two maps at a time.

use alloc::sync::Arc;

use oxen_abi::Errno;
use oxen_core::address::{Gfn, Mfn};
use oxen_core::memory::foreign::ForeignList;
use oxen_core::memory::p2m::Kind;
use spin::Mutex;

use super::Domain;

/// What a domain has mapped of others.
#[derive(Default)]
pub struct Foreign {
    mapped: Mutex<ForeignList<Mapped>>,
}

/// A frame of another domain, let go with this, which must not happen with a map locked.
struct Mapped {
    owner: Arc<Domain>,
    /// The page and its frame, which are held; `None` for a frame of the hypervisor's, which stays as long as the domain's
    /// structures do.
    held: Option<(Gfn, Mfn)>,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some((page, frame)) = self.held {
            self.owner.let_go(page, frame);
        }
    }
}

impl Domain {
    /// Maps a page of another domain's RAM at `gfn`, where this domain has nothing of its own, in place of what it has there
    /// of others.
    ///
    /// # Errors
    /// `Inval` if there is no such page, or something of its own at `gfn`; `NoMem`.
    pub fn map_foreign(&self, gfn: Gfn, owner: &Arc<Domain>, page: Gfn) -> Result<(), Errno> {
        let frame = owner.hold_page(page).ok_or(Errno::Inval)?;
        let (owner, held) = (owner.clone(), Some((page, frame)));
        self.place_foreign(gfn, frame, Mapped { owner, held })
    }

    /// Maps a frame of the hypervisor's that belongs to another domain, such as one of its grant table. The domain's
    /// structures last until the mapping has gone.
    ///
    /// # Errors
    /// `Inval` if there is something of its own at `gfn`, `NoMem`.
    pub fn map_resource(&self, gfn: Gfn, owner: &Arc<Domain>, frame: Mfn) -> Result<(), Errno> {
        let (owner, held) = (owner.clone(), None);
        self.place_foreign(gfn, frame, Mapped { owner, held })
    }

    /// Takes a foreign mapping away.
    ///
    /// # Errors
    /// `NoEnt` if there is none at `gfn`, `NoMem`.
    pub fn unmap_foreign(&self, gfn: Gfn) -> Result<(), Errno> {
        let gone = {
            let mut mapped = self.foreign.mapped.lock();
            if !mapped.contains(gfn) {
                return Err(Errno::NoEnt);
            }
            self.p2m.lock().unmap(gfn, 1)?;
            mapped.remove(gfn)
        };
        drop(gone);
        Ok(())
    }

    fn place_foreign(&self, gfn: Gfn, frame: Mfn, new: Mapped) -> Result<(), Errno> {
        let gone = {
            let mut mapped = self.foreign.mapped.lock();
            mapped.reserve()?;
            // One lock for the look and the change: another vCPU must not put RAM there in between.
            let mut p2m = self.p2m.lock();
            match p2m.lookup(gfn).map(|here| here.kind) {
                None | Some(Kind::Foreign) => p2m.replace(gfn, frame, Kind::Foreign)?,
                Some(_) => return Err(Errno::Inval),
            }
            mapped.insert(gfn, new)
        };
        drop(gone);
        Ok(())
    }
}
