//! Virtual time: running time divided by weight.
//!
//! In nanoseconds at the default weight. It wraps (a vCPU of weight 1 would overflow it in some two years), so moments
//! are compared by their difference and never as numbers.

use core::sync::atomic::{AtomicU64, Ordering};

use super::DEFAULT_WEIGHT;

/// Whether `a` is earlier than `b`.
pub fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// The later of two moments.
pub fn later(a: u64, b: u64) -> u64 {
    if before(a, b) { b } else { a }
}

/// The earlier of two moments.
pub fn earlier(a: u64, b: u64) -> u64 {
    if before(a, b) { a } else { b }
}

/// Virtual time that running for `nanos` takes at `weight`.
pub fn scaled(nanos: u64, weight: u16) -> u64 {
    nanos.saturating_mul(DEFAULT_WEIGHT.into()) / u64::from(weight.max(1))
}

/// Running time after which a vCPU of `weight` has advanced by `virtual_nanos`, rounded up.
pub fn unscaled(virtual_nanos: u64, weight: u16) -> u64 {
    virtual_nanos
        .saturating_mul(weight.into())
        .div_ceil(DEFAULT_WEIGHT.into())
}

/// A clock that each vCPU carries; remainders are kept, so that many short runs cost what a long one does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// The moment.
    pub now: u64,
    remainder: u64,
}

impl Clock {
    pub fn at(now: u64) -> Self {
        Self { now, remainder: 0 }
    }

    /// Charges `nanos` of running at `weight`.
    pub fn advance(&mut self, nanos: u64, weight: u16) {
        let weight = u64::from(weight.max(1));
        let total = nanos
            .saturating_mul(DEFAULT_WEIGHT.into())
            .saturating_add(self.remainder.min(weight - 1));
        self.now = self.now.wrapping_add(total / weight);
        self.remainder = total % weight;
    }
}

/// A moment that only advances, shared by all CPUs.
pub struct Front(AtomicU64);

impl Front {
    pub const fn new(at: u64) -> Self {
        Self(AtomicU64::new(at))
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Advances it to `to` unless it is there; returns where it is.
    pub fn advance(&self, to: u64) -> u64 {
        let mut seen = self.get();
        while before(seen, to) {
            match self
                .0
                .compare_exchange_weak(seen, to, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return to,
                Err(now) => seen = now,
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_compare_across_the_wrap() {
        assert!(before(u64::MAX - 5, 3));
        assert_eq!(later(u64::MAX, 1), 1);
        assert_eq!(earlier(u64::MAX, 1), u64::MAX);
        let front = Front::new(u64::MAX - 1);
        assert_eq!(front.advance(2), 2);
        assert_eq!(front.advance(u64::MAX), 2);
    }

    proptest! {
        #[test]
        fn short_runs_cost_what_a_long_one_does(weight in 1u16.., runs in proptest::collection::vec(0u64..1_000_000, 0..200)) {
            let mut clock = Clock::default();
            for &run in &runs {
                clock.advance(run, weight);
            }
            prop_assert_eq!(clock.now, scaled(runs.iter().sum(), weight));
        }

        #[test]
        fn unscaled_is_long_enough(virtual_nanos in 0u64..1 << 40, weight in 1u16..) {
            prop_assert!(scaled(unscaled(virtual_nanos, weight), weight) + 1 >= virtual_nanos);
        }
    }
}
