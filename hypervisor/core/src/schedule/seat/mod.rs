//! Where a vCPU's state is: here, or with the one CPU that has taken it.
//!
//! A CPU takes the state, and puts it back once all of it is saved. It may keep the state while it has nothing else to do, so
//! whoever else wants it makes that very CPU look. A wish is for the CPU that has the state at that moment, which is why
//! both change with one lock held: one that went to the CPU before it would let the next, which idles, sleep on, and nobody
//! would wish again.

#[cfg(all(test, feature = "loom"))]
mod all_orders;

use crate::id::CpuId;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// A vCPU's seat, with a state of type `T`.
pub struct Seat<T> {
    place: Mutex<Place<T>>,
    /// Somebody waits for the state, and the CPU that has it was made to look. Changes with `place` locked only.
    wanted: AtomicBool,
    /// A CPU has the state. Changes with `place` locked only. Whoever waits looks at this: by taking the lock again and again it
    /// would keep out the very CPU that is to put the state back.
    away: AtomicBool,
    /// The vCPU ends: nobody takes it any more.
    closed: AtomicBool,
}

/// Where the state is.
enum Place<T> {
    /// Nowhere: it was not made yet, or has been withdrawn.
    Nowhere,
    /// In the seat.
    Here(T),
    /// With a CPU.
    With(CpuId),
}

/// What comes of asking for the state.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<T> {
    /// This is it.
    Taken(T),
    /// A CPU has it and gives it up soon: try again. It must be made to look, if it is named.
    Elsewhere(Option<CpuId>),
    /// It is not to be had any more.
    Gone,
}

impl<T> Seat<T> {
    /// One for a vCPU that is yet to be made.
    pub fn new() -> Self {
        Self {
            place: Mutex::new(Place::Nowhere),
            wanted: AtomicBool::new(false),
            away: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The vCPU has been made.
    pub fn fill(&self, state: T) {
        *self.place.lock() = Place::Here(state);
    }

    /// Takes the state for `cpu`, which has none.
    pub fn take(&self, cpu: CpuId) -> Asked<T> {
        if self.closed.load(Ordering::Acquire) {
            return Asked::Gone;
        }
        self.ask(Place::With(cpu))
    }

    /// Puts the saved state back; called by the CPU that has it.
    pub fn put_back(&self, state: T) {
        let mut place = self.place.lock();
        *place = Place::Here(state);
        self.away.store(false, Ordering::Release);
    }

    /// Whether one that was told to try again would be told the same: the CPU that was made to look has not put the state
    /// back, nor has another taken it since.
    pub fn is_awaited(&self) -> bool {
        self.away.load(Ordering::Acquire) && self.wanted.load(Ordering::Acquire)
    }

    /// Whether the CPU that has the state, the calling one, is to put it back.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Nobody takes the state from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Takes the state of a closed seat for good.
    pub fn withdraw(&self) -> Asked<T> {
        self.ask(Place::Nowhere)
    }

    /// Whether there is a state anywhere.
    pub fn exists(&self) -> bool {
        !matches!(*self.place.lock(), Place::Nowhere)
    }

    fn ask(&self, next: Place<T>) -> Asked<T> {
        let mut place = self.place.lock();
        if let Place::With(cpu) = *place {
            let first = !self.wanted.swap(true, Ordering::AcqRel);
            return Asked::Elsewhere(first.then_some(cpu));
        }
        let taken = matches!(next, Place::With(_));
        match core::mem::replace(&mut *place, next) {
            Place::Here(state) => {
                self.away.store(taken, Ordering::Release);
                // Whoever wished for it before wished for it from another.
                self.wanted.store(false, Ordering::Release);
                Asked::Taken(state)
            }
            gone => {
                *place = gone;
                Asked::Gone
            }
        }
    }
}

impl<T> Default for Seat<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    const FIRST: CpuId = CpuId(0);
    const SECOND: CpuId = CpuId(1);

    #[test]
    fn the_cpu_that_has_the_state_is_asked_once() {
        let seat = Seat::new();
        assert_eq!(seat.take(FIRST), Asked::Gone);
        seat.fill('s');
        assert_eq!(seat.take(FIRST), Asked::Taken('s'));
        assert!(!seat.is_wanted());
        assert_eq!(seat.take(SECOND), Asked::Elsewhere(Some(FIRST)));
        assert_eq!(seat.take(SECOND), Asked::Elsewhere(None));
        assert!(seat.is_wanted());
        seat.put_back('s');
        assert_eq!(seat.take(SECOND), Asked::Taken('s'));
        // The next one is asked anew.
        assert!(!seat.is_wanted());
        assert!(!seat.is_awaited());
        assert_eq!(seat.take(FIRST), Asked::Elsewhere(Some(SECOND)));
    }

    #[test]
    fn who_waits_asks_again_when_the_state_is_back_or_with_another() {
        let seat = Seat::new();
        seat.fill('s');
        assert!(!seat.is_awaited());
        assert_eq!(seat.take(FIRST), Asked::Taken('s'));
        assert!(!seat.is_awaited());
        assert_eq!(seat.take(SECOND), Asked::Elsewhere(Some(FIRST)));
        assert!(seat.is_awaited());
        seat.put_back('s');
        assert!(!seat.is_awaited());
        assert_eq!(seat.take(FIRST), Asked::Taken('s'));
        assert!(!seat.is_awaited());
        seat.close();
        assert_eq!(seat.withdraw(), Asked::Elsewhere(Some(FIRST)));
        assert!(seat.is_awaited());
        seat.put_back('s');
        assert_eq!(seat.withdraw(), Asked::Taken('s'));
        assert!(!seat.is_awaited());
    }

    #[test]
    fn a_closed_seat_is_emptied_once_and_for_good() {
        let seat = Seat::new();
        seat.fill('s');
        assert_eq!(seat.take(FIRST), Asked::Taken('s'));
        seat.close();
        assert_eq!(seat.take(SECOND), Asked::Gone);
        assert_eq!(seat.withdraw(), Asked::Elsewhere(Some(FIRST)));
        assert!(seat.exists());
        seat.put_back('s');
        assert_eq!(seat.take(SECOND), Asked::Gone);
        assert_eq!(seat.withdraw(), Asked::Taken('s'));
        assert!(!seat.exists());
        assert_eq!(seat.withdraw(), Asked::Gone);
    }
}
