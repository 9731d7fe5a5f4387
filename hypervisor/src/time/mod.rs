//! Host time: the TSC, its calibrated rate, and nanoseconds since the hypervisor's start.

use core::sync::atomic::{AtomicU64, Ordering};

use oxen_core::time::{NANOS_PER_SECOND, Scale, VcpuTime, ticks_at_rate};

use crate::cpu::features;
use crate::platform::pm_timer;

mod pit;
mod rtc;

static UTC_AT_ZERO: AtomicU64 = AtomicU64::new(0);

/// TSC value when the loader entered the hypervisor.
static ENTRY_TICKS: AtomicU64 = AtomicU64::new(0);
static KHZ: AtomicU64 = AtomicU64::new(1);
static BOOT_TICKS: AtomicU64 = AtomicU64::new(0);
/// The scale's multiplier and shift, packed: guests and the hypervisor compute time the same way.
static SCALE: AtomicU64 = AtomicU64::new(0);

/// The TSC now.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: RDTSC only reads the counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Remembers the TSC value at the hypervisor's first instructions.
pub fn set_entry_ticks(ticks: u64) {
    ENTRY_TICKS.store(ticks, Ordering::Relaxed);
}

/// TSC value at the hypervisor's first instructions.
pub fn entry_ticks() -> u64 {
    ENTRY_TICKS.load(Ordering::Relaxed)
}

/// Measures the TSC against the ACPI PM timer, or against the PIT where there is none.
pub fn calibrate() {
    let khz = pm_timer::measure_tsc_khz()
        .unwrap_or_else(pit::measure_tsc_khz)
        .max(1);
    KHZ.store(khz, Ordering::Relaxed);
    let scale = Scale::from_khz(khz);
    SCALE.store(
        u64::from(scale.multiplier) << 8 | u64::from(scale.shift as u8),
        Ordering::Relaxed,
    );
    BOOT_TICKS.store(ticks(), Ordering::Relaxed);
}

/// The TSC's rate in kHz.
pub fn khz() -> u64 {
    KHZ.load(Ordering::Relaxed)
}

/// TSC value at which system time was 0.
pub fn boot_ticks() -> u64 {
    BOOT_TICKS.load(Ordering::Relaxed)
}

/// System time in nanoseconds at TSC value `at`.
pub fn nanos_at(at: u64) -> u64 {
    scale().nanos(at.saturating_sub(boot_ticks()))
}

/// System time now, in nanoseconds.
pub fn nanos() -> u64 {
    nanos_at(ticks())
}

/// TSC value at which system time reaches `nanos`, rounded up so that the time has really come.
pub fn ticks_at(nanos: u64) -> u64 {
    boot_ticks()
        .saturating_add(ticks_at_rate(nanos, khz()))
        .saturating_add(1)
}

/// Ticks in `millis` milliseconds.
pub fn ticks_in_millis(millis: u64) -> u64 {
    khz() * millis
}

/// How guests turn the TSC into nanoseconds.
pub fn scale() -> Scale {
    let packed = SCALE.load(Ordering::Relaxed);
    Scale {
        multiplier: (packed >> 8) as u32,
        shift: packed as u8 as i8,
    }
}

/// What a vCPU's time information says now.
pub fn vcpu_time() -> VcpuTime {
    // One and the same pair for everyone, so that readings agree on all CPUs.
    VcpuTime {
        tsc: boot_ticks(),
        system_time: 0,
        scale: scale(),
        stable: features::invariant_tsc(),
    }
}

/// Reads the wall clock once.
pub fn read_wall_clock() {
    let utc = rtc::unix_seconds() * NANOS_PER_SECOND;
    set_utc_at_zero(utc.saturating_sub(nanos()));
}

/// UTC at system time 0, in nanoseconds since 1970.
pub fn utc_at_zero() -> u64 {
    UTC_AT_ZERO.load(Ordering::Relaxed)
}

/// Corrects the wall clock.
pub fn set_utc_at_zero(nanos: u64) {
    UTC_AT_ZERO.store(nanos, Ordering::Relaxed);
}

/// How long a call may go on before others have a turn: long work is done in stretches of about half a millisecond.
pub struct Stretch(u64);

impl Stretch {
    /// One that begins now.
    pub fn begin() -> Self {
        const MICROSECONDS: u64 = 500;
        Self(ticks() + khz() * MICROSECONDS / 1000)
    }

    /// Whether it has been long enough.
    pub fn is_over(&self) -> bool {
        ticks() > self.0
    }
}

/// Busy-waits; for hardware that must be given time during boot.
pub fn wait_micros(micros: u64) {
    let end = ticks() + khz() * micros / 1000 + 1;
    while ticks() < end {
        core::hint::spin_loop();
    }
}
