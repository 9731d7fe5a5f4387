//! The end that serves.

use core::fmt;

use crate::shared::{Consumer, REQUESTS, RESPONSES, Shared};
use crate::sync::atomic::AtomicU32;
use crate::{Fault, TooSmall};

/// There is no request that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unasked;

impl fmt::Display for Unasked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a response to no request")
    }
}

impl core::error::Error for Unasked {}

/// The serving end of a ring whose requests are of `REQ` words and whose responses are of `RSP` words.
#[derive(Debug)]
pub struct BackRing<M, const REQ: usize, const RSP: usize> {
    shared: Shared<M>,
    requests: Consumer,
    /// Responses up to here are written.
    answered: u32,
    /// Responses up to here are shown to the peer.
    published: u32,
    /// An earlier back end may have shown responses and not sent the event for them.
    owes_event: bool,
}

impl<M: AsRef<[AtomicU32]>, const REQ: usize, const RSP: usize> BackRing<M, REQ, RSP> {
    /// Words of an entry, which is either.
    pub const ENTRY: usize = if REQ > RSP { REQ } else { RSP };

    /// Takes up a ring at its last response: an earlier back end's requests that have no answer come again. That fits who answers in the
    /// order of the requests.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn attach(memory: M) -> Result<Self, TooSmall> {
        let shared = Shared::new(memory, Self::ENTRY)?;
        let start = shared.producer(RESPONSES);
        Ok(Self {
            shared,
            requests: Consumer::new(start),
            answered: start,
            published: start,
            owes_event: true,
        })
    }

    /// Entries of the ring.
    pub const fn slots(&self) -> u32 {
        self.shared.slots
    }

    /// Requests that were taken and not answered.
    pub const fn outstanding(&self) -> u32 {
        self.requests.next.wrapping_sub(self.answered)
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    /// The peer's index is out of reach.
    pub fn take(&mut self) -> Result<Option<[u32; REQ]>, Fault> {
        let room = self.room();
        let index = self.requests.take(&self.shared, REQUESTS, room)?;
        Ok(index.map(|index| self.shared.read(index)))
    }

    /// Answers a request; the peer sees it at the next [`Self::publish`].
    ///
    /// # Errors
    /// All that was asked is answered.
    pub fn respond(&mut self, response: &[u32; RSP]) -> Result<(), Unasked> {
        if self.outstanding() == 0 {
            return Err(Unasked);
        }
        self.shared.write(self.answered, response);
        self.answered = self.answered.wrapping_add(1);
        Ok(())
    }

    /// Shows the responses to the peer. True: send it an event.
    ///
    /// The first time it is true also without a response: whoever served the ring before may have died between the last one and its event,
    /// without which the peer sleeps for ever.
    #[must_use = "the peer may wait for an event"]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.published, self.answered);
        let wanted = old != self.answered && self.shared.publish(RESPONSES, old, self.answered);
        core::mem::take(&mut self.owes_event) || wanted
    }

    /// Asks for an event at the next request. True: there is one already, and perhaps no event.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn sleep(&mut self) -> Result<bool, Fault> {
        let room = self.room();
        self.requests.sleep(&self.shared, REQUESTS, room)
    }

    /// Requests that the peer may have placed ahead of what was taken.
    const fn room(&self) -> u32 {
        self.shared.slots - self.outstanding()
    }
}
