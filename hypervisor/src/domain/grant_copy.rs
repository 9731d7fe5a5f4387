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

/// What one end of a copy names.
#[derive(Clone)]
pub enum Place {
    /// A page of the caller's.
    Own(Gfn),
    /// A grant to the caller.
    Granted(Arc<Domain>, GrantRef),
}

impl Place {
    /// Whether both name the same.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(one), Self::Own(other)) => one == other,
            (Self::Granted(one, first), Self::Granted(other, second)) => {
                Arc::ptr_eq(one, other) && first == second
            }
            _ => false,
        }
    }
}

/// A page that is held.
pub struct Side {
    page: GuestPage,
    range: Range,
    _held: Held,
}

/// What keeps it.
enum Held {
    Own {
        _page: HeldPage,
    },
    Granted {
        _use: Use,
        /// Where it leads to another grant, that one.
        _far: Option<Use>,
    },
}

struct HeldPage {
    owner: Arc<Domain>,
    gfn: Gfn,
    frame: Mfn,
}

impl Drop for HeldPage {
    fn drop(&mut self) {
        self.owner.let_go(self.gfn, self.frame);
    }
}

struct Use {
    owner: Arc<Domain>,
    grant: GrantRef,
    access: Access,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.owner.end_grant_use(self.grant, self.access);
    }
}

impl Side {
    /// Takes hold of a page for `caller`, to read it or to write it.
    ///
    /// # Errors
    /// `BadPage` for what is not RAM of whom it should be, and those of [`Domain::use_grant`].
    pub fn new(caller: &Arc<Domain>, place: &Place, write: bool) -> Result<Self, Status> {
        match place {
            Place::Own(gfn) => Self::own(caller, *gfn),
            Place::Granted(owner, grant) => Self::granted(owner, *grant, caller.id, write),
        }
    }

    fn own(caller: &Arc<Domain>, gfn: Gfn) -> Result<Self, Status> {
        let frame = caller.hold_page(gfn).ok_or(Status::BadPage)?;
        let page = HeldPage {
            owner: caller.clone(),
            gfn,
            frame,
        };
        Ok(Self {
            page: guest_page(frame).ok_or(Status::BadPage)?,
            range: Range::PAGE,
            _held: Held::Own { _page: page },
        })
    }

    fn granted(
        owner: &Arc<Domain>,
        grant: GrantRef,
        who: DomainId,
        write: bool,
    ) -> Result<Self, Status> {
        let (taken, mut content) = take(owner, grant, who, write, Purpose::Copy)?;
        let mut far_taken = None;
        if let Content::Via { domain, grant } = content {
            if domain == owner.id {
                return Err(Status::GeneralError);
            }
            let far = registry::get(domain).ok_or(Status::GeneralError)?;
            let (also, far_content) = take(&far, grant, owner.id, write, Purpose::CopyVia)?;
            far_taken = Some(also);
            content = far_content;
        }
        let Content::Page {
            frame,
            offset,
            length,
            ..
        } = content
        else {
            return Err(Status::GeneralError);
        };
        Ok(Self {
            page: guest_page(frame).ok_or(Status::BadPage)?,
            range: Range { offset, length },
            _held: Held::Granted {
                _use: taken,
                _far: far_taken,
            },
        })
    }

    /// The end of a copy that begins at `offset`.
    pub const fn end(&self, offset: u16) -> End {
        End {
            page: self.page,
            range: self.range,
            offset,
        }
    }
}

fn take(
    owner: &Arc<Domain>,
    grant: GrantRef,
    who: DomainId,
    write: bool,
    purpose: Purpose,
) -> Result<(Use, Content), Status> {
    let access = Access::host(write);
    let ask = Ask {
        who,
        access,
        purpose,
    };
    let content = owner.use_grant(grant, &ask)?;
    let taken = Use {
        owner: owner.clone(),
        grant,
        access,
    };
    Ok((taken, content))
}
