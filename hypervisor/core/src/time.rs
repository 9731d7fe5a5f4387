//! Time as guests see it: the scale of their clock, its publication, and the run states of their vCPUs.

use core::sync::atomic::{Ordering, fence};

use oxen_abi::shared_info::time as layout;

use crate::guest_page::GuestPage;

/// How a clock's ticks become nanoseconds: `(ticks << shift) * multiplier >> 32`, a negative shift to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Fraction of 2^32.
    pub multiplier: u32,
    /// Binary places to shift first.
    pub shift: i8,
}

impl Scale {
    /// The scale of a clock of `khz`, with the multiplier normalised to its top bit. `khz` is not 0.
    pub const fn from_khz(khz: u64) -> Self {
        const NANOS: u64 = 1_000_000_000;
        let mut rate = khz * 1000;
        let mut shift = 0;
        while rate > 2 * NANOS {
            rate >>= 1;
            shift -= 1;
        }
        while rate <= NANOS {
            rate <<= 1;
            shift += 1;
        }
        Self {
            multiplier: (((NANOS as u128) << 32) / rate as u128) as u32,
            shift,
        }
    }

    /// Nanoseconds in `ticks`.
    pub const fn nanos(self, ticks: u64) -> u64 {
        let shifted = if self.shift >= 0 {
            ticks << self.shift
        } else {
            ticks >> -self.shift
        };
        ((shifted as u128 * self.multiplier as u128) >> 32) as u64
    }
}

/// What a vCPU's time information says.
#[derive(Clone, Copy, Debug)]
pub struct VcpuTime {
    /// Guest TSC at which `system_time` held.
    pub tsc: u64,
    /// Nanoseconds since the hypervisor's start.
    pub system_time: u64,
    /// TSC to nanoseconds.
    pub scale: Scale,
    /// Whether TSCs agree on all CPUs and never change their rate.
    pub stable: bool,
}

/// Writes a `vcpu_time_info` at `offset`: the version is odd while it changes, so that a reader tries again.
pub fn publish(page: &GuestPage, offset: usize, time: &VcpuTime) {
    let version = page.u32(offset + layout::VERSION);
    let before = version.load(Ordering::Relaxed) & !1;
    version.store(before.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    page.u64(offset + layout::TSC_TIMESTAMP)
        .store(time.tsc, Ordering::Relaxed);
    page.u64(offset + layout::SYSTEM_TIME)
        .store(time.system_time, Ordering::Relaxed);
    page.u32(offset + layout::MULTIPLIER)
        .store(time.scale.multiplier, Ordering::Relaxed);
    page.u8(offset + layout::SHIFT)
        .store(time.scale.shift as u8, Ordering::Relaxed);
    let flags = if time.stable { layout::FLAG_STABLE } else { 0 };
    page.u8(offset + layout::FLAGS)
        .store(flags, Ordering::Relaxed);
    version.store(before.wrapping_add(2), Ordering::Release);
}

/// Writes the wall clock: UTC at system time 0, in nanoseconds since 1970, at `offset` (`wc_version`).
pub fn publish_wallclock(page: &GuestPage, offset: usize, utc_at_zero: u64) {
    const NANOS: u64 = 1_000_000_000;
    let (seconds, nanos) = (utc_at_zero / NANOS, utc_at_zero % NANOS);
    let version = page.u32(offset);
    let before = version.load(Ordering::Relaxed) & !1;
    version.store(before.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    page.u32(offset + 4)
        .store(seconds as u32, Ordering::Relaxed);
    page.u32(offset + 8).store(nanos as u32, Ordering::Relaxed);
    page.u32(offset + 12)
        .store((seconds >> 32) as u32, Ordering::Relaxed);
    version.store(before.wrapping_add(2), Ordering::Release);
}

/// A vCPU's run state, by its number in the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RunstateKind {
    /// It runs.
    Running = 0,
    /// It could run, but another has the CPU.
    Runnable = 1,
    /// It waits for an event.
    Blocked = 2,
    /// It is not started, or stopped.
    Offline = 3,
}

/// Time that a vCPU has spent in each state.
#[derive(Clone, Copy, Debug)]
pub struct Runstate {
    state: RunstateKind,
    entered: u64,
    times: [u64; 4],
}

impl Runstate {
    /// Offline since `now`, in nanoseconds of system time.
    pub const fn new(now: u64) -> Self {
        Self {
            state: RunstateKind::Offline,
            entered: now,
            times: [0; 4],
        }
    }

    /// The state now.
    pub const fn state(&self) -> RunstateKind {
        self.state
    }

    /// Changes the state; returns whether it did change.
    pub fn enter(&mut self, state: RunstateKind, now: u64) -> bool {
        if state == self.state {
            return false;
        }
        let now = now.max(self.entered);
        self.times[self.state as usize] += now - self.entered;
        self.state = state;
        self.entered = now;
        true
    }

    /// The guest's `vcpu_runstate_info` (`public/vcpu.h`).
    pub fn to_bytes(&self) -> [u8; 48] {
        let mut out = [0; 48];
        out[0..4].copy_from_slice(&(self.state as u32).to_le_bytes());
        out[8..16].copy_from_slice(&self.entered.to_le_bytes());
        for (i, time) in self.times.iter().enumerate() {
            out[16 + 8 * i..][..8].copy_from_slice(&time.to_le_bytes());
        }
        out
    }
}

/// Seconds since 1970 of a UTC date and time in the proleptic Gregorian calendar.
pub const fn unix_seconds(
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
) -> u64 {
    // Years from March, so that the leap day is the last of its year.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days_before_year = 365 * y + y / 4 - y / 100 + y / 400;
    let day_of_year = (153 * m + 2) / 5 + day - 1;
    const DAYS_TO_1970: u64 = 719_468;
    (((days_before_year + day_of_year - DAYS_TO_1970) * 24 + hour) * 60 + minute) * 60 + second
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_page::testing::leaked_page;
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

    #[test]
    fn publication_leaves_an_even_version() {
        let page = leaked_page();
        let time = VcpuTime {
            tsc: 1,
            system_time: 2,
            scale: Scale::from_khz(1_000_000),
            stable: true,
        };
        publish(&page, 32, &time);
        publish(&page, 32, &time);
        assert_eq!(page.u32(32).load(Ordering::Relaxed), 4);
        assert_eq!(page.u8(32 + layout::FLAGS).load(Ordering::Relaxed), 1);
    }

    #[test]
    fn states_add_up_to_the_time_passed() {
        let mut runstate = Runstate::new(100);
        assert!(runstate.enter(RunstateKind::Running, 150));
        assert!(!runstate.enter(RunstateKind::Running, 160));
        assert!(runstate.enter(RunstateKind::Blocked, 250));
        assert_eq!(runstate.times, [100, 0, 0, 50]);
        assert_eq!(runstate.times.iter().sum::<u64>() + 100, runstate.entered);
    }

    #[test]
    fn dates_become_unix_time() {
        assert_eq!(unix_seconds(1970, 1, 1, 0, 0, 0), 0);
        assert_eq!(unix_seconds(2000, 2, 29, 12, 0, 0), 951_825_600);
        assert_eq!(unix_seconds(2026, 11, 21, 4, 9, 0), 1_795_234_140);
    }

    proptest! {
        #[test]
        fn a_second_of_ticks_is_a_second(khz in 100_000u64..6_000_000) {
            let nanos = Scale::from_khz(khz).nanos(khz * 1000);
            prop_assert!(nanos.abs_diff(1_000_000_000) <= 4, "{nanos}");
        }
    }
}
