//! Rings of requests and responses in memory that two domains share (`public/io/ring.h`): both ends, for every kind of PV device.
//!
//! A ring is one or more pages that are contiguous for either side. Four indices that only grow (modulo 2³²) come first, entries
//! from byte 64 on; their number is the largest power of two that fits. A response takes the place of a request that was taken.
//!
//! * [`BackRing`]: takes requests, gives responses;
//! * [`FrontRing`]: the other way round.
//!
//! The peer may write anything anywhere at any time. So the memory is a slice of atomic words: every word is read once, into a copy;
//! the peer's index is checked before use; the own indices are kept outside of the shared memory. A peer that lies gets a [`Fault`], or
//! responses to what it did not ask: it cannot make this end touch anything but the ring, or take more entries than the ring has without
//! being answered in between. Who serves several rings bounds what he takes from one in a turn.
//!
//! A back end may be killed at any time, and another take up its ring: with the journal of the one before it every request is answered
//! once, whatever that one had begun.
//!
//! An end tells its peer only what the peer wants to be told: `publish` says whether to send an event. Before it sleeps an end calls
//! [`BackRing::sleep`] (or [`FrontRing::sleep`]), which asks for an event and tells what came meanwhile.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod back;
mod front;
mod journal;
mod shared;
mod sync;

#[cfg(all(test, feature = "loom"))]
mod all_orders;
#[cfg(all(test, not(feature = "loom")))]
mod kills;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
#[cfg(all(test, not(feature = "loom")))]
mod threads;

use core::fmt;

pub use back::{BackRing, Unasked};
pub use front::{FrontRing, Full};
pub use journal::journal_words;
pub use shared::{TooSmall, slots};

/// The peer's index is further away from ours than the ring allows: nothing that it says can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the peer's index is.
    pub theirs: u32,
    /// What ours is.
    pub ours: u32,
    /// How far apart they may be now.
    pub room: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "the ring index {:#x} is {} ahead of {:#x}, where at most {} are possible",
            self.theirs,
            self.theirs.wrapping_sub(self.ours),
            self.ours,
            self.room
        )
    }
}

impl core::error::Error for Fault {}
