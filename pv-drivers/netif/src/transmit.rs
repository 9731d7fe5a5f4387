//! The ring on which a guest sends.
//!
//! A packet is a request, then the extra slots that it announces, then a request for each further part. The first request has the size of
//! the whole packet, the others that of their part.

use core::fmt;

use arrayvec::ArrayVec;
use bitflags::bitflags;

use crate::extra::{Extra, Gso, KINDS, Next, Nonsense};
use crate::{ETHERNET_HEADER, PAGE, SLOTS_MIN, Status, halves, joined};

/// Words of a request.
pub const REQUEST: usize = 3;
/// Words of a response.
pub const RESPONSE: usize = 1;
/// Slots with data after which a peer is broken rather than its packet too long: no kernel ever had packets of so many parts.
pub const SLOTS_MAX: usize = SLOTS_MIN + 2;

bitflags! {
    /// `NETTXF_*`. Others mean nothing.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// The checksum is not complete: its field has the sum of the pseudo header only.
        const CHECKSUM_BLANK = 1;
        /// Whoever made the packet knows that its content is what it was.
        const DATA_VALIDATED = 2;
        /// Another part follows.
        const MORE_DATA = 4;
        /// An extra slot follows.
        const EXTRA_INFO = 8;
    }
}

/// `struct netif_tx_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Page with the bytes.
    pub reference: u32,
    /// First byte in it.
    pub offset: u16,
    /// Flags.
    pub flags: Flags,
    /// Comes back in the response.
    pub id: u16,
    /// Bytes: of the packet in its first request, else of the part.
    pub size: u16,
}

impl Request {
    /// As it is on the ring.
    pub const fn encode(self) -> [u32; REQUEST] {
        [
            self.reference,
            joined(self.offset, self.flags.bits()),
            joined(self.id, self.size),
        ]
    }

    /// From the ring.
    pub const fn decode(words: [u32; REQUEST]) -> Self {
        let (offset, flags) = halves(words[1]);
        let (id, size) = halves(words[2]);
        Self {
            reference: words[0],
            offset,
            flags: Flags::from_bits_truncate(flags),
            id,
            size,
        }
    }
}

/// `struct netif_tx_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub id: u16,
    /// How it ended.
    pub status: Status,
}

impl Response {
    /// As it is on the ring.
    pub const fn encode(self) -> [u32; RESPONSE] {
        [joined(self.id, self.status.number().cast_unsigned())]
    }

    /// From the ring.
    pub const fn decode(words: [u32; RESPONSE]) -> Self {
        let (id, status) = halves(words[0]);
        Self {
            id,
            status: Status::of_number(status.cast_signed()),
        }
    }
}

/// A part of a packet: bytes of one granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The page.
    pub reference: u32,
    /// First byte; the part ends within the page.
    pub offset: u16,
    /// Bytes.
    pub length: u16,
    /// The request's.
    id: u16,
}

/// Why a packet cannot be sent. It is answered as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is shorter than an Ethernet header.
    Short,
    /// Its parts are longer than it is.
    Parts,
    /// It has more parts than are taken.
    Slots,
    /// It shall be cut into segments, and has a complete checksum.
    Checksum,
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => out.write_str("shorter than an Ethernet header"),
            Self::Parts => out.write_str("with parts that are longer than the whole"),
            Self::Slots => write!(out, "of more than {SLOTS_MIN} parts"),
            Self::Checksum => out.write_str("to be cut, with a complete checksum"),
        }
    }
}

/// What no working peer does. Its device is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A part leaves its page.
    Page {
        /// First byte.
        offset: u16,
        /// Bytes.
        length: u16,
    },
    /// A packet of more parts than any kernel has.
    Slots,
    /// An extra slot says nothing.
    Extra(Nonsense),
    /// More extra slots than there are kinds.
    Extras,
    /// It changes a list of addresses that it was not offered.
    Multicast,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page { offset, length } => write!(
                out,
                "a packet's part of {length} bytes at byte {offset} leaves its page"
            ),
            Self::Slots => write!(out, "a packet of more than {SLOTS_MAX} parts"),
            Self::Extra(nonsense) => nonsense.fmt(out),
            Self::Extras => write!(out, "a packet with more than {KINDS} extra slots"),
            Self::Multicast => out.write_str("a list of multicast addresses was not offered"),
        }
    }
}

impl core::error::Error for Broken {}

/// What is known of a packet beside its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of all parts.
    pub size: u16,
    /// Whether its checksum is to be completed.
    pub checksum_blank: bool,
    /// How it is to be cut.
    pub gso: Option<Gso>,
    /// Why it cannot be sent.
    pub flaw: Option<Flaw>,
    extras: usize,
}

impl Head {
    /// The responses to all slots of a packet with these parts, in their order.
    #[inline]
    pub fn responses(self, parts: &[Part], status: Status) -> impl Iterator<Item = Response> + '_ {
        let null = Response {
            id: 0,
            status: Status::Null,
        };
        let answer = move |part: &Part| Response {
            id: part.id,
            status,
        };
        let first = parts.iter().take(1).map(answer);
        let rest = parts.iter().skip(1).map(answer);
        first
            .chain(core::iter::repeat_n(null, self.extras))
            .chain(rest)
    }
}

/// A packet, all of whose slots are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What is known of it.
    pub head: Head,
    /// Its bytes, in order; not empty. Together they are as long as it is, unless it has a flaw.
    pub parts: ArrayVec<Part, SLOTS_MAX>,
}

/// Makes packets of slots, in the order in which they are on the ring.
#[derive(Debug)]
pub struct Assembler {
    next: Next,
    packet: Packet,
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}

impl Assembler {
    /// Before a packet's first slot.
    pub const fn new() -> Self {
        Self {
            next: Next::First,
            packet: Packet {
                head: Head {
                    size: 0,
                    checksum_blank: false,
                    gso: None,
                    flaw: None,
                    extras: 0,
                },
                parts: ArrayVec::new_const(),
            },
        }
    }

    /// Takes a slot. True: it was the last one of a packet, which is [`Assembler::packet`] until the next slot is taken.
    ///
    /// # Errors
    /// The peer is broken: nothing that follows can be relied on.
    #[inline]
    pub fn slot(&mut self, words: [u32; REQUEST]) -> Result<bool, Broken> {
        self.next = match self.next {
            Next::First => self.first(Request::decode(words)),
            Next::Extra { parts } => self.extra([words[0], words[1]], parts)?,
            Next::Part => self.part(Request::decode(words))?,
        };
        if self.next != Next::First {
            return Ok(false);
        }
        close(&mut self.packet)?;
        Ok(true)
    }

    /// The packet that slots are made to.
    pub const fn packet(&self) -> &Packet {
        &self.packet
    }

    fn first(&mut self, request: Request) -> Next {
        self.packet.head = Head {
            size: request.size,
            checksum_blank: request.flags.contains(Flags::CHECKSUM_BLANK),
            gso: None,
            flaw: None,
            extras: 0,
        };
        self.packet.parts.clear();
        // Its length is known when those of all others are.
        self.packet.parts.push(Part {
            reference: request.reference,
            offset: request.offset,
            length: request.size,
            id: request.id,
        });
        let parts = request.flags.contains(Flags::MORE_DATA);
        if request.flags.contains(Flags::EXTRA_INFO) {
            Next::Extra { parts }
        } else {
            Next::after(parts)
        }
    }

    fn extra(&mut self, words: [u32; 2], parts: bool) -> Result<Next, Broken> {
        let (extra, more) = Extra::decode(words).map_err(Broken::Extra)?;
        let head = &mut self.packet.head;
        head.extras += 1;
        if head.extras > KINDS {
            return Err(Broken::Extras);
        }
        match extra {
            Extra::Gso(gso) => head.gso = Some(gso),
            Extra::MulticastAdd(_) | Extra::MulticastRemove(_) => return Err(Broken::Multicast),
            Extra::Hash | Extra::Headroom => {}
        }
        Ok(Next::after_extra(more, parts))
    }

    fn part(&mut self, request: Request) -> Result<Next, Broken> {
        let part = Part {
            reference: request.reference,
            offset: request.offset,
            length: request.size,
            id: request.id,
        };
        in_page(&part)?;
        (self.packet.parts.try_push(part)).map_err(|_| Broken::Slots)?;
        Ok(Next::after(request.flags.contains(Flags::MORE_DATA)))
    }
}

const fn in_page(part: &Part) -> Result<(), Broken> {
    if part.offset as usize + part.length as usize > PAGE {
        return Err(Broken::Page {
            offset: part.offset,
            length: part.length,
        });
    }
    Ok(())
}

/// Judges a packet as a whole, and finds out how long its first part is.
fn close(packet: &mut Packet) -> Result<(), Broken> {
    let Packet { head, parts } = packet;
    let others: usize = (parts.iter().skip(1))
        .map(|part| usize::from(part.length))
        .sum();
    let first = usize::from(head.size).checked_sub(others);
    head.flaw = match first {
        None => Some(Flaw::Parts),
        Some(_) if parts.len() > SLOTS_MIN => Some(Flaw::Slots),
        Some(_) if usize::from(head.size) < ETHERNET_HEADER => Some(Flaw::Short),
        Some(_) if head.gso.is_some() && !head.checksum_blank => Some(Flaw::Checksum),
        Some(_) => None,
    };
    if let (Some(part), Some(length)) = (parts.first_mut(), first) {
        part.length = length as u16;
        in_page(part)?;
    }
    Ok(())
}

/// The slots of a packet whose parts are known by page, first byte and length, as a front end writes them. Ids count from `id` on.
pub fn slots(
    parts: &[(u32, u16, u16)],
    checksum_blank: bool,
    gso: Option<Gso>,
    id: u16,
) -> impl Iterator<Item = [u32; REQUEST]> + '_ {
    let size = parts.iter().map(|part| part.2).sum();
    let requests = parts
        .iter()
        .zip(0_u16..)
        .map(move |(&(reference, offset, length), nth)| {
            let mut flags = Flags::empty();
            flags.set(Flags::MORE_DATA, usize::from(nth) + 1 < parts.len());
            if nth == 0 {
                let blank = Flags::CHECKSUM_BLANK | Flags::DATA_VALIDATED;
                flags.set(blank, checksum_blank);
                flags.set(Flags::EXTRA_INFO, gso.is_some());
            }
            let request = Request {
                reference,
                offset,
                flags,
                id: id.wrapping_add(nth),
                size: if nth == 0 { size } else { length },
            };
            request.encode()
        });
    let extra = gso.map(|gso| {
        let [a, b] = gso.encode();
        [a, b, 0]
    });
    let rest = requests.clone().skip(1);
    requests.take(1).chain(extra).chain(rest)
}
