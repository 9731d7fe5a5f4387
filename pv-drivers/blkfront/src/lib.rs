//! The front end of a PV disk, for guests without an operating system: it agrees with the back end over xenstore, asks and collects.
//!
//! What a guest has to bring are its pages, their grants, an event channel and a way to xenstore ([`Store`]); this crate touches no
//! machine. The back end is trusted with the data, not with anything else: a response to no request is a [`Fault`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod negotiate;
#[cfg(test)]
mod tests;

use core::fmt;
use core::sync::atomic::AtomicU32;

use oxen_blkif::{
    Abi, Body, Kind, REQUEST_WORDS_64, RESPONSE_WORDS_64, Reason, Request, Segment, Status,
};
use oxen_ring::{FrontRing, TooSmall};

pub use negotiate::{Disk, KIND, announce, connected, keep_grants, offered};
pub use oxen_frontend::{Ends, Refused, Store};

/// What the back end got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its ring index.
    Ring(oxen_ring::Fault),
    /// It answered what was not asked, or with no status.
    Response,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(fault) => fault.fmt(out),
            Self::Response => out.write_str("a response to no request"),
        }
    }
}

impl core::error::Error for Fault {}

/// Why something was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// The ring is full: collect first.
    Full,
    /// These sectors cannot be.
    Wrong(Reason),
}

/// Requests that can be open at once, at most.
const MOST: usize = 32;

/// A connected disk with a ring of one page.
#[derive(Debug)]
pub struct Front<M> {
    ring: FrontRing<M, REQUEST_WORDS_64, RESPONSE_WORDS_64>,
    /// What is open, by the requests' ids.
    open: [Option<Kind>; MOST],
}

impl<M: AsRef<[AtomicU32]>> Front<M> {
    /// Over memory that is granted to the back end and that it does not know yet.
    ///
    /// # Errors
    /// It is less than a page.
    pub fn new(memory: M) -> Result<Self, TooSmall> {
        Ok(Self {
            ring: FrontRing::new(memory)?,
            open: [None; MOST],
        })
    }

    /// Asks for sectors `first` to `last` of a granted page to go to or come from the disk, from `sector` on. Returns the request's id.
    ///
    /// # Errors
    /// There is no room, or these are no sectors of a page.
    pub fn ask(
        &mut self,
        kind: Kind,
        sector: u64,
        page: u32,
        (first, last): (u8, u8),
    ) -> Result<usize, Unasked> {
        let segment = Segment::new(page, first, last).map_err(Unasked::Wrong)?;
        let segments = [segment].into_iter().collect();
        self.place(kind, sector, Body::Direct { kind, segments })
    }

    /// Asks for all that was answered to be on the medium.
    ///
    /// # Errors
    /// There is no room.
    pub fn flush(&mut self) -> Result<usize, Unasked> {
        let kind = Kind::Flush;
        let segments = arrayvec::ArrayVec::new();
        self.place(kind, 0, Body::Direct { kind, segments })
    }

    fn place(&mut self, kind: Kind, sector: u64, body: Body) -> Result<usize, Unasked> {
        let id = self.open.iter().position(Option::is_none);
        let id = id.ok_or(Unasked::Full)?;
        let request = Request {
            id: id as u64,
            sector,
            body,
        };
        let entry = Abi::X86_64.entry(&request);
        self.ring.ask(&entry).map_err(|_| Unasked::Full)?;
        self.open[id] = Some(kind);
        Ok(id)
    }

    /// Shows what was asked to the back end. True: send it an event.
    #[must_use = "the back end may wait for an event"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// An answer, if there is one: the request's id, and how it ended.
    ///
    /// # Errors
    /// The back end breaks the protocol.
    pub fn collect(&mut self) -> Result<Option<(usize, Status)>, Fault> {
        let Some(entry) = self.ring.take().map_err(Fault::Ring)? else {
            return Ok(None);
        };
        let response = Abi::X86_64.parse_answer(&entry).ok_or(Fault::Response)?;
        let id = usize::try_from(response.id).map_err(|_| Fault::Response)?;
        let open = self.open.get_mut(id).and_then(Option::take);
        match open {
            Some(kind) if kind.number() == response.operation => Ok(Some((id, response.status))),
            _ => Err(Fault::Response),
        }
    }

    /// The ring itself, for tests that break its rules.
    pub fn ring(&mut self) -> &mut FrontRing<M, REQUEST_WORDS_64, RESPONSE_WORDS_64> {
        &mut self.ring
    }
}
