//! The local APIC: through its page until [`use_msrs`], then through MSRs.

use crate::cpu::{self, APIC_VECTOR};

const PAGE: usize = 0xFEE0_0000;
const MSR_BASE: u32 = 0x1B;
const MSR_FIRST: u32 = 0x800;

/// Offsets of registers in the page.
pub mod register {
    /// ID.
    pub const ID: usize = 0x20;
    /// End of interrupt.
    pub const EOI: usize = 0xB0;
    /// Spurious vector, and the bit that turns the APIC on.
    pub const SPURIOUS: usize = 0xF0;
    /// Interrupt command, low.
    pub const COMMAND: usize = 0x300;
    /// Initial count of the timer.
    pub const TIMER_COUNT: usize = 0x380;
    /// Current count of the timer.
    pub const TIMER_CURRENT: usize = 0x390;
}

/// Interrupt command: to oneself.
pub const TO_SELF: u32 = 1 << 18;
/// Interrupt command: to all others.
pub const TO_OTHERS: u32 = 3 << 18;
/// Interrupt command: assert.
pub const ASSERT: u32 = 1 << 14;

unsafe extern "C" {
    static mut apic_by_msr: u8;
}

/// Reads a register through the page.
#[inline]
pub fn read(register: usize) -> u32 {
    // SAFETY: the page is identity-mapped, uncached; reading has no effect on memory.
    unsafe { core::ptr::with_exposed_provenance::<u32>(PAGE + register).read_volatile() }
}

/// Writes a register through the page.
#[inline]
pub fn write(register: usize, value: u32) {
    // SAFETY: as for `read`; interrupts asked for have handlers.
    unsafe {
        core::ptr::with_exposed_provenance_mut::<u32>(PAGE + register).write_volatile(value);
    }
}

/// Turns the calling vCPU's APIC on.
pub fn enable() {
    write(register::SPURIOUS, 0x1FF);
}

/// Goes over to x2APIC mode, for good.
pub fn use_msrs() {
    const X2APIC: u64 = 1 << 10;
    cpu::write_msr(MSR_BASE, cpu::read_msr(MSR_BASE) | X2APIC);
    // SAFETY: one vCPU writes it while no interrupt from an APIC is under way.
    unsafe { (&raw mut apic_by_msr).write_volatile(1) };
}

/// Number of a register's MSR.
pub const fn msr(register: usize) -> u32 {
    MSR_FIRST + register as u32 / 16
}

/// The command for an interrupt on [`APIC_VECTOR`] to oneself.
pub const fn self_interrupt() -> u32 {
    TO_SELF | ASSERT | APIC_VECTOR as u32
}
