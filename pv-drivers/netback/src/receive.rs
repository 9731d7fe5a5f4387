//! From an interface to a guest's ring.

use std::collections::VecDeque;
use std::io;
use std::iter::from_fn;
use std::sync::atomic::AtomicU32;

use arrayvec::ArrayVec;
use oxen_backend::Failure;
use oxen_netif::PAGE;
use oxen_netif::extra::{Gso, GsoKind};
use oxen_netif::headers::{HEAD, complete, is_ipv6, transport};
use oxen_netif::receive::{Filled, Flags, Request, Response, SLOT, layout, slots_for};
use oxen_ring::{BackRing, TooSmall};

use crate::arena::Arena;
use crate::drops::{Drops, Reason};
use crate::job::Guest;
use crate::machine::{COPIES, Interface, Pages, Store};
use crate::queue::journal;
use crate::transmit::is_lost;
use crate::vnet::{Checksum, HEADER, Header};

/// Packets that are copied with one call.
const PACKETS: usize = 64;
/// Pages for them; each begins with one. Few: the guest is to work on what it has got while the next are copied.
pub const PAGES: usize = 64;
const _: () = assert!(PAGES <= COPIES);
/// Pages of the largest: 64 KiB and its headers.
const LARGEST: usize = 17;

/// Words of the ring's journal.
pub const JOURNAL: usize = journal(SLOT, SLOT);

/// The direction to the guest.
#[derive(Debug)]
pub struct Receive<M, J> {
    ring: BackRing<M, J, SLOT, SLOT>,
    /// Pages that the guest has given, in order.
    given: VecDeque<Request>,
    arena: Arena,
    /// Waits, at the arena's beginning, until the guest has given enough pages.
    waiting: Option<Packet>,
    guest: Guest,
    pace: Pace,
    /// Of the packets in the arena: memory for them.
    answers: Vec<Answer>,
    drops: Drops,
}

/// How packets come. One that comes by itself is given to the guest before another is looked for: that takes a system call, and the guest
/// can do something meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Several at a time.
    Crowded,
    /// The last one was alone.
    Alone,
    /// One was given, and whether it was alone will be seen.
    Unknown,
}

impl Pace {
    /// After so many packets, behind which there were no more.
    const fn drained(self, packets: usize) -> Self {
        match (self, packets) {
            (Self::Unknown, 0) => Self::Alone,
            (_, 0) => self,
            (Self::Unknown, _) | (_, 2..) => Self::Crowded,
            (_, 1) => Self::Alone,
        }
    }
}

/// A packet in the arena.
#[derive(Clone, Copy, Debug)]
struct Packet {
    /// Its first page.
    page: usize,
    size: usize,
    checksum: Flags,
    gso: Option<Gso>,
}

type Packets = ArrayVec<Packet, PACKETS>;

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum End {
    /// No packet is there.
    #[default]
    Drained,
    /// The guest has not given enough pages for the next packet.
    Starved,
    /// There may be more: it was long enough, or its packet should not wait.
    Busy,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Turn {
    /// Why it ended.
    pub end: End,
    /// Packets that the guest got.
    pub packets: usize,
    /// Send the guest an event.
    pub notify: bool,
}

/// What a slot of the ring gets.
#[derive(Debug)]
enum Answer {
    Data {
        page: Request,
        /// First byte in the arena.
        start: usize,
        length: u16,
        flags: Flags,
    },
    Extra(Gso),
}

impl<M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> Receive<M, J> {
    /// Takes a ring up, with its journal and [`PAGES`] for packets, of a guest that can do so much; what it cannot be given is counted.
    ///
    /// # Errors
    /// The memory is no ring, or the journal too small.
    pub fn attach(
        memory: M,
        journal: J,
        guest: Guest,
        drops: Drops,
        arena: Arena,
    ) -> Result<Self, TooSmall> {
        Ok(Self {
            ring: BackRing::attach(memory, journal)?,
            given: VecDeque::new(),
            arena,
            waiting: None,
            guest,
            pace: Pace::Crowded,
            answers: Vec::new(),
            drops,
        })
    }

    /// Gives the guest what has arrived.
    ///
    /// # Errors
    /// The guest broke the protocol, or this domain cannot go on.
    pub fn turn(
        &mut self,
        pages: &mut impl Pages,
        interface: &mut impl Interface,
    ) -> Result<Turn, Failure> {
        let mut packets = Packets::new();
        let end = self.collect(interface, &mut packets)?;
        if end == End::Drained {
            self.pace = self.pace.drained(packets.len());
        }
        let notify = if packets.is_empty() {
            self.ring.publish()
        } else {
            self.deliver(pages, &packets)?
        };
        // What waits is kept where the next turn looks for it.
        if let Some(packet) = &mut self.waiting {
            let start = packet.page * PAGE;
            (self.arena.bytes_mut()).copy_within(start..start + packet.size, 0);
            packet.page = 0;
        }
        Ok(Turn {
            end,
            packets: packets.len(),
            notify,
        })
    }

    /// Whether a packet waits for pages.
    pub const fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// Asks for an event when the guest gives pages. True: it has already.
    ///
    /// # Errors
    /// As for [`Receive::turn`].
    pub fn sleep(&mut self) -> Result<bool, Failure> {
        self.ring.sleep().map_err(of_guest)
    }

    /// Packets that the guest could not be given, by their parts.
    pub const fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Takes packets that the guest has given pages for.
    fn collect(
        &mut self,
        interface: &mut impl Interface,
        packets: &mut Packets,
    ) -> Result<End, Failure> {
        let (mut used, mut promised) = (0, 0);
        while !packets.is_full() && used + LARGEST <= PAGES {
            let packet = match self.waiting.take() {
                Some(packet) => packet,
                None => match self.read(used, interface) {
                    Ok(None) => return Ok(End::Drained),
                    Ok(Some((header, size))) => match self.judge(used, header, size) {
                        Some(packet) => packet,
                        None => {
                            self.drops.note(Reason::Unfit);
                            continue;
                        }
                    },
                    // The kernel cannot say what kind of packet it has dropped, or we do not know it.
                    Err(error) if is_unknown(&error) => {
                        self.drops.note(Reason::Unfit);
                        continue;
                    }
                    Err(error) if is_lost(&error) => {
                        return Err(Failure::Host(format!("its interface is lost: {error}")));
                    }
                    Err(error) => return Err(Failure::Host(format!("its interface: {error}"))),
                },
            };
            let needed = promised + slots_for(packet.size, packet.gso);
            if !self.has_given(needed)? {
                self.waiting = Some(packet);
                return Ok(End::Starved);
            }
            promised = needed;
            // The next one's header goes behind it.
            used = packet.page + (packet.size + HEADER).div_ceil(PAGE);
            packets.push(packet);
            if self.pace == Pace::Alone {
                self.pace = Pace::Unknown;
                break;
            }
        }
        Ok(End::Busy)
    }

    fn read(
        &mut self,
        page: usize,
        interface: &mut impl Interface,
    ) -> io::Result<Option<(Header, usize)>> {
        interface.receive(self.arena.with_header(page, LARGEST * PAGE).0)
    }

    /// What the guest is told of a packet; `None` if it cannot take it.
    fn judge(&mut self, page: usize, header: Header, size: usize) -> Option<Packet> {
        let guest = self.guest;
        if size == 0 || (size > PAGE && !guest.scatter) {
            return None;
        }
        let takes = match header.gso.map(|gso| gso.kind) {
            None => true,
            Some(GsoKind::Tcp4) => guest.gso4,
            Some(GsoKind::Tcp6) => guest.gso6,
        };
        if !takes {
            return None;
        }
        let bytes = &mut self.arena.bytes_mut()[page * PAGE..][..size];
        let checksum = match header.checksum {
            Checksum::Unknown => Flags::empty(),
            Checksum::Valid => Flags::DATA_VALIDATED,
            Checksum::Blank { start, place } => {
                let head = &bytes[..size.min(HEAD)];
                let blank = if is_ipv6(head) {
                    guest.blank6
                } else {
                    guest.blank4
                };
                let known = transport(head)
                    .is_some_and(|found| (found.start, found.checksum) == (start, place));
                if blank && known {
                    Flags::CHECKSUM_BLANK | Flags::DATA_VALIDATED
                } else if header.gso.is_none() && complete(bytes, start.into(), place.into()) {
                    Flags::DATA_VALIDATED
                } else {
                    return None;
                }
            }
        };
        Some(Packet {
            page,
            size,
            checksum,
            gso: header.gso,
        })
    }

    /// Whether there are so many pages of the guest.
    fn has_given(&mut self, count: usize) -> Result<bool, Failure> {
        while self.given.len() < count {
            let Some(request) = self.ring.take().map_err(of_guest)? else {
                return Ok(false);
            };
            self.given.push_back(Request::decode(request));
        }
        Ok(true)
    }

    /// Copies packets to the guest's pages and says so. True: send it an event.
    fn deliver(&mut self, pages: &mut impl Pages, packets: &[Packet]) -> Result<bool, Failure> {
        self.answer(packets);
        let memory = self.arena.bytes();
        let copies = self.answers.iter().filter_map(|answer| match *answer {
            Answer::Extra(_) => None,
            Answer::Data {
                page,
                start,
                length,
                ..
            } => Some(Store {
                reference: page.reference,
                from: &memory[start..][..usize::from(length)],
            }),
        });
        let copied = (pages.store(copies))
            .map_err(|error| Failure::Host(format!("grants cannot be copied: {error}")))?;
        let mut copied = copied.iter().copied();
        for answer in self.answers.drain(..) {
            let words = match answer {
                Answer::Extra(gso) => gso.encode(),
                Answer::Data {
                    page,
                    length,
                    flags,
                    ..
                } => Response {
                    id: page.id,
                    offset: 0,
                    flags,
                    status: if copied.next().unwrap_or(false) {
                        length.cast_signed()
                    } else {
                        self.drops.note(Reason::Given);
                        oxen_netif::Status::Error.number()
                    },
                }
                .encode(),
            };
            (self.ring.respond(&words)).map_err(|error| Failure::Host(error.to_string()))?;
        }
        Ok(self.ring.publish())
    }

    /// Notes what the slots get that the guest has given for packets, in order.
    fn answer(&mut self, packets: &[Packet]) {
        for packet in packets {
            let filled = layout(packet.size, packet.checksum, packet.gso);
            // There are as many: they were counted.
            let given = from_fn(|| self.given.pop_front());
            let answers = filled.zip(given).map(|(filled, page)| match filled {
                Filled::Extra(gso) => Answer::Extra(gso),
                Filled::Data {
                    start,
                    length,
                    flags,
                } => Answer::Data {
                    page,
                    start: packet.page * PAGE + start,
                    length,
                    flags,
                },
            });
            self.answers.extend(answers);
        }
    }
}

/// Whether an error is one of a packet's, which is gone with it.
fn is_unknown(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    matches!(error.kind(), InvalidData | InvalidInput)
}

fn of_guest(error: impl std::fmt::Display) -> Failure {
    Failure::Guest(format!("receive ring: {error}"))
}
