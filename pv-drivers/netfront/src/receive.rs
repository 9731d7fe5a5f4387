//! Frames that the guest receives.

use core::sync::atomic::AtomicU32;

use arrayvec::ArrayVec;
use oxen_netif::PAGE;
use oxen_netif::extra::{Extra, Gso, KINDS, Next};
use oxen_netif::receive::{Flags, Request, Response, SLOT};
use oxen_netif::transmit::SLOTS_MAX;
use oxen_ring::{FrontRing, Full, TooSmall};

use crate::{Fault, Part, SLOTS, place, ring_of_a_page};

/// A frame. All pages that it names are the guest's again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, in order.
    pub parts: ArrayVec<Part, SLOTS_MAX>,
    /// Grants of pages that came back without bytes of it.
    pub unused: ArrayVec<u32, { SLOTS_MAX + KINDS }>,
    /// The checksum is not complete: its field has the pseudo header's sum.
    pub checksum_blank: bool,
    /// The content was checked, or cannot have changed.
    pub checked: bool,
    /// It is to be taken for segments that were put together.
    pub gso: Option<Gso>,
    /// The back end could not fill one of its pages: what there is of it is no frame.
    pub failed: bool,
}

/// The ring on which the guest receives, of one page.
#[derive(Debug)]
pub struct Receiver<M> {
    ring: FrontRing<M, SLOT, SLOT>,
    /// Grants of pages that were given, by their slots: that is how responses tell of them.
    given: [Option<u32>; SLOTS],
    /// Slots of the next page that is given, and of the next response.
    give: u16,
    take: u16,
    next: Next,
    frame: Frame,
    extras: usize,
}

impl<M: AsRef<[AtomicU32]>> Receiver<M> {
    /// Over memory that is granted to the back end and that it does not know yet.
    ///
    /// # Errors
    /// It is less than a page.
    pub fn new(memory: M) -> Result<Self, TooSmall> {
        Ok(Self {
            ring: ring_of_a_page(memory)?,
            given: [None; SLOTS],
            give: 0,
            take: 0,
            next: Next::First,
            frame: Frame::default(),
            extras: 0,
        })
    }

    /// Gives the back end a page to be filled, which it may write from now on until a frame names it.
    ///
    /// # Errors
    /// The ring is full of them.
    pub fn give(&mut self, grant: u32) -> Result<(), Full> {
        let request = Request {
            id: self.give,
            reference: grant,
        };
        self.ring.ask(&request.encode())?;
        self.given[place(self.give)] = Some(grant);
        self.give = self.give.wrapping_add(1);
        Ok(())
    }

    /// Shows the given pages to the back end. True: send it an event.
    #[must_use = "the back end may wait for an event"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// The next frame, if all of it is there.
    ///
    /// # Errors
    /// The back end breaks the protocol.
    pub fn collect(&mut self) -> Result<Option<Frame>, Fault> {
        while let Some(words) = self.ring.take().map_err(Fault::Ring)? {
            let slot = self.take;
            self.take = slot.wrapping_add(1);
            let grant = self.given[place(slot)].take().ok_or(Fault::Response)?;
            self.next = match self.next {
                Next::Extra { parts } => self.extra(grant, words, parts)?,
                Next::First => self.part(grant, slot, words, true)?,
                Next::Part => self.part(grant, slot, words, false)?,
            };
            if self.next == Next::First {
                self.extras = 0;
                return Ok(Some(core::mem::take(&mut self.frame)));
            }
        }
        Ok(None)
    }

    /// Asks for an event at the next frame. True: there is something already, and perhaps no event.
    ///
    /// # Errors
    /// The back end breaks the protocol.
    pub fn sleep(&mut self) -> Result<bool, Fault> {
        self.ring.sleep().map_err(Fault::Ring)
    }

    /// The ring itself, for tests that break its rules.
    pub fn ring(&mut self) -> &mut FrontRing<M, SLOT, SLOT> {
        &mut self.ring
    }

    fn part(
        &mut self,
        grant: u32,
        slot: u16,
        words: [u32; SLOT],
        first: bool,
    ) -> Result<Next, Fault> {
        let response = Response::decode(words);
        if response.id != slot {
            return Err(Fault::Response);
        }
        let frame = &mut self.frame;
        match u16::try_from(response.status) {
            Err(_) => {
                frame.failed = true;
                frame.unused.try_push(grant).map_err(|_| Fault::Parts)?;
            }
            Ok(length) => {
                if usize::from(response.offset) + usize::from(length) > PAGE {
                    return Err(Fault::Page);
                }
                let part = Part {
                    grant,
                    offset: response.offset,
                    length,
                };
                frame.parts.try_push(part).map_err(|_| Fault::Parts)?;
            }
        }
        let more = response.flags.contains(Flags::MORE_DATA);
        if first {
            frame.checksum_blank = response.flags.contains(Flags::CHECKSUM_BLANK);
            frame.checked = response.flags.contains(Flags::DATA_VALIDATED);
            if response.flags.contains(Flags::EXTRA_INFO) {
                return Ok(Next::Extra { parts: more });
            }
        }
        Ok(Next::after(more))
    }

    fn extra(&mut self, grant: u32, words: [u32; SLOT], parts: bool) -> Result<Next, Fault> {
        self.extras += 1;
        if self.extras > KINDS {
            return Err(Fault::Parts);
        }
        let (extra, more) = Extra::decode(words).map_err(Fault::Extra)?;
        if let Extra::Gso(gso) = extra {
            self.frame.gso = Some(gso);
        }
        (self.frame.unused.try_push(grant)).map_err(|_| Fault::Parts)?;
        Ok(Next::after_extra(more, parts))
    }
}
