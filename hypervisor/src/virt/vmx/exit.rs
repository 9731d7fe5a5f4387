//! From exit reasons to the common vocabulary: one table by reason number (SDM vol. 3, appendix C).

use oxen_core::address::GuestPhys;

use super::events;
use super::fields::Field;
use super::vcpu::VmxVcpu;
use super::{apic, control_registers, vmcs};
use crate::interrupt;
use crate::virt::{Exception, Exit, Gprs, NestedFault, PortAccess, Vcpu};

/// What to do about an exit; `None` means that it is done with, and the guest may go on.
type Handler = fn(&mut VmxVcpu, &mut Gprs) -> Option<Exit>;

const UNKNOWN: Handler = |_, _| Some(Exit::Unexpected(vmcs::read(Field::ExitReason)));
const REFUSED: Handler = |_, _| Some(Exit::Refused);

const HANDLERS: [Handler; 65] = {
    let mut table = [UNKNOWN; 65];
    table[0] = events::exception;
    table[1] = |_, _| Some(Exit::ExternalInterrupt);
    table[2] = |_, _| Some(Exit::Shutdown);
    table[7] = |_, _| Some(Exit::InterruptWindow);
    table[8] = |_, _| Some(Exit::NmiWindow);
    table[10] = |_, _| Some(Exit::Cpuid);
    // GETSEC.
    table[11] = REFUSED;
    table[12] = |_, _| Some(Exit::Halt);
    table[13] = |_, _| Some(Exit::CacheFlush);
    table[15] = refuse_counter;
    table[18] = |_, _| Some(Exit::Hypercall);
    // VMX instructions.
    let mut instruction = 19;
    while instruction <= 27 {
        table[instruction] = REFUSED;
        instruction += 1;
    }
    table[28] = control_registers::access;
    table[30] = port;
    table[31] = |_, _| Some(Exit::ReadMsr);
    table[32] = |_, _| Some(Exit::WriteMsr);
    // MWAIT and MONITOR.
    table[36] = REFUSED;
    table[39] = REFUSED;
    table[40] = |_, _| Some(Exit::Pause);
    // A machine check during entry.
    table[41] = |_, _| interrupt::host_machine_check();
    table[43] = priority_lowered;
    table[44] = apic::access;
    table[45] = |_, _| {
        Some(Exit::EndOfInterrupt(
            vmcs::read(Field::ExitQualification) as u8
        ))
    };
    table[48] = nested_fault;
    // INVEPT and INVVPID.
    table[50] = REFUSED;
    table[53] = REFUSED;
    table[52] = |_, _| Some(Exit::Deadline);
    table[54] = |_, _| Some(Exit::CacheFlush);
    table[55] = |_, _| Some(Exit::Xsetbv);
    table[56] = |_, _| {
        const OFFSET: u64 = 0xFFF;
        let offset = vmcs::read(Field::ExitQualification) & OFFSET;
        Some(Exit::ApicWrite(offset as u32))
    };
    // VMFUNC and ENCLS.
    table[59] = REFUSED;
    table[60] = REFUSED;
    table
};

/// Handles the exit of the loaded vCPU, or says what the common layer must handle.
pub fn handle(vcpu: &mut VmxVcpu, gprs: &mut Gprs) -> Option<Exit> {
    const BASIC: usize = 0xFFFF;
    let reason = vmcs::read(Field::ExitReason) as usize;
    HANDLERS.get(reason & BASIC).unwrap_or(&UNKNOWN)(vcpu, gprs)
}

/// Qualification of I/O instructions: SDM vol. 3, table 28-5.
fn port(_: &mut VmxVcpu, _: &mut Gprs) -> Option<Exit> {
    let qualification = vmcs::read(Field::ExitQualification);
    Some(Exit::Port(PortAccess {
        port: (qualification >> 16) as u16,
        width: (qualification & 7) as u8 + 1,
        input: qualification & 1 << 3 != 0,
        string: qualification & 1 << 4 != 0,
        repeat: qualification & 1 << 5 != 0,
        length: vmcs::read(Field::ExitInstructionLength) as u8,
    }))
}

/// Qualification of EPT violations: SDM vol. 3, table 28-7.
fn nested_fault(_: &mut VmxVcpu, _: &mut Gprs) -> Option<Exit> {
    let qualification = vmcs::read(Field::ExitQualification);
    events::restore_nmi_blocking(qualification);
    Some(Exit::NestedFault(NestedFault {
        address: GuestPhys(vmcs::read(Field::GuestPhysicalAddress)),
        write: qualification & 1 << 1 != 0,
        execute: qualification & 1 << 2 != 0,
    }))
}

/// RDPMC: guests are shown no performance counters, so every index is one too high.
fn refuse_counter(vcpu: &mut VmxVcpu, _: &mut Gprs) -> Option<Exit> {
    vcpu.raise(Exception::GENERAL_PROTECTION);
    None
}

/// The task priority fell below the threshold, which must not stay above it: the next entry would fail.
fn priority_lowered(vcpu: &mut VmxVcpu, _: &mut Gprs) -> Option<Exit> {
    vcpu.set_threshold(0);
    Some(Exit::InterruptWindow)
}
