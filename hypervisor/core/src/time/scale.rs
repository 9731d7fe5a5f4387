//! Ticks to nanoseconds and back, by the same truncated fraction that guests are given.

use super::NANOS_PER_SECOND;

/// How a clock's ticks become nanoseconds: `(ticks << shift) * multiplier >> 32`, a negative shift to the right.
///
/// The multiplier is rounded down, so this clock is slower than the real rate by up to 1 part in 2^31. That is 40 µs a
/// day: whoever compares it with a deadline must also convert the deadline by [`Scale::ticks`], never by the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Fraction of 2^32.
    pub multiplier: u32,
    /// Binary places to shift first.
    pub shift: i8,
}

impl Scale {
    /// The scale of a clock of `khz`, with the multiplier normalised to its top bit. 0 is taken as 1 kHz.
    pub const fn from_khz(khz: u64) -> Self {
        let khz = if khz == 0 { 1 } else { khz };
        let mut rate = khz.saturating_mul(1000);
        let mut shift = 0;
        while rate > 2 * NANOS_PER_SECOND {
            rate >>= 1;
            shift -= 1;
        }
        while rate <= NANOS_PER_SECOND {
            rate <<= 1;
            shift += 1;
        }
        Self {
            // The rate is above 10^9, so the quotient is below 2^32.
            multiplier: (((NANOS_PER_SECOND as u128) << 32) / rate as u128) as u32,
            shift,
        }
    }

    /// Nanoseconds in `ticks`, rounded down as guests do; `u64::MAX` where they do not fit.
    #[inline]
    pub const fn nanos(self, ticks: u64) -> u64 {
        let ticks = ticks as u128;
        // At most 64 + 30 bits for any rate from 1 kHz up, and the product is 32 bits wider.
        let shifted = if self.shift >= 0 {
            ticks << (self.shift.unsigned_abs() & 31)
        } else {
            ticks >> (self.shift.unsigned_abs() & 63)
        };
        saturate((shifted * self.multiplier as u128) >> 32)
    }

    /// The first tick count at which [`Scale::nanos`] reaches `nanos`; `u64::MAX` where it does not fit.
    #[inline]
    pub const fn ticks(self, nanos: u64) -> u64 {
        if self.multiplier == 0 {
            return u64::MAX;
        }
        // floor(shifted * multiplier / 2^32) >= nanos  <=>  shifted >= ceil(nanos * 2^32 / multiplier)
        let shifted = ((nanos as u128) << 32).div_ceil(self.multiplier as u128);
        saturate(if self.shift >= 0 {
            shifted.div_ceil(1 << (self.shift.unsigned_abs() & 31))
        } else {
            shifted << (self.shift.unsigned_abs() & 63)
        })
    }
}

/// Ticks of a clock of `khz` in `nanos`, rounded up; `u64::MAX` where they do not fit.
///
/// Whole seconds apart, so that all is divided by constants: this is on the way of each timer.
#[inline]
pub const fn ticks_at_rate(nanos: u64, khz: u64) -> u64 {
    const NANOS_KHZ: u64 = NANOS_PER_SECOND / 1000;
    let (seconds, rest) = (nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND);
    // The product fits for any clock below 18 THz.
    let part = rest.saturating_mul(khz).div_ceil(NANOS_KHZ);
    (seconds * 1000).saturating_mul(khz).saturating_add(part)
}

const fn saturate(value: u128) -> u64 {
    if value > u64::MAX as u128 {
        u64::MAX
    } else {
        value as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_scale_of_2500_mhz_is_the_documented_one() {
        assert_eq!(
            Scale::from_khz(2_500_000),
            Scale {
                multiplier: 0xCCCC_CCCC,
                shift: -1
            }
        );
    }

    proptest! {
        #[test]
        fn ticks_at_a_rate_are_rounded_up(nanos in any::<u64>(), khz in 1u64..20_000_000) {
            let exact = (u128::from(nanos) * u128::from(khz)).div_ceil(1_000_000);
            prop_assert_eq!(ticks_at_rate(nanos, khz), u64::try_from(exact).unwrap_or(u64::MAX));
        }
    }

    #[test]
    fn no_rate_is_too_low_or_too_high() {
        assert_eq!(Scale::from_khz(0), Scale::from_khz(1));
        assert!(Scale::from_khz(u64::MAX).multiplier >= 1 << 31);
    }

    #[test]
    fn what_does_not_fit_is_the_largest_value() {
        assert_eq!(Scale::from_khz(1).nanos(u64::MAX), u64::MAX);
        assert_eq!(Scale::from_khz(5_000_000).ticks(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_deadline_after_a_year_of_uptime_has_come_when_its_tick_has() {
        let year = 365 * 86_400 * NANOS_PER_SECOND;
        let scale = Scale::from_khz(2_899_886);
        let tick = scale.ticks(year);
        assert!(scale.nanos(tick) >= year && scale.nanos(tick - 1) < year + 1);
        // The same deadline by the rate alone comes milliseconds too early.
        let by_rate = (u128::from(year) * 2_899_886 / 1_000_000) as u64;
        assert!(scale.nanos(by_rate) + 1_000_000 < year);
    }

    /// The formula of `public/xen.h`, in a guest's 64-bit arithmetic.
    fn as_a_guest_computes(scale: Scale, delta: u64) -> u64 {
        let delta = if scale.shift < 0 {
            delta >> -i32::from(scale.shift)
        } else {
            delta << scale.shift
        };
        ((u128::from(delta) * u128::from(scale.multiplier)) >> 32) as u64
    }

    proptest! {
        #[test]
        fn a_second_of_ticks_is_a_second(khz in 1_000u64..10_000_000) {
            let nanos = Scale::from_khz(khz).nanos(khz * 1000);
            prop_assert!(nanos.abs_diff(NANOS_PER_SECOND) <= 4, "{nanos}");
        }

        #[test]
        fn guests_and_we_agree(khz in 1_000u64..10_000_000, delta in 0u64..1 << 53) {
            let scale = Scale::from_khz(khz);
            prop_assert_eq!(scale.nanos(delta), as_a_guest_computes(scale, delta));
        }

        #[test]
        fn a_deadlines_tick_is_the_first_that_reaches_it(khz in 1_000u64..10_000_000, nanos in 1u64..1 << 60) {
            let scale = Scale::from_khz(khz);
            let tick = scale.ticks(nanos);
            prop_assert!(scale.nanos(tick) >= nanos);
            // A right shift makes readings advance by several ticks at a time.
            let step = if scale.shift < 0 { 1u64 << -scale.shift } else { 1 };
            prop_assert!(tick < step || scale.nanos(tick - step) < nanos);
            prop_assert!(tick == 0 || scale.nanos(tick - 1) < nanos);
        }

        #[test]
        fn time_never_goes_back(khz in 1u64..10_000_000, ticks: u64, more: u64) {
            let scale = Scale::from_khz(khz);
            prop_assert!(scale.nanos(ticks) <= scale.nanos(ticks.saturating_add(more)));
            prop_assert!(scale.ticks(ticks) <= scale.ticks(ticks.saturating_add(more)));
        }
    }
}
