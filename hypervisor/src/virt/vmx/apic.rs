//! APIC virtualization: the CPU reads and writes the local APIC's registers in its page, and delivers its interrupts (SDM
//! vol. 3, chapter 30).

use oxen_core::address::GuestPhys;
use oxen_core::apic::local::{BASE_ADDRESS, Mode, register};

use super::capabilities::Capabilities;
use super::fields::Field;
use super::vcpu::VmxVcpu;
use super::{msr, vmcs};
use crate::virt::{Exit, Gprs, NestedFault, Vcpu};

/// First x2APIC MSR.
const FIRST_MSR: u32 = 0x800;

/// Registers whose MSRs are read from the page. The timer's current count is computed, and the interrupt command has
/// another layout there than in the page.
const READ: [u32; 15] = [
    register::ID,
    register::VERSION,
    register::TPR,
    register::PPR,
    register::LDR,
    register::SVR,
    register::ESR,
    register::LVT_TIMER,
    register::LVT_THERMAL,
    register::LVT_PERFORMANCE,
    register::LVT_LINT0,
    register::LVT_LINT1,
    register::LVT_ERROR,
    register::TIMER_INITIAL,
    register::TIMER_DIVIDE,
];

/// Registers whose writes the CPU carries out (SDM vol. 3, 30.5).
const WRITTEN: [u32; 3] = [register::TPR, register::EOI, register::SELF_IPI];

/// Lets the MSRs through that the CPU virtualizes.
pub fn open_msrs(bitmap: &mut [u8]) {
    let index = |offset: u32| FIRST_MSR + offset / 0x10;
    for offset in READ {
        msr::pass_reads(bitmap, index(offset));
    }
    // In-service, trigger-mode and request registers.
    for array in index(register::ISR)..index(register::ESR) {
        msr::pass_reads(bitmap, array);
    }
    for offset in WRITTEN {
        msr::pass_writes(bitmap, index(offset));
    }
}

/// Secondary controls for a mode, on top of those that every vCPU has.
pub const fn controls(capabilities: &Capabilities, mode: Mode) -> u32 {
    match mode {
        Mode::Off => 0,
        Mode::Page => capabilities.apic_page,
        Mode::Msrs => capabilities.apic_msrs,
    }
}

/// The same where the CPU does not virtualize the local APIC.
pub const fn plain_controls(capabilities: &Capabilities, mode: Mode) -> u32 {
    match mode {
        Mode::Page => capabilities.apic_accesses,
        Mode::Off | Mode::Msrs => 0,
    }
}

/// Forgets what waits and what is in service.
pub fn clear_status() {
    vmcs::write(Field::GuestInterruptStatus, 0);
}

/// The requesting and the servicing vector, from a page that something else than this CPU has worked on.
pub fn set_status(requested: u8, in_service: u8) {
    vmcs::write(
        Field::GuestInterruptStatus,
        u64::from(in_service) << 8 | u64::from(requested),
    );
}

/// The highest vector that waits.
pub fn set_requested(vector: u8) {
    const IN_SERVICE: u64 = 0xFF00;
    let status = vmcs::read(Field::GuestInterruptStatus);
    let new = status & IN_SERVICE | u64::from(vector);
    if new != status {
        vmcs::write(Field::GuestInterruptStatus, new);
    }
}

/// Vectors whose end of service exits.
pub fn set_end_exits(vectors: &[u32; 8]) {
    let word = |index: usize| u64::from(vectors[index + 1]) << 32 | u64::from(vectors[index]);
    vmcs::write_all([
        (Field::EndExits0, word(0)),
        (Field::EndExits1, word(2)),
        (Field::EndExits2, word(4)),
        (Field::EndExits3, word(6)),
    ]);
}

/// An access to the page that the CPU leaves to us: emulated like any other device's (SDM vol. 3, table 28-6), but for the most
/// frequent one, a write to EOI, whose value does not matter: it needs no decoding, only its length.
pub fn access(vcpu: &mut VmxVcpu, _: &mut Gprs) -> Option<Exit> {
    const OFFSET: u64 = 0xFFF;
    const KIND: u64 = 0xF;
    const WRITE: u64 = 1;
    const FETCH: u64 = 2;
    /// Of an x86 instruction.
    const LONGEST: u8 = 15;
    let qualification = vmcs::read(Field::ExitQualification);
    let (offset, kind) = (qualification & OFFSET, qualification >> 12 & KIND);
    if kind == WRITE && offset == u64::from(register::EOI) {
        let length = vmcs::read(Field::ExitInstructionLength) as u8;
        if (1..=LONGEST).contains(&length) {
            vcpu.skip(length);
            return Some(Exit::ApicWrite(register::EOI));
        }
    }
    Some(Exit::NestedFault(NestedFault {
        address: GuestPhys(BASE_ADDRESS | offset),
        write: kind == WRITE,
        execute: kind == FETCH,
    }))
}
