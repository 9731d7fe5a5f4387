//! The end that serves.

use core::fmt;

use crate::journal::Journal;
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

/// The serving end of a ring in `M` whose requests are of `REQ` words and whose responses are of `RSP` words, with a journal in `J`.
#[derive(Debug)]
pub struct BackRing<M, J, const REQ: usize, const RSP: usize> {
    shared: Shared<M>,
    journal: Journal<J, RSP>,
    requests: Consumer,
    /// Responses up to here are in the journal, or shown.
    answered: u32,
    /// Responses up to here are shown to the peer.
    published: u32,
    /// An earlier back end may have shown responses and not sent the event for them.
    owes_event: bool,
}

impl<M, J, const REQ: usize, const RSP: usize> BackRing<M, J, REQ, RSP>
where
    M: AsRef<[AtomicU32]>,
    J: AsRef<[AtomicU32]>,
{
    /// Words of an entry, which is either.
    pub const ENTRY: usize = if REQ > RSP { REQ } else { RSP };

    /// Takes up a ring at its last response: an earlier back end's requests that have no answer come again. That fits who answers in the
    /// order of the requests.
    ///
    /// The journal ([`journal_words`](crate::journal_words)) is memory that the peer cannot reach and that outlives this end: the next one
    /// to take up the same ring gets it as it is. With a new ring it is zeroed. What was about to be shown when the earlier one died is
    /// shown here.
    ///
    /// # Errors
    /// The memory, or the journal, is too small.
    pub fn attach(memory: M, journal: J) -> Result<Self, TooSmall> {
        let shared = Shared::new(memory, Self::ENTRY)?;
        let journal = Journal::new(journal, shared.slots)?;
        let start = shared.producer(RESPONSES);
        let end = start.wrapping_add(journal.committed(start, shared.slots));
        let ring = Self {
            shared,
            journal,
            requests: Consumer::new(end),
            answered: end,
            published: end,
            owes_event: true,
        };
        if start == end {
            // It may be of another time, and counts no more.
            ring.journal.clear();
        } else {
            // The event is owed anyway.
            let _ = ring.show(start, end);
        }
        Ok(ring)
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

    /// Answers a request; the peer sees it at the next [`Self::publish`], until when the ring is as it was.
    ///
    /// # Errors
    /// All that was asked is answered.
    pub fn respond(&mut self, response: &[u32; RSP]) -> Result<(), Unasked> {
        if self.outstanding() == 0 {
            return Err(Unasked);
        }
        let nth = self.answered.wrapping_sub(self.published);
        self.journal.write(nth, response);
        self.answered = self.answered.wrapping_add(1);
        Ok(())
    }

    /// Shows the responses to the peer. True: send it an event.
    ///
    /// The first time it is true also without a response: whoever served the ring before may have died between the last one and its event,
    /// without which the peer sleeps for ever.
    #[must_use = "the peer may wait for an event"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.answered);
        let mut wanted = false;
        if old != new {
            self.journal.commit(old, new.wrapping_sub(old));
            wanted = self.show(old, new);
            self.published = new;
        }
        core::mem::take(&mut self.owes_event) || wanted
    }

    /// Whether the peer has asked for an event at a response that it was shown, and has not asked for a later one since: who has put
    /// the event off need not send it any more where this is false.
    pub fn is_awaited(&self) -> bool {
        let event = self.shared.event(RESPONSES);
        event.wrapping_sub(self.published).cast_signed() <= 0
    }

    /// Whether there seems to be a request, or nonsense, without asking for an event: who looks again and again sleeps later.
    pub fn stirs(&self) -> bool {
        self.requests.stirs(&self.shared, REQUESTS)
    }

    /// Asks for no event: who looks by itself, see [`Self::stirs`], spares the peer the sending and itself the taking. Ends with
    /// [`Self::sleep`].
    pub fn stay_awake(&self) {
        self.shared.ask_nothing(REQUESTS, self.requests.next);
    }

    /// Asks for an event at the next request. True: there is one already, and perhaps no event.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn sleep(&mut self) -> Result<bool, Fault> {
        let room = self.room();
        self.requests.sleep(&self.shared, REQUESTS, room)
    }

    /// Puts what the journal holds in the place of its requests, from `old` to `new`, and shows it. True if the peer waits for an event.
    fn show(&self, old: u32, new: u32) -> bool {
        for nth in 0..new.wrapping_sub(old) {
            let response = self.journal.read(nth);
            self.shared.write(old.wrapping_add(nth), &response);
        }
        let wanted = self.shared.publish(RESPONSES, old, new);
        self.journal.clear();
        wanted
    }

    /// Requests that the peer may have placed ahead of what was taken: it has seen no answer that is not shown.
    const fn room(&self) -> u32 {
        self.shared.slots - self.requests.next.wrapping_sub(self.published)
    }
}
