//! The 8254 interval timer's channel 2, as a clock to measure the TSC with where there is no ACPI PM timer.

use x86_64::instructions::port::Port;

/// Input clock in Hz.
const RATE: u64 = 1_193_182;
/// Counts to wait: about 50 ms.
const COUNTS: u16 = 59_659;

/// TSC ticks in a millisecond.
pub fn measure_tsc_khz() -> u64 {
    let (mut command, mut data, mut gate) = (
        Port::<u8>::new(0x43),
        Port::<u8>::new(0x42),
        Port::<u8>::new(0x61),
    );
    // SAFETY: channel 2 drives only the speaker, which is off; mode 0 raises OUT (port 0x61 bit 5) at the end of the count.
    unsafe {
        let saved = gate.read();
        gate.write(saved & !0b10 | 0b01);
        command.write(0b1011_0000);
        data.write(COUNTS as u8);
        data.write((COUNTS >> 8) as u8);
        let start = super::ticks();
        while gate.read() & 0b10_0000 == 0 {
            core::hint::spin_loop();
        }
        let ticks = super::ticks() - start;
        gate.write(saved);
        ticks * RATE / u64::from(COUNTS) / 1000
    }
}
