//! Frames that the guest sends.

use core::fmt;
use core::sync::atomic::AtomicU32;

use arrayvec::ArrayVec;
use oxen_netif::extra::Gso;
use oxen_netif::transmit::{REQUEST, RESPONSE, Response, slots};
use oxen_netif::{ETHERNET_HEADER, PAGE, SLOTS_MIN, Status};
use oxen_ring::{FrontRing, TooSmall};

use crate::{Fault, Part, SLOTS, place, ring_of_a_page};

/// A frame that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameId(u16);

/// What the back end is to do with a frame; what it offered only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The field of the TCP or UDP checksum has the pseudo header's sum: complete it.
    pub checksum: bool,
    /// Cut it into segments; only with a checksum to be completed.
    pub gso: Option<Gso>,
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The ring is full: collect first.
    Full,
    /// It is shorter than an Ethernet header.
    Short,
    /// It has more than 65535 bytes.
    Long,
    /// It has more parts than every back end takes.
    Parts,
    /// A part leaves its page, or is empty.
    Page,
    /// It cannot be cut into segments with a checksum that is complete.
    Checksum,
}

impl fmt::Display for Unsent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Full => "the ring is full of frames",
            Self::Short => "a frame that is shorter than an Ethernet header",
            Self::Long => "a frame of more than 65535 bytes",
            Self::Parts => "a frame of too many parts",
            Self::Page => "a part that leaves its page, or is empty",
            Self::Checksum => "a frame to be cut, and a checksum that is complete",
        })
    }
}

impl core::error::Error for Unsent {}

/// A slot with a part of a frame that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u16,
    /// The frame's first slot.
    first: u16,
}

/// What is known of a frame that has no answer yet, by its first slot.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Slots without an answer.
    left: u8,
    status: Status,
}

/// The ring on which the guest sends, of one page.
#[derive(Debug)]
pub struct Sender<M> {
    ring: FrontRing<M, REQUEST, RESPONSE>,
    next: u16,
    /// By the slots' ids, modulo the table's size.
    open: [Option<Open>; SLOTS],
    frames: [Option<Pending>; SLOTS],
    /// Slots that were no requests, whose answers say nothing.
    extras: usize,
}

impl<M: AsRef<[AtomicU32]>> Sender<M> {
    /// Over memory that is granted to the back end and that it does not know yet.
    ///
    /// # Errors
    /// It is less than a page.
    pub fn new(memory: M) -> Result<Self, TooSmall> {
        Ok(Self {
            ring: ring_of_a_page(memory)?,
            next: 0,
            open: [None; SLOTS],
            frames: [None; SLOTS],
            extras: 0,
        })
    }

    /// Sends a frame of so many parts. Their pages are the back end's until [`Sender::collect`] names the frame.
    ///
    /// # Errors
    /// There is no room, or this is no frame.
    pub fn send(&mut self, parts: &[Part], offloads: Offloads) -> Result<FrameId, Unsent> {
        judge(parts, offloads)?;
        let extras = usize::from(offloads.gso.is_some());
        let first = self.next;
        let ids = (first..=u16::MAX).chain(0..=u16::MAX).take(parts.len());
        // A back end may leave one frame open for long while it answers those that came later.
        let free = self.frames[place(first)].is_none()
            && (ids.clone()).all(|id| self.open[place(id)].is_none());
        if !free || (self.ring.room() as usize) < parts.len() + extras {
            return Err(Unsent::Full);
        }
        let plain: ArrayVec<(u32, u16, u16), SLOTS_MIN> = (parts.iter())
            .map(|part| (part.grant, part.offset, part.length))
            .collect();
        for slot in slots(&plain, offloads.checksum, offloads.gso, first) {
            self.ring.ask(&slot).map_err(|_| Unsent::Full)?;
        }
        for id in ids {
            self.open[place(id)] = Some(Open { id, first });
            self.next = id.wrapping_add(1);
        }
        self.frames[place(first)] = Some(Pending {
            left: parts.len() as u8,
            status: Status::Okay,
        });
        self.extras += extras;
        Ok(FrameId(first))
    }

    /// Shows what was sent to the back end. True: send it an event.
    #[must_use = "the back end may wait for an event"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// A frame whose parts all have their answers, if there is one, and how it ended: its pages are the guest's again.
    ///
    /// # Errors
    /// The back end breaks the protocol.
    pub fn collect(&mut self) -> Result<Option<(FrameId, Status)>, Fault> {
        while let Some(words) = self.ring.take().map_err(Fault::Ring)? {
            let answer = Response::decode(words);
            if answer.status == Status::Null {
                self.extras = self.extras.checked_sub(1).ok_or(Fault::Response)?;
                continue;
            }
            let open = &mut self.open[place(answer.id)];
            let Some(Open { first, .. }) = open.take_if(|open| open.id == answer.id) else {
                return Err(Fault::Response);
            };
            let frame = &mut self.frames[place(first)];
            let Some(pending) = frame else {
                return Err(Fault::Response);
            };
            pending.left -= 1;
            if answer.status != Status::Okay {
                pending.status = answer.status;
            }
            let (left, status) = (pending.left, pending.status);
            if left == 0 {
                *frame = None;
                return Ok(Some((FrameId(first), status)));
            }
        }
        Ok(None)
    }

    /// Asks for an event at the next answer. True: there is one already, and perhaps no event.
    ///
    /// # Errors
    /// The back end breaks the protocol.
    pub fn sleep(&mut self) -> Result<bool, Fault> {
        self.ring.sleep().map_err(Fault::Ring)
    }

    /// The ring itself, for tests that break its rules.
    pub fn ring(&mut self) -> &mut FrontRing<M, REQUEST, RESPONSE> {
        &mut self.ring
    }
}

fn judge(parts: &[Part], offloads: Offloads) -> Result<(), Unsent> {
    if parts.len() > SLOTS_MIN {
        return Err(Unsent::Parts);
    }
    let mut size = 0;
    for &Part { offset, length, .. } in parts {
        if length == 0 || usize::from(offset) + usize::from(length) > PAGE {
            return Err(Unsent::Page);
        }
        size += usize::from(length);
    }
    if size < ETHERNET_HEADER {
        return Err(Unsent::Short);
    }
    if size > usize::from(u16::MAX) {
        return Err(Unsent::Long);
    }
    if offloads.gso.is_some() && !offloads.checksum {
        return Err(Unsent::Checksum);
    }
    Ok(())
}
