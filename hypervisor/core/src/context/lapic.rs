//! The LAPIC and LAPIC_REGS records (`hvm_hw_lapic`, `hvm_hw_lapic_regs`).

use oxen_abi::Errno;
use oxen_abi::domctl::context as record;

use super::{long, put, word};
use crate::apic::local::{BASE_ADDRESS, register};

/// Bytes of the registers.
pub const REGISTERS: usize = record::LAPIC_REGS_SIZE;

const ENABLED: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
const BOOTSTRAP: u64 = 1 << 8;

/// Reads and checks the record of modes; the APIC base MSR is what counts, the rest follows from the registers.
///
/// # Errors
/// `Inval` for a mode that there is not, or another address.
pub fn read(bytes: &[u8; record::LAPIC_SIZE]) -> Result<u64, Errno> {
    let base = long(bytes, 0);
    let mode = base & (ENABLED | X2APIC);
    if base & !(ENABLED | X2APIC | BOOTSTRAP) == BASE_ADDRESS && mode != X2APIC {
        Ok(base)
    } else {
        Err(Errno::Inval)
    }
}

/// The record for such a base, and the registers that go with it.
pub fn to_record(base: u64, registers: &[u8; REGISTERS]) -> [u8; record::LAPIC_SIZE] {
    const BY_HARDWARE: u32 = 1;
    const BY_SOFTWARE: u32 = 2;
    const SOFTWARE_ENABLE: u32 = 1 << 8;
    let mut disabled = 0;
    if base & ENABLED == 0 {
        disabled |= BY_HARDWARE;
    }
    if word(registers, register::SVR as usize) & SOFTWARE_ENABLE == 0 {
        disabled |= BY_SOFTWARE;
    }
    // Three bits, of which the encoding for "by 1" is the highest (SDM vol. 3, figure 11-10).
    let divide = word(registers, register::TIMER_DIVIDE as usize);
    let power = (divide & 3 | divide >> 1 & 4).wrapping_add(1) & 7;
    let mut bytes = [0; record::LAPIC_SIZE];
    put(&mut bytes, 0, base);
    bytes[8..12].copy_from_slice(&disabled.to_le_bytes());
    bytes[12..16].copy_from_slice(&(1u32 << power).to_le_bytes());
    bytes
}

/// Whether the registers hold what a guest could have brought about.
///
/// # Errors
/// `Inval` if not.
pub fn check_registers(bytes: &[u8; REGISTERS]) -> Result<(), Errno> {
    /// Vectors that no local APIC takes.
    const EXCEPTIONS: u32 = 0xFFFF;
    const LOCAL_VECTOR: u32 = 0x0003_F7FF;
    let at = |offset: u32| word(bytes, offset as usize);
    let local = (register::LVT_TIMER..=register::LVT_ERROR).step_by(0x10);
    let fits = [register::ISR, register::TMR, register::IRR]
        .into_iter()
        .all(|array| at(array) & EXCEPTIONS == 0)
        && at(register::TPR) >> 8 == 0
        && at(register::SVR) & !0x1FF == 0
        && local
            .into_iter()
            .all(|offset| at(offset) & !LOCAL_VECTOR == 0);
    if fits { Ok(()) } else { Err(Errno::Inval) }
}
