//! The ACPI power-management timer: 3.579545 MHz, 24 or 32 bits (ACPI 4.8.3.3).

use core::sync::atomic::{AtomicU32, Ordering};

use x86_64::instructions::port::Port;

use crate::time;

/// Rate in Hz.
const RATE: u64 = 3_579_545;
/// Counts to wait: about 20 ms, so that reading the port costs nothing against it.
const COUNTS: u32 = 71_591;
/// The counter's width that every implementation has.
const MASK: u32 = 0x00FF_FFFF;

static PORT: AtomicU32 = AtomicU32::new(0);

/// Remembers the port that the FADT names.
pub fn set_port(port: u16) {
    PORT.store(port.into(), Ordering::Relaxed);
}

/// The port, if there is one.
pub fn port() -> Option<u16> {
    u16::try_from(PORT.load(Ordering::Relaxed))
        .ok()
        .filter(|&port| port != 0)
}

/// TSC ticks in a millisecond; `None` without a timer that counts.
pub fn measure_tsc_khz() -> Option<u64> {
    const PATIENCE: u32 = 10_000_000;
    let mut port = Port::<u32>::new(port()?);
    // SAFETY: reading the timer has no side effect.
    let mut read = || unsafe { port.read() } & MASK;
    let start = read();
    let start_ticks = time::ticks();
    for _ in 0..PATIENCE {
        let passed = read().wrapping_sub(start) & MASK;
        if passed >= COUNTS {
            let ticks = time::ticks() - start_ticks;
            return Some(ticks * RATE / u64::from(passed) / 1000);
        }
    }
    None
}
