//! The end that asks.

use core::fmt;

use crate::shared::{Consumer, REQUESTS, RESPONSES, Shared};
use crate::sync::atomic::AtomicU32;
use crate::{Fault, TooSmall};

/// The ring has no room for another request until a response is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the ring is full of requests")
    }
}

impl core::error::Error for Full {}

/// The asking end of a ring whose requests are of `REQ` words and whose responses are of `RSP` words.
#[derive(Debug)]
pub struct FrontRing<M, const REQ: usize, const RSP: usize> {
    shared: Shared<M>,
    responses: Consumer,
    /// Requests up to here are written.
    asked: u32,
    /// Requests up to here are shown to the peer.
    published: u32,
}

impl<M: AsRef<[AtomicU32]>, const REQ: usize, const RSP: usize> FrontRing<M, REQ, RSP> {
    /// Words of an entry, which is either.
    pub const ENTRY: usize = if REQ > RSP { REQ } else { RSP };

    /// Makes an empty ring of memory that the peer does not know yet.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn new(memory: M) -> Result<Self, TooSmall> {
        Self::starting_at(memory, 0)
    }

    pub(crate) fn starting_at(memory: M, start: u32) -> Result<Self, TooSmall> {
        let shared = Shared::new(memory, Self::ENTRY)?;
        shared.clear(start);
        Ok(Self {
            shared,
            responses: Consumer::new(start),
            asked: start,
            published: start,
        })
    }

    /// Entries of the ring.
    pub const fn slots(&self) -> u32 {
        self.shared.slots
    }

    /// Requests that there is room for.
    pub const fn room(&self) -> u32 {
        self.shared.slots - self.asked.wrapping_sub(self.responses.next)
    }

    /// Writes a request; the peer sees it at the next [`Self::publish`].
    ///
    /// # Errors
    /// There is no room.
    pub fn ask(&mut self, request: &[u32; REQ]) -> Result<(), Full> {
        if self.room() == 0 {
            return Err(Full);
        }
        self.shared.write(self.asked, request);
        self.asked = self.asked.wrapping_add(1);
        Ok(())
    }

    /// Shows the requests to the peer. True: send it an event.
    #[must_use = "the peer may wait for an event"]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.published, self.asked);
        old != self.asked && self.shared.publish(REQUESTS, old, self.asked)
    }

    /// The next response, if there is one.
    ///
    /// # Errors
    /// The peer's index is out of reach: it answered what was not asked.
    pub fn take(&mut self) -> Result<Option<[u32; RSP]>, Fault> {
        let room = self.open();
        let index = self.responses.take(&self.shared, RESPONSES, room)?;
        Ok(index.map(|index| self.shared.read(index)))
    }

    /// Asks for an event at the next response. True: there is one already, and perhaps no event.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn sleep(&mut self) -> Result<bool, Fault> {
        let room = self.open();
        self.responses.sleep(&self.shared, RESPONSES, room)
    }

    /// Requests that the peer has seen and whose responses were not taken.
    const fn open(&self) -> u32 {
        self.published.wrapping_sub(self.responses.next)
    }
}
