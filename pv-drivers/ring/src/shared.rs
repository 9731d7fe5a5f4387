//! The memory of a ring, as both ends see it.

use core::fmt;

use crate::Fault;
use crate::sync::atomic::{AtomicU32, Ordering, fence};

/// Words before the first entry: the four indices, then room that is private to either side.
const HEADER: usize = 16;

/// One direction: where its producer's index is, and up to which index its consumer needs no event.
#[derive(Clone, Copy)]
pub struct Lane {
    producer: usize,
    event: usize,
}

/// `req_prod` and `req_event`.
pub const REQUESTS: Lane = Lane {
    producer: 0,
    event: 1,
};
/// `rsp_prod` and `rsp_event`.
pub const RESPONSES: Lane = Lane {
    producer: 2,
    event: 3,
};

/// How many entries of `entry` words a ring of so many words has: a power of two; none if not even one fits.
pub const fn slots(words: usize, entry: usize) -> Option<u32> {
    if entry == 0 || words < HEADER + entry {
        return None;
    }
    let fit = (words - HEADER) / entry;
    let bits = fit.ilog2();
    // Indices are a ring's size apart at most, and have 32 bits.
    Some(1 << if bits > 30 { 30 } else { bits })
}

/// The memory does not hold a single entry, or the journal not as many responses as the ring has entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall;

impl fmt::Display for TooSmall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the memory is too small for a ring, or for its journal")
    }
}

impl core::error::Error for TooSmall {}

/// A ring's memory with its geometry.
#[derive(Debug)]
pub struct Shared<M> {
    memory: M,
    entry: usize,
    pub slots: u32,
}

impl<M: AsRef<[AtomicU32]>> Shared<M> {
    pub fn new(memory: M, entry: usize) -> Result<Self, TooSmall> {
        let slots = slots(memory.as_ref().len(), entry).ok_or(TooSmall)?;
        Ok(Self {
            memory,
            entry,
            slots,
        })
    }

    /// Makes an empty ring. The peer does not know it yet.
    pub fn clear(&self, start: u32) {
        for word in self.memory.as_ref() {
            word.store(0, Ordering::Relaxed);
        }
        for lane in [REQUESTS, RESPONSES] {
            self.word(lane.producer).store(start, Ordering::Relaxed);
            self.word(lane.event)
                .store(start.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// The index up to which a lane is filled. What is below it may be read after this.
    pub fn producer(&self, lane: Lane) -> u32 {
        self.word(lane.producer).load(Ordering::Acquire)
    }

    /// Copies an entry out, each word once.
    pub fn read<const WORDS: usize>(&self, index: u32) -> [u32; WORDS] {
        let words = self.entry::<WORDS>(index);
        core::array::from_fn(|nth| words[nth].load(Ordering::Relaxed))
    }

    /// Copies an entry in.
    pub fn write<const WORDS: usize>(&self, index: u32, content: &[u32; WORDS]) {
        for (word, content) in self.entry::<WORDS>(index).iter().zip(content) {
            word.store(*content, Ordering::Relaxed);
        }
    }

    /// Shows the peer what was written from `old` to `new`. True if it waits for an event.
    pub fn publish(&self, lane: Lane, old: u32, new: u32) -> bool {
        // Release: the entries are there before the index that covers them.
        self.word(lane.producer).store(new, Ordering::Release);
        // The consumer asks for an event and then looks at the producer's index; here it is the other way round. With both sides' store
        // ordered before their load, one of the two sees the other. What is stored behind this fence is stored behind the index.
        fence(Ordering::SeqCst);
        new.wrapping_sub(self.event(lane)) < new.wrapping_sub(old)
    }

    /// The index at which the peer wants an event.
    pub fn event(&self, lane: Lane) -> u32 {
        self.word(lane.event).load(Ordering::Relaxed)
    }

    /// Asks for an event at the next entry behind `consumed`. Whoever sleeps then has looked at [`Self::producer`] again.
    pub fn ask(&self, lane: Lane, consumed: u32) {
        self.word(lane.event)
            .store(consumed.wrapping_add(1), Ordering::Relaxed);
        // See `publish`.
        fence(Ordering::SeqCst);
    }

    /// Asks for no event for what comes behind `consumed`. One may come for all that, from a peer that is just looking.
    pub fn ask_nothing(&self, lane: Lane, consumed: u32) {
        self.word(lane.event).store(consumed, Ordering::Relaxed);
    }

    fn entry<const WORDS: usize>(&self, index: u32) -> &[AtomicU32] {
        let start = HEADER + (index & (self.slots - 1)) as usize * self.entry;
        &self.memory.as_ref()[start..][..WORDS]
    }

    fn word(&self, nth: usize) -> &AtomicU32 {
        &self.memory.as_ref()[nth]
    }
}

/// What an end has consumed of a lane, and how far the peer had filled it when last seen.
#[derive(Clone, Copy, Debug)]
pub struct Consumer {
    pub next: u32,
    seen: u32,
}

impl Consumer {
    pub const fn new(start: u32) -> Self {
        Self {
            next: start,
            seen: start,
        }
    }

    /// Index of the next entry, if the peer has filled one in; at most `room` can be ahead.
    pub fn take<M: AsRef<[AtomicU32]>>(
        &mut self,
        shared: &Shared<M>,
        lane: Lane,
        room: u32,
    ) -> Result<Option<u32>, Fault> {
        if self.seen == self.next {
            self.look(shared, lane, room)?;
        }
        if self.seen == self.next {
            return Ok(None);
        }
        let index = self.next;
        self.next = index.wrapping_add(1);
        Ok(Some(index))
    }

    /// Whether the peer's index is elsewhere than what was consumed.
    pub fn stirs<M: AsRef<[AtomicU32]>>(&self, shared: &Shared<M>, lane: Lane) -> bool {
        self.seen != self.next || shared.producer(lane) != self.next
    }

    /// Reads the peer's index.
    fn look<M: AsRef<[AtomicU32]>>(
        &mut self,
        shared: &Shared<M>,
        lane: Lane,
        room: u32,
    ) -> Result<(), Fault> {
        let theirs = shared.producer(lane);
        if theirs.wrapping_sub(self.next) > room {
            return Err(Fault {
                theirs,
                ours: self.next,
                room,
            });
        }
        self.seen = theirs;
        Ok(())
    }

    /// Asks for an event; true if there is something to take after all.
    pub fn sleep<M: AsRef<[AtomicU32]>>(
        &mut self,
        shared: &Shared<M>,
        lane: Lane,
        room: u32,
    ) -> Result<bool, Fault> {
        if self.seen == self.next {
            shared.ask(lane, self.next);
            self.look(shared, lane, room)?;
        }
        Ok(self.seen != self.next)
    }
}
