//! Pages of a domain that others use: mapped by privilege or by grant, or being copied. They stay the domain's for as long,
//! even when it is destroyed.

use oxen_core::address::{Gfn, Mfn};
use oxen_core::memory::p2m::Kind;

use super::Domain;
use crate::memory::{frames, holds};

impl Domain {
    /// The frame behind a page of the domain's own RAM, which is not given back before as many calls of [`Domain::let_go`].
    /// `None` if there is no such page, or the domain is being destroyed.
    pub fn hold_page(&self, page: Gfn) -> Option<Mfn> {
        let map = self.p2m.lock();
        let found = map
            .lookup(page)
            .filter(|mapping| mapping.kind == Kind::Ram && !self.life.is_dying())?;
        holds::hold(found.frame);
        Some(found.frame)
    }

    /// Ends one use of a page. The last one gives back what destruction had to leave.
    pub fn let_go(&self, page: Gfn, frame: Mfn) {
        if holds::let_go(frame) && self.life.is_dying() {
            self.release_left(page, frame);
        }
    }

    /// Gives a page back whose last use has ended; destruction itself may have been quicker.
    fn release_left(&self, page: Gfn, frame: Mfn) {
        {
            let mut own = self.own.lock();
            let mut p2m = self.p2m.lock();
            let still_there = p2m
                .lookup(page)
                .is_some_and(|mapping| mapping.kind == Kind::Ram && mapping.frame == frame);
            if !still_there || holds::is_held(frame) || p2m.unmap(page, 1).is_err() {
                return;
            }
            frames::give_back(frame);
            // The frame itself is memory for that. If another was quicker, the next step of destruction takes it out.
            if own.reserve().is_ok() {
                own.remove(page.bytes(1));
            }
        }
        self.finish_if_empty();
    }
}
