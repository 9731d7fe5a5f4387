//! The front end of a PV network card, for guests without an operating system: it agrees with the back end over xenstore, sends frames
//! and receives them.
//!
//! * [`negotiate`]: what both ends tell each other before the first frame, for one queue or several;
//! * [`Sender`]: frames of one or more parts of granted pages, to be completed or cut by the back end where that was offered;
//! * [`Receiver`]: pages that are given to be filled, and the frames that come in them.
//!
//! What a guest has to bring are its pages, their grants, event channels and a way to xenstore ([`Store`]); this crate touches no
//! machine. The back end is trusted with the frames, not with anything else: a response to no request, or one that leaves its page, is a
//! [`Fault`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod negotiate;
mod receive;
mod send;

#[cfg(test)]
mod tests;

use core::fmt;
use core::sync::atomic::AtomicU32;

use oxen_ring::{FrontRing, TooSmall};

pub use negotiate::{Channels, KIND, Mac, Offer, Queue, Wants, announce, connected, offered};
pub use oxen_frontend::{Ends, Refused, Store};
pub use receive::{Frame, Receiver};
pub use send::{FrameId, Offloads, Sender, Unsent};

/// Slots of a ring of one page, which either ring is.
const SLOTS: usize = 256;

/// A slot's place in the ring, and in tables that are as large.
const fn place(slot: u16) -> usize {
    slot as usize % SLOTS
}

/// An empty ring of one page.
fn ring_of_a_page<M: AsRef<[AtomicU32]>, const REQ: usize, const RSP: usize>(
    memory: M,
) -> Result<FrontRing<M, REQ, RSP>, TooSmall> {
    let ring = FrontRing::new(memory)?;
    if ring.slots() as usize == SLOTS {
        Ok(ring)
    } else {
        Err(TooSmall)
    }
}

/// Bytes of a frame, all in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Grant of the page that they are in.
    pub grant: u32,
    /// First byte; the part ends within the page.
    pub offset: u16,
    /// Bytes.
    pub length: u16,
}

/// What the back end got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its ring index.
    Ring(oxen_ring::Fault),
    /// It answered what was not asked.
    Response,
    /// It says that it has filled more than a page.
    Page,
    /// A frame of more parts than there can be.
    Parts,
    /// An extra slot says nothing.
    Extra(oxen_netif::extra::Nonsense),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(fault) => fault.fmt(out),
            Self::Response => out.write_str("a response to no request"),
            Self::Page => out.write_str("a part that leaves its page"),
            Self::Parts => out.write_str("a frame of too many parts"),
            Self::Extra(nonsense) => nonsense.fmt(out),
        }
    }
}

impl core::error::Error for Fault {}
