//! What a back end is about to show, in memory that outlives it.
//!
//! A response takes the place of a request. Whoever dies between a response's first word and the index that covers it has destroyed a
//! request that his successor has to read. So responses that are shown together are written down here first:
//!
//! 1. the responses: they do not count yet;
//! 2. the ring's index at which they begin, then their number: now they count;
//! 3. the responses in the ring, then its index: now they do not count any more, as they begin elsewhere than the index says;
//! 4. their number: none.
//!
//! A successor that finds responses which begin at the ring's index does the third step again, and the fourth.
//!
//! Who is killed has made his stores up to some one, and none of those behind it. That this is so in the order above, and not in one that a
//! compiler likes better, is what the orderings here are for: each names what it keeps apart. The CPUs need no more, for the kernel lets a
//! successor in only when the process before it is gone.

use crate::TooSmall;
use crate::shared::slots;
use crate::sync::atomic::{AtomicU32, Ordering, fence};

/// The ring's index at which the responses begin.
const START: usize = 0;
/// How many there are; 0 if they do not count.
const COUNT: usize = 1;
/// First word of the responses.
const BODY: usize = 2;

/// Words of the journal of a ring of `ring` words, whose requests and responses have so many; none if the ring does not hold an entry.
pub const fn journal_words(ring: usize, request: usize, response: usize) -> Option<usize> {
    let entry = if request > response {
        request
    } else {
        response
    };
    match slots(ring, entry) {
        Some(slots) => Some(BODY + slots as usize * response),
        None => None,
    }
}

/// A journal of responses of `RSP` words.
#[derive(Debug)]
pub struct Journal<J, const RSP: usize> {
    memory: J,
}

impl<J: AsRef<[AtomicU32]>, const RSP: usize> Journal<J, RSP> {
    /// With room for as many responses as a ring has slots.
    pub fn new(memory: J, slots: u32) -> Result<Self, TooSmall> {
        if memory.as_ref().len() < BODY + slots as usize * RSP {
            return Err(TooSmall);
        }
        Ok(Self { memory })
    }

    /// Writes a response down, counted from the first that is not shown.
    pub fn write(&self, nth: u32, response: &[u32; RSP]) {
        for (word, content) in self.body(nth).iter().zip(response) {
            word.store(*content, Ordering::Relaxed);
        }
    }

    /// Reads it back.
    pub fn read(&self, nth: u32) -> [u32; RSP] {
        let body = self.body(nth);
        core::array::from_fn(|nth| body[nth].load(Ordering::Relaxed))
    }

    /// Lets what was written count: so many responses from the ring's index `start` on.
    pub fn commit(&self, start: u32, count: u32) {
        // Release: behind the number that was 0, without which an old number would count from a new start.
        self.word(START).store(start, Ordering::Release);
        // Release: behind the responses and their start.
        self.word(COUNT).store(count, Ordering::Release);
        // The responses in the ring come behind it.
        fence(Ordering::Release);
    }

    /// Lets nothing count. What makes it superfluous is stored already, with a fence behind it: see [`Shared::publish`].
    ///
    /// [`Shared::publish`]: crate::shared::Shared::publish
    pub fn clear(&self) {
        self.word(COUNT).store(0, Ordering::Relaxed);
    }

    /// How many responses count that begin at the ring's index `start`, at most as many as it has slots. The memory may hold anything: what
    /// makes no sense does not count.
    pub fn committed(&self, start: u32, slots: u32) -> u32 {
        let count = self.word(COUNT).load(Ordering::Acquire);
        let counts = count <= slots && self.word(START).load(Ordering::Relaxed) == start;
        if counts { count } else { 0 }
    }

    fn body(&self, nth: u32) -> &[AtomicU32] {
        &self.memory.as_ref()[BODY + nth as usize * RSP..][..RSP]
    }

    fn word(&self, nth: usize) -> &AtomicU32 {
        &self.memory.as_ref()[nth]
    }
}
