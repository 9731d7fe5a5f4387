//! The ends of a copy that the hypervisor does for a domain: own pages, and what others grant. Both are held while the copy
//! goes on, with nothing locked.

use alloc::sync::Arc;

use oxen_abi::grant::Status;
use oxen_core::address::{Gfn, Mfn};
use oxen_core::grant::{Access, Ask, Content, End, Purpose, Range};
use oxen_core::guest_page::GuestPage;
use oxen_core::id::{DomainId, GrantRef};

use super::{Domain, registry};
use crate::memory::guest_page;

/// What one end of a copy names, of the domain that was named before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A page of its own.
    Own(Gfn),
    /// What it grants to the caller.
    Granted(GrantRef),
}

/// One end of an array of copies. It keeps what the last copy needed: arrays mostly name one domain, and go through a page in pieces.
pub struct Side {
    caller: Arc<Domain>,
    access: Access,
    owner: Option<(DomainId, Arc<Domain>)>,
    held: Option<Held>,
    /// Where the grant that is held leads to another, that one.
    far: Option<Far>,
}

/// A page that its owner cannot give away.
struct Held {
    place: Place,
    frame: Mfn,
    page: GuestPage,
    range: Range,
}

/// A grant in use, and whose it is.
type Far = (Arc<Domain>, GrantRef);

impl Side {
    /// The end of copies for `caller` that is read, or written.
    pub const fn new(caller: Arc<Domain>, write: bool) -> Self {
        Self {
            caller,
            access: Access::host(write),
            owner: None,
            held: None,
            far: None,
        }
    }

    /// Names the domain of the next page.
    ///
    /// # Errors
    /// `BadDomain` if there is none, or it ends: that it may have lost the page is not the caller's doing, as a page is that it never had.
    pub fn name(&mut self, number: DomainId) -> Result<(), Status> {
        if !matches!(&self.owner, Some((named, _)) if *named == number) {
            self.release();
            let owner = match number {
                DomainId::SELF => Some(self.caller.clone()),
                number => registry::get(number),
            };
            self.owner = owner.map(|owner| (number, owner));
        }
        match &self.owner {
            Some((_, owner)) if !owner.life.is_dying() => Ok(()),
            _ => Err(Status::BadDomain),
        }
    }

    /// Takes hold of a page of the domain that was named, for a copy that begins at `offset`.
    ///
    /// # Errors
    /// `BadPage` for what is not RAM of whom it should be, and those of [`Domain::use_grant`].
    pub fn hold(&mut self, place: Place, offset: u16) -> Result<End, Status> {
        match &self.held {
            Some(held) if held.place == place => {}
            _ => {
                self.release();
                self.take(place)?;
            }
        }
        let held = self.held.as_ref().ok_or(Status::BadPage)?;
        Ok(End {
            page: held.page,
            range: held.range,
            offset,
        })
    }

    /// Lets go of what is held.
    pub fn release(&mut self) {
        if let (Some((_, owner)), Some(held)) = (&self.owner, &self.held) {
            end(owner, held.place, held.frame, self.access);
            self.held = None;
            self.release_far();
        }
    }

    fn take(&mut self, place: Place) -> Result<(), Status> {
        let (_, owner) = self.owner.as_ref().ok_or(Status::BadDomain)?;
        let (frame, range) = match place {
            Place::Own(gfn) => (owner.hold_page(gfn).ok_or(Status::BadPage)?, Range::PAGE),
            Place::Granted(grant) => {
                let ask = Ask {
                    who: self.caller.id,
                    access: self.access,
                    purpose: Purpose::Copy,
                };
                match owner.use_grant(grant, &ask)? {
                    Content::Page {
                        frame,
                        offset,
                        length,
                        ..
                    } => (frame, Range { offset, length }),
                    Content::Via { domain, grant: far } => {
                        let found = follow(owner.id, domain, far, self.access)
                            .inspect_err(|_| owner.end_grant_use(grant, self.access))?;
                        self.far = Some(found.2);
                        (found.0, found.1)
                    }
                }
            }
        };
        let Some(page) = guest_page(frame) else {
            end(owner, place, frame, self.access);
            self.release_far();
            return Err(Status::BadPage);
        };
        self.held = Some(Held {
            place,
            frame,
            page,
            range,
        });
        Ok(())
    }

    fn release_far(&mut self) {
        if let Some((far, grant)) = self.far.take() {
            far.end_grant_use(grant, self.access);
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.release();
    }
}

/// Lets go of a page of `owner`'s.
fn end(owner: &Domain, place: Place, frame: Mfn, access: Access) {
    match place {
        Place::Own(gfn) => owner.let_go(gfn, frame),
        Place::Granted(grant) => owner.end_grant_use(grant, access),
    }
}

/// Takes the grant into use that another one leads to: of another domain than that, and of a page.
#[cold]
fn follow(
    near: DomainId,
    domain: DomainId,
    grant: GrantRef,
    access: Access,
) -> Result<(Mfn, Range, Far), Status> {
    if domain == near {
        return Err(Status::GeneralError);
    }
    let owner = registry::get(domain).ok_or(Status::GeneralError)?;
    let ask = Ask {
        who: near,
        access,
        purpose: Purpose::CopyVia,
    };
    match owner.use_grant(grant, &ask)? {
        Content::Page {
            frame,
            offset,
            length,
            ..
        } => Ok((frame, Range { offset, length }, (owner, grant))),
        Content::Via { .. } => {
            owner.end_grant_use(grant, access);
            Err(Status::GeneralError)
        }
    }
}
