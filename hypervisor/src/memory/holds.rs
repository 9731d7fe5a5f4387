//! How often a frame of a domain's is in use by others: mapped or copied. One that is must not be given back.
//!
//! A count begins with the owner's guest-physical map locked, after a look at whether the frame is still the owner's; whoever
//! gives frames back looks at their counts with the same lock. Counts end without any lock.

use core::sync::atomic::{AtomicU32, Ordering};

use oxen_core::address::Mfn;
use spin::Once;

static COUNTS: Once<&'static [AtomicU32]> = Once::new();

/// Starts with no frame in use.
pub fn init(counts: &'static [AtomicU32]) {
    COUNTS.call_once(|| counts);
}

/// One more use of a frame.
pub fn hold(frame: Mfn) {
    if let Some(count) = count(frame) {
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// One less; true if it was the last.
pub fn let_go(frame: Mfn) -> bool {
    count(frame).is_some_and(|count| count.fetch_sub(1, Ordering::SeqCst) == 1)
}

/// How many of the `frames` from `first` on come before the first one in use, if one is.
pub fn first_held(first: Mfn, frames: u64) -> Option<u64> {
    (0..frames)
        .find(|&index| count(first + index).is_some_and(|count| count.load(Ordering::SeqCst) != 0))
}

/// Whether a frame is in use.
pub fn is_held(frame: Mfn) -> bool {
    first_held(frame, 1).is_some()
}

fn count(frame: Mfn) -> Option<&'static AtomicU32> {
    COUNTS.get()?.get(usize::try_from(frame.0).ok()?)
}
