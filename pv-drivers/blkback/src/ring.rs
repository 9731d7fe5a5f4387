//! A guest's ring, in the layout that it uses.

use std::sync::atomic::AtomicU32;

use oxen_blkif::{
    Abi, REQUEST_WORDS_32, REQUEST_WORDS_64, RESPONSE_WORDS_32, RESPONSE_WORDS_64, Request,
    Response, Wrong,
};
use oxen_ring::{BackRing, Fault, TooSmall, Unasked, journal_words};
use oxen_xen::PAGE_SIZE;

/// Segments of an indirect request at most: 1 MiB of data.
pub const MOST_INDIRECT: u16 = 256;

/// The serving end of a ring.
#[derive(Debug)]
pub enum DiskRing<M, J> {
    /// Of a 64-bit guest.
    Long(BackRing<M, J, REQUEST_WORDS_64, RESPONSE_WORDS_64>),
    /// Of a 32-bit guest.
    Short(BackRing<M, J, REQUEST_WORDS_32, RESPONSE_WORDS_32>),
}

/// Words of the journal of a ring of so many pages; none if there are no pages.
pub const fn journal(abi: Abi, pages: usize) -> Option<usize> {
    let (request, response) = match abi {
        Abi::X86_64 => (REQUEST_WORDS_64, RESPONSE_WORDS_64),
        Abi::X86_32 => (REQUEST_WORDS_32, RESPONSE_WORDS_32),
    };
    journal_words(pages * (PAGE_SIZE / 4), request, response)
}

impl<M: AsRef<[AtomicU32]>, J: AsRef<[AtomicU32]>> DiskRing<M, J> {
    /// Takes up a ring at its last response, with its [`journal`].
    ///
    /// # Errors
    /// One of the two is too small.
    pub fn attach(abi: Abi, memory: M, journal: J) -> Result<Self, TooSmall> {
        Ok(match abi {
            Abi::X86_64 => Self::Long(BackRing::attach(memory, journal)?),
            Abi::X86_32 => Self::Short(BackRing::attach(memory, journal)?),
        })
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    /// The guest's index is out of reach.
    pub fn take(&mut self) -> Result<Option<Result<Request, Wrong>>, Fault> {
        Ok(match self {
            Self::Long(ring) => ring
                .take()?
                .map(|entry| Abi::X86_64.parse(&entry, MOST_INDIRECT)),
            Self::Short(ring) => ring
                .take()?
                .map(|entry| Abi::X86_32.parse(&entry, MOST_INDIRECT)),
        })
    }

    /// Writes a response.
    ///
    /// # Errors
    /// All that was asked is answered.
    pub fn respond(&mut self, response: &Response) -> Result<(), Unasked> {
        match self {
            Self::Long(ring) => ring.respond(&Abi::X86_64.answer(response)),
            Self::Short(ring) => {
                let [first, second, third, _] = Abi::X86_32.answer(response);
                ring.respond(&[first, second, third])
            }
        }
    }

    /// Shows the responses to the guest. True: send it an event.
    #[must_use = "the guest may wait for an event"]
    pub fn publish(&mut self) -> bool {
        match self {
            Self::Long(ring) => ring.publish(),
            Self::Short(ring) => ring.publish(),
        }
    }

    /// Whether there is a request, without asking for an event.
    pub fn stirs(&self) -> bool {
        match self {
            Self::Long(ring) => ring.stirs(),
            Self::Short(ring) => ring.stirs(),
        }
    }

    /// Asks for no event until [`Self::sleep`].
    pub fn stay_awake(&self) {
        match self {
            Self::Long(ring) => ring.stay_awake(),
            Self::Short(ring) => ring.stay_awake(),
        }
    }

    /// Asks for an event at the next request. True: there is one already.
    ///
    /// # Errors
    /// The guest's index is out of reach.
    pub fn sleep(&mut self) -> Result<bool, Fault> {
        match self {
            Self::Long(ring) => ring.sleep(),
            Self::Short(ring) => ring.sleep(),
        }
    }

    /// Entries of the ring.
    pub const fn slots(&self) -> u32 {
        match self {
            Self::Long(ring) => ring.slots(),
            Self::Short(ring) => ring.slots(),
        }
    }
}
