//! The ring on which a guest receives.
//!
//! A request is a page to be filled. A packet takes as many as it needs; one that is to be cut into segments takes one more, whose page stays
//! unused: its slot says how. Responses take the slots of their requests, in order: front ends rely on it.

use bitflags::bitflags;

use crate::extra::Gso;
use crate::{PAGE, halves, joined};

/// Words of a request and of a response.
pub const SLOT: usize = 2;

bitflags! {
    /// `NETRXF_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// The content was checked, or cannot have changed.
        const DATA_VALIDATED = 1;
        /// The checksum is not complete.
        const CHECKSUM_BLANK = 2;
        /// The packet goes on in the next slot with data.
        const MORE_DATA = 4;
        /// An extra slot follows.
        const EXTRA_INFO = 8;
    }
}

/// `struct netif_rx_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the response.
    pub id: u16,
    /// The page.
    pub reference: u32,
}

impl Request {
    /// As it is on the ring.
    pub const fn encode(self) -> [u32; SLOT] {
        [joined(self.id, 0), self.reference]
    }

    /// From the ring.
    pub const fn decode(words: [u32; SLOT]) -> Self {
        Self {
            id: halves(words[0]).0,
            reference: words[1],
        }
    }
}

/// `struct netif_rx_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub id: u16,
    /// First byte in the page.
    pub offset: u16,
    /// Flags.
    pub flags: Flags,
    /// Bytes, or less than 0: a failure.
    pub status: i16,
}

impl Response {
    /// As it is on the ring.
    pub const fn encode(self) -> [u32; SLOT] {
        [
            joined(self.id, self.offset),
            joined(self.flags.bits(), self.status.cast_unsigned()),
        ]
    }

    /// From the ring.
    pub const fn decode(words: [u32; SLOT]) -> Self {
        let (id, offset) = halves(words[0]);
        let (flags, status) = halves(words[1]);
        Self {
            id,
            offset,
            flags: Flags::from_bits_truncate(flags),
            status: status.cast_signed(),
        }
    }
}

/// Slots that a packet of so many bytes takes.
pub const fn slots_for(size: usize, gso: Option<Gso>) -> usize {
    size.div_ceil(PAGE) + gso.is_some() as usize
}

/// What one slot of a packet is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Bytes of the packet from `start` on, put at the beginning of the page.
    Data {
        /// First byte in the packet.
        start: usize,
        /// Bytes.
        length: u16,
        /// Flags of the response.
        flags: Flags,
    },
    /// How the packet is to be cut.
    Extra(Gso),
}

/// What the slots of a packet are filled with, in order. `checksum` is what is known of its checksum.
#[inline]
pub fn layout(size: usize, checksum: Flags, gso: Option<Gso>) -> impl Iterator<Item = Filled> {
    let data = (0..size.div_ceil(PAGE)).map(move |nth| {
        let start = nth * PAGE;
        let length = (size - start).min(PAGE);
        let mut flags = Flags::empty();
        flags.set(Flags::MORE_DATA, start + length < size);
        if nth == 0 {
            flags |= checksum;
            flags.set(Flags::EXTRA_INFO, gso.is_some());
        }
        Filled::Data {
            start,
            length: length as u16,
            flags,
        }
    });
    let extra = gso.map(Filled::Extra);
    let rest = data.clone().skip(1);
    data.take(1).chain(extra).chain(rest)
}
