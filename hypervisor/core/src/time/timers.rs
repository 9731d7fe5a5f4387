//! What is due when: the timers of one CPU.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// Timers, each with a moment, a name and what it is for. A moment may be in any unit that all of them share.
///
/// Setting one never allocates: room for as many as there can be is made in advance.
#[derive(Debug)]
pub struct Timers<K, T>(Vec<(u64, K, T)>);

impl<K: Copy + Ord, T> Timers<K, T> {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes room for `timers` in all.
    ///
    /// # Errors
    /// No memory.
    pub fn reserve(&mut self, timers: usize) -> Result<(), TryReserveError> {
        self.0.try_reserve(timers.saturating_sub(self.0.len()))
    }

    /// Adds a timer.
    pub fn set(&mut self, at: u64, key: K, what: T) {
        let place = self.place(at, key).unwrap_or_else(|place| place);
        self.0.insert(place, (at, key, what));
    }

    /// Takes a timer away; `None` if it has fired, or was never set.
    pub fn remove(&mut self, at: u64, key: K) -> Option<T> {
        let place = self.place(at, key).ok()?;
        Some(self.0.remove(place).2)
    }

    /// The earliest moment.
    pub fn first(&self) -> Option<u64> {
        self.0.last().map(|(at, ..)| *at)
    }

    /// Takes the earliest timer out if its moment has come.
    pub fn take_due(&mut self, now: u64) -> Option<T> {
        self.first().filter(|&at| at <= now)?;
        self.0.pop().map(|(.., what)| what)
    }

    /// The latest come first, so that the earliest is taken from the end.
    fn place(&self, at: u64, key: K) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(other, name, _)| (at, key).cmp(&(*other, *name)))
    }
}

impl<K: Copy + Ord, T> Default for Timers<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn timers_fire_in_order_unless_taken_away(
            timers in proptest::collection::btree_set((0u64..50, 0u8..8), 0..40),
            removed in proptest::collection::vec((0u64..50, 0u8..8), 0..20),
        ) {
            let mut queue = Timers::new();
            queue.reserve(timers.len()).expect("memory");
            for &(at, key) in &timers {
                queue.set(at, key, (at, key));
            }
            let mut left: BTreeSet<_> = timers;
            for (at, key) in removed {
                let was_there = left.remove(&(at, key));
                prop_assert_eq!(queue.remove(at, key).is_some(), was_there);
            }
            for now in 0..50 {
                while let Some((at, key)) = queue.take_due(now) {
                    prop_assert!(at <= now && left.remove(&(at, key)));
                }
                prop_assert_eq!(queue.first(), left.first().map(|(at, _)| *at));
                prop_assert!(left.first().is_none_or(|(at, _)| *at > now));
            }
            prop_assert!(left.is_empty());
        }
    }
}
