//! Clocks in pages that guests read, by the version protocol of `public/xen.h`.
//!
//! The version is odd while the fields change, and readers try again. One writer at a time: callers see to that.

use crate::sync::atomic::{AtomicU32, Ordering, fence};

use oxen_abi::shared_info::time as layout;

use super::{NANOS_PER_SECOND, Scale};
use crate::guest_page::GuestPage;

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

impl VcpuTime {
    /// The whole `vcpu_time_info`, for a place that nobody reads yet.
    pub fn to_bytes(&self) -> [u8; layout::SIZE] {
        const EVEN_VERSION: u32 = 2;
        let mut bytes = [0; layout::SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(layout::VERSION, &EVEN_VERSION.to_le_bytes());
        put(layout::TSC_TIMESTAMP, &self.tsc.to_le_bytes());
        put(layout::SYSTEM_TIME, &self.system_time.to_le_bytes());
        put(layout::MULTIPLIER, &self.scale.multiplier.to_le_bytes());
        put(layout::SHIFT, &self.scale.shift.to_le_bytes());
        put(layout::FLAGS, &[self.flags()]);
        bytes
    }

    const fn flags(&self) -> u8 {
        if self.stable { layout::FLAG_STABLE } else { 0 }
    }
}

/// Writes a `vcpu_time_info` at `offset`.
pub fn publish(page: &GuestPage, offset: usize, time: &VcpuTime) {
    versioned(page.u32(offset + layout::VERSION), || {
        page.u64(offset + layout::TSC_TIMESTAMP)
            .store(time.tsc, Ordering::Relaxed);
        page.u64(offset + layout::SYSTEM_TIME)
            .store(time.system_time, Ordering::Relaxed);
        page.u32(offset + layout::MULTIPLIER)
            .store(time.scale.multiplier, Ordering::Relaxed);
        page.u8(offset + layout::SHIFT)
            .store(time.scale.shift.cast_unsigned(), Ordering::Relaxed);
        page.u8(offset + layout::FLAGS)
            .store(time.flags(), Ordering::Relaxed);
    });
}

/// Writes the wall clock: UTC at system time 0, in nanoseconds since 1970, at `offset` (`wc_version`), the upper half of the seconds
/// at `high`.
pub fn publish_wallclock(page: &GuestPage, offset: usize, high: usize, utc_at_zero: u64) {
    let (seconds, nanos) = (
        utc_at_zero / NANOS_PER_SECOND,
        utc_at_zero % NANOS_PER_SECOND,
    );
    versioned(page.u32(offset), || {
        page.u32(offset + 4)
            .store(seconds as u32, Ordering::Relaxed);
        page.u32(offset + 8).store(nanos as u32, Ordering::Relaxed);
        page.u32(high)
            .store((seconds >> 32) as u32, Ordering::Relaxed);
    });
}

/// Writes fields between two changes of their version. A guest that spoils the version spoils only its own reading.
fn versioned(version: &AtomicU32, fields: impl FnOnce()) {
    let before = version.load(Ordering::Relaxed) & !1;
    version.store(before.wrapping_add(1), Ordering::Relaxed);
    // No field may be seen to change before the version is seen odd.
    fence(Ordering::Release);
    fields();
    version.store(before.wrapping_add(2), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_page::testing::leaked_page;
    use std::sync::atomic::AtomicBool;

    fn time(system_time: u64) -> VcpuTime {
        VcpuTime {
            tsc: system_time.wrapping_mul(3),
            system_time,
            scale: Scale::from_khz(1_000_000),
            stable: true,
        }
    }

    #[test]
    fn publication_leaves_an_even_version_and_the_documented_layout() {
        let page = leaked_page();
        publish(&page, 32, &time(2));
        publish(&page, 32, &time(7));
        let mut bytes = [0; 32];
        page.read(32, &mut bytes);
        let mut expected = [0; 32];
        expected[0] = 4;
        expected[8] = 21;
        expected[16] = 7;
        expected[24..28].copy_from_slice(&(1u32 << 31).to_le_bytes());
        expected[28] = 1;
        expected[29] = 1;
        assert_eq!(bytes, expected);
        expected[0] = 2;
        assert_eq!(time(7).to_bytes(), expected);
    }

    #[test]
    fn the_wall_clock_keeps_seconds_past_2106() {
        let page = leaked_page();
        publish_wallclock(&page, 3072, 3084, (1 << 33) * NANOS_PER_SECOND + 5);
        let words = [0, 4, 8, 12].map(|at| page.u32(3072 + at).load(Ordering::Relaxed));
        assert_eq!(words, [2, 0, 5, 2]);
    }

    #[test]
    fn a_version_that_the_guest_left_odd_ends_even() {
        let page = leaked_page();
        page.u32(0).store(u32::MAX, Ordering::Relaxed);
        publish(&page, 0, &time(1));
        assert_eq!(page.u32(0).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reader_never_sees_half_of_a_change() {
        const ROUNDS: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let page = leaked_page();
        publish(&page, 0, &time(1));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..ROUNDS).for_each(|round| publish(&page, 0, &time(round)));
                done.store(true, Ordering::Release);
            });
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let before = page.u32(0).load(Ordering::Acquire);
                let tsc = page.u64(8).load(Ordering::Relaxed);
                let system_time = page.u64(16).load(Ordering::Relaxed);
                fence(Ordering::Acquire);
                if before & 1 == 0 && page.u32(0).load(Ordering::Relaxed) == before {
                    assert_eq!(tsc, system_time.wrapping_mul(3));
                    assert!(system_time >= last);
                    last = system_time;
                }
            }
        });
    }
}

#[cfg(all(test, feature = "loom"))]
mod all_orders {
    use loom::thread;

    use super::*;
    use crate::guest_page::testing::leaked_page;
    use crate::sync::all_orders::model;

    /// A guest's reading of a wall clock: seconds and nanoseconds, if it got them whole.
    fn read(page: &GuestPage) -> Option<(u32, u32)> {
        let before = page.u32(0).load(Ordering::Acquire);
        let time = (
            page.u32(4).load(Ordering::Relaxed),
            page.u32(8).load(Ordering::Relaxed),
        );
        fence(Ordering::Acquire);
        let after = page.u32(0).load(Ordering::Relaxed);
        (before & 1 == 0 && before == after).then_some(time)
    }

    #[test]
    fn a_reader_never_sees_half_of_a_change() {
        model(3, || {
            let page = leaked_page();
            publish_wallclock(&page, 0, 12, NANOS_PER_SECOND + 1);
            let reader = thread::spawn(move || read(&page));
            publish_wallclock(&page, 0, 12, 2 * NANOS_PER_SECOND + 2);
            let seen = reader.join().expect("it ends");
            assert!(
                [None, Some((1, 1)), Some((2, 2))].contains(&seen),
                "{seen:?}"
            );
            assert_eq!(read(&page), Some((2, 2)));
        });
    }
}
