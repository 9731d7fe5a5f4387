//! From a guest's ring to its interface.

use std::io;
use std::sync::atomic::AtomicU32;

use arrayvec::ArrayVec;
use oxen_backend::Failure;
use oxen_config::vif::Mac;
use oxen_netif::extra::{Gso, GsoKind};
use oxen_netif::headers::{HEAD, is_ipv6, transport};
use oxen_netif::transmit::{Assembler, Head, Packet, Part, REQUEST, RESPONSE, SLOTS_MAX};
use oxen_netif::{PAGE, Status};
use oxen_ring::{BackRing, TooSmall};
use rustix::io::Errno;

use crate::arena::Arena;
use crate::drops::{Drops, Reason};
use crate::machine::{COPIES, Fetch, Interface, Made, Pages};
use crate::queue::journal;
use crate::vnet::{Checksum, HEADER, Header};

/// Packets that are copied with one call.
const PACKETS: usize = 64;
/// Pages for their parts, one for each. Few, as for what goes to the guest.
pub const PAGES: usize = 40;
const _: () = assert!(PAGES <= COPIES);

/// Words of the ring's journal.
pub const JOURNAL: usize = journal(REQUEST, RESPONSE);

/// The direction from the guest.
#[derive(Debug)]
pub struct Transmit<M, J> {
    ring: BackRing<M, J, REQUEST, RESPONSE>,
    assembler: Assembler,
    arena: Arena,
    /// The guest's address, where it may send from that only.
    own: Option<Mac>,
    drops: Drops,
}

/// Packets of a turn, with the parts of all one behind the other.
#[derive(Default)]
struct Taken {
    /// Each with how many parts it has.
    heads: ArrayVec<(Head, usize), PACKETS>,
    parts: ArrayVec<Part, PAGES>,
}

impl Taken {
    /// Whether there may be no room for another.
    const fn is_full(&self) -> bool {
        self.heads.is_full() || self.parts.remaining_capacity() < SLOTS_MAX
    }

    /// Adds one, unless that is so.
    fn push(&mut self, packet: &Packet) {
        let parts = &packet.parts;
        if self.parts.try_extend_from_slice(parts).is_ok() {
            // There is room for it.
            let _ = self.heads.try_push((packet.head, parts.len()));
        }
    }

    /// All of them.
    fn iter(&self) -> impl Iterator<Item = (Head, &[Part])> {
        let mut rest = &self.parts[..];
        self.heads.iter().map(move |&(head, count)| {
            let (parts, others) = rest.split_at(count);
            rest = others;
            (head, parts)
        })
    }
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Turn {
    /// Packets that were taken.
    pub packets: usize,
    /// Their parts.
    pub parts: usize,
    /// It ended because they were many, not because there were no more.
    pub full: bool,
    /// Send the guest an event.
    pub notify: bool,
}

impl<M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> Transmit<M, J> {
    /// Takes a ring up, with its journal and [`PAGES`] for packets. Without an `own` address packets from any address pass; what does not
    /// is counted.
    ///
    /// # Errors
    /// The memory is no ring, or the journal too small.
    pub fn attach(
        memory: M,
        journal: J,
        own: Option<Mac>,
        drops: Drops,
        arena: Arena,
    ) -> Result<Self, TooSmall> {
        Ok(Self {
            ring: BackRing::attach(memory, journal)?,
            assembler: Assembler::new(),
            arena,
            own,
            drops,
        })
    }

    /// Sends what the guest has asked for, as far as `may_send` lets packets pass: it is asked before each.
    ///
    /// # Errors
    /// The guest broke the protocol, or this domain cannot go on.
    pub fn turn(
        &mut self,
        pages: &mut impl Pages,
        interface: &mut impl Interface,
        mut may_send: impl FnMut() -> bool,
        mut spend: impl FnMut(u16),
    ) -> Result<Turn, Failure> {
        let mut taken = Taken::default();
        let mut full = false;
        while may_send() {
            full = taken.is_full();
            if full {
                break;
            }
            let Some(packet) = self.next()? else {
                break;
            };
            spend(packet.head.size);
            taken.push(packet);
        }
        if taken.heads.is_empty() {
            return Ok(Turn {
                packets: 0,
                parts: 0,
                full,
                notify: self.ring.publish(),
            });
        }
        let copied = fetch(&taken, pages, &mut self.arena)
            .map_err(|error| Failure::Host(format!("grants cannot be copied: {error}")))?;
        let mut copied = copied.iter().copied();
        let mut page = 0;
        for (head, parts) in taken.iter() {
            let outcome = match head.flaw {
                Some(flaw) => Err(Reason::Flaw(flaw)),
                None => {
                    let mut lengths = lengths(head, parts);
                    let length = lengths.next().unwrap_or(0);
                    let mut whole = copied.next().unwrap_or(false);
                    // The header goes behind what was sent before.
                    let (first, behind) = self.arena.with_header(page, length);
                    page += 1;
                    let mut rest: ArrayVec<&[u8], SLOTS_MAX> = ArrayVec::new();
                    for (length, bytes) in lengths.zip(behind.chunks_exact(PAGE)) {
                        whole &= copied.next().unwrap_or(false);
                        rest.push(&bytes[..length]);
                        page += 1;
                    }
                    if whole {
                        send(head, first, &rest, self.own, interface)?
                    } else {
                        Err(Reason::Grant)
                    }
                }
            };
            let status = match outcome {
                Ok(()) => Status::Okay,
                Err(reason) => {
                    self.drops.note(reason);
                    answer(reason)
                }
            };
            for response in head.responses(parts, status) {
                (self.ring.respond(&response.encode()))
                    .map_err(|error| Failure::Host(error.to_string()))?;
            }
        }
        Ok(Turn {
            packets: taken.heads.len(),
            parts: taken.parts.len(),
            full,
            notify: self.ring.publish(),
        })
    }

    /// Whether the guest still waits for an event for what it has sent.
    pub fn is_awaited(&self) -> bool {
        self.ring.is_awaited()
    }

    /// Whether there seems to be something to take, without asking for an event.
    pub fn stirs(&self) -> bool {
        self.ring.stirs()
    }

    /// Asks for no event until [`Transmit::sleep`].
    pub fn stay_awake(&self) {
        self.ring.stay_awake();
    }

    /// Asks for an event. True: there is something to take already.
    ///
    /// # Errors
    /// As for [`Transmit::turn`].
    pub fn sleep(&mut self) -> Result<bool, Failure> {
        self.ring.sleep().map_err(of_guest)
    }

    /// Packets that went no further.
    pub const fn drops(&self) -> &Drops {
        &self.drops
    }

    /// The next whole packet.
    fn next(&mut self) -> Result<Option<&Packet>, Failure> {
        while let Some(slot) = self.ring.take().map_err(of_guest)? {
            if self.assembler.slot(slot).map_err(of_guest)? {
                return Ok(Some(self.assembler.packet()));
            }
        }
        Ok(None)
    }
}

fn of_guest(error: impl std::fmt::Display) -> Failure {
    Failure::Guest(format!("transmit ring: {error}"))
}

/// Bytes of the parts that are copied.
fn lengths(head: Head, parts: &[Part]) -> impl Iterator<Item = usize> {
    copied(head, parts).map(|part| usize::from(part.length))
}

/// The parts that are copied: they have bytes, and the packet no flaw.
fn copied(head: Head, parts: &[Part]) -> impl Iterator<Item = &Part> {
    let is_sound = head.flaw.is_none();
    (parts.iter()).filter(move |part| is_sound && part.length > 0)
}

/// Copies each part to a page of its own.
fn fetch(taken: &Taken, pages: &mut impl Pages, arena: &mut Arena) -> io::Result<Made> {
    let parts = taken.iter().flat_map(|(head, parts)| copied(head, parts));
    let memory = arena.bytes_mut().chunks_exact_mut(PAGE);
    let copies = parts.zip(memory).map(|(part, page)| Fetch {
        reference: part.reference,
        offset: part.offset,
        to: &mut page[..usize::from(part.length)],
    });
    pages.fetch(copies)
}

/// What the guest is told of a packet that goes no further.
const fn answer(reason: Reason) -> Status {
    match reason {
        Reason::Source(_) => Status::Dropped,
        _ => Status::Error,
    }
}

/// Sends a packet, or says why it goes no further.
fn send(
    packet: Head,
    first: &mut [u8],
    rest: &[&[u8]],
    own: Option<Mac>,
    interface: &mut impl Interface,
) -> Result<Result<(), Reason>, Failure> {
    let mut head: ArrayVec<u8, HEAD> = ArrayVec::new();
    for part in std::iter::once(&first[HEADER..]).chain(rest.iter().copied()) {
        let length = part.len().min(head.remaining_capacity());
        // There is room for as much.
        let _ = head.try_extend_from_slice(&part[..length]);
    }
    // A packet has an Ethernet header at least, or a flaw.
    let source = head.get(6..12).and_then(|source| source.try_into().ok());
    let source = Mac(source.unwrap_or_default());
    if own.is_some_and(|own| own != source) {
        return Ok(Err(Reason::Source(source)));
    }
    let mut header = Header {
        gso: packet.gso,
        ..Header::default()
    };
    if packet.checksum_blank {
        let Some(found) = transport(&head) else {
            return Ok(Err(Reason::Headers));
        };
        let as_said = |gso: Gso| found.is_tcp() && is_ipv6(&head) == (gso.kind == GsoKind::Tcp6);
        if !packet.gso.is_none_or(as_said) {
            return Ok(Err(Reason::Segments));
        }
        header.checksum = Checksum::Blank {
            start: found.start,
            place: found.checksum,
        };
        header.headers = found.payload;
    }
    match interface.send(&header, first, rest) {
        Ok(()) => Ok(Ok(())),
        // The interface is not there any more, or is not ours.
        Err(error) if is_lost(&error) => {
            Err(Failure::Host(format!("its interface is lost: {error}")))
        }
        // Not a packet that the kernel takes, it is short of memory, or the interface is down.
        Err(_) => Ok(Err(Reason::Kernel)),
    }
}

/// Whether an interface will never work again.
pub fn is_lost(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    [Errno::BADFD, Errno::BADF, Errno::NODEV]
        .map(Some)
        .contains(&errno)
}
