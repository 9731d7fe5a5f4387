//! One entry where the granting domain writes it, at any time: it is read once for each decision, and marked as in use by
//! operations that a change in between makes fail.

use crate::sync::atomic::{AtomicU16, Ordering, fence};

use oxen_abi::grant::{Status, entry as layout};

use super::table::{Ask, Purpose};
use crate::address::Gfn;
use crate::guest_page::GuestPage;
use crate::id::{DomainId, GrantRef};

/// A domain that changes its entry again and again is told so after this many tries.
const TRIES: usize = 5;

/// What an entry says first: its kind and whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `GTF_*`.
    pub flags: u16,
    /// Who may use it.
    pub grantee: DomainId,
}

impl Header {
    const fn from_word(word: u32) -> Self {
        Self {
            flags: word as u16,
            grantee: DomainId((word >> 16) as u16),
        }
    }
}

/// What an entry is about, as the guest put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A part of a page.
    Page {
        gfn: Gfn,
        offset: u16,
        length: u16,
        whole: bool,
    },
    /// A grant of another domain to this one.
    Via { domain: DomainId, grant: GrantRef },
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its page, and the offset in that.
    pub page: GuestPage,
    /// Offset in the page.
    pub at: usize,
    /// In version 2, the page and the offset of its status.
    pub status: Option<(GuestPage, usize)>,
}

impl Entry {
    /// Whom it is for, and what.
    pub fn header(&self) -> Header {
        Header::from_word(self.page.u32(self.at).load(Ordering::Acquire))
    }

    /// Marks it as in use for `ask`, if it allows that. `pinned`: it is in use already, for the same domain.
    ///
    /// # Errors
    /// `GeneralError` if it does not allow it, or does not keep still.
    pub fn begin(&self, ask: &Ask, pinned: bool) -> Result<Header, Status> {
        let mark = used(ask.access.write);
        match self.status() {
            None => self.begin_in_flags(ask, pinned, mark),
            Some(status) => self.begin_in_status(status, ask, pinned, mark),
        }
    }

    /// Version 1: the mark sits in the flags themselves, so it holds only for the entry as it was looked at.
    fn begin_in_flags(&self, ask: &Ask, pinned: bool, mark: u16) -> Result<Header, Status> {
        let word = self.page.u32(self.at);
        let mut seen = word.load(Ordering::Acquire);
        for _ in 0..TRIES {
            let header = Header::from_word(seen);
            self.check(header, ask, pinned)?;
            let marked = seen | u32::from(mark);
            match word.compare_exchange(seen, marked, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(header),
                Err(now) => seen = now,
            }
        }
        Err(Status::GeneralError)
    }

    /// Version 2: the mark is elsewhere. A domain that takes its grant back looks at it after it has changed the entry, so we
    /// look at the entry again after we have set it.
    #[cold]
    fn begin_in_status(
        &self,
        status: &AtomicU16,
        ask: &Ask,
        pinned: bool,
        mark: u16,
    ) -> Result<Header, Status> {
        self.check(self.header(), ask, pinned)?;
        status.fetch_or(mark, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let header = self.header();
        if let Err(error) = self.check(header, ask, pinned) {
            let ours = if pinned { layout::WRITING } else { mark };
            status.fetch_and(!ours, Ordering::SeqCst);
            return Err(error);
        }
        Ok(header)
    }

    fn check(&self, header: Header, ask: &Ask, pinned: bool) -> Result<(), Status> {
        let Header { flags, grantee } = header;
        let copying = ask.purpose != Purpose::Map;
        let is_version_2 = self.status.is_some();
        let kind_fits = match flags & layout::TYPE {
            layout::PERMIT_ACCESS => copying || flags & layout::SUB_PAGE == 0,
            layout::TRANSITIVE => copying && is_version_2,
            _ => false,
        };
        let permitted = pinned || kind_fits && grantee == ask.who;
        if permitted && !(ask.access.write && flags & layout::READ_ONLY != 0) {
            Ok(())
        } else {
            Err(Status::GeneralError)
        }
    }

    /// Takes marks away.
    #[inline]
    pub fn end(&self, marks: u16) {
        match self.status() {
            None => self.page.u16(self.at),
            Some(status) => status,
        }
        .fetch_and(!marks, Ordering::Release);
    }

    /// What it is about, given its header.
    #[inline(always)]
    pub fn body(&self, header: Header) -> Body {
        let half = |at: usize| self.page.u16(self.at + at).load(Ordering::Relaxed);
        let word = |at: usize| self.page.u32(self.at + at).load(Ordering::Relaxed);
        let whole = |gfn: u64| Body::Page {
            gfn: Gfn(gfn),
            offset: 0,
            length: crate::address::PAGE_SIZE as u16,
            whole: true,
        };
        if self.status.is_none() {
            return whole(word(layout::V1_FRAME).into());
        }
        if header.flags & layout::TYPE == layout::TRANSITIVE {
            return Body::Via {
                domain: DomainId(half(layout::V2_VIA_DOMAIN)),
                grant: GrantRef(word(layout::V2_VIA_GRANT)),
            };
        }
        let gfn = self.page.u64(self.at + layout::V2_FRAME);
        let gfn = gfn.load(Ordering::Relaxed);
        if header.flags & layout::SUB_PAGE == 0 {
            return whole(gfn);
        }
        Body::Page {
            gfn: Gfn(gfn),
            offset: half(layout::V2_OFFSET),
            length: half(layout::V2_LENGTH),
            whole: false,
        }
    }

    fn status(&self) -> Option<&AtomicU16> {
        self.status.as_ref().map(|(page, at)| page.u16(*at))
    }
}

/// The marks of a use.
pub const fn used(write: bool) -> u16 {
    if write {
        layout::READING | layout::WRITING
    } else {
        layout::READING
    }
}
