//! From exit reasons to the common vocabulary (SDM vol. 3, appendix C).

use oxen_core::address::GuestPhys;

use super::fields::Field;
use super::vmcs;
use crate::virt::{ControlRegisterAccess, Exit, NestedFault, PortAccess};

/// Reasons that the backend itself looks at.
pub mod reason {
    pub const EXCEPTION: u32 = 0;
    pub const CONTROL_REGISTER: u32 = 28;
    pub const EPT_VIOLATION: u32 = 48;
    pub const ENTRY_FAILED: u32 = 1 << 31;
}

type Decoder = fn() -> Exit;

const UNKNOWN: Decoder = || Exit::Unexpected(vmcs::read(Field::ExitReason));
const REFUSED: Decoder = || Exit::Refused;

/// What each reason means, by its number.
const DECODERS: [Decoder; 65] = {
    let mut table = [UNKNOWN; 65];
    table[1] = || Exit::ExternalInterrupt;
    table[2] = || Exit::Shutdown;
    table[7] = || Exit::InterruptWindow;
    table[8] = || Exit::NmiWindow;
    table[10] = || Exit::Cpuid;
    table[11] = REFUSED;
    table[12] = || Exit::Halt;
    table[13] = || Exit::CacheFlush;
    table[15] = REFUSED;
    table[18] = || Exit::Hypercall;
    let mut instruction = 19;
    while instruction <= 27 {
        table[instruction] = REFUSED;
        instruction += 1;
    }
    table[28] = || Exit::Unexpected(28);
    table[30] = port;
    table[31] = || Exit::ReadMsr;
    table[32] = || Exit::WriteMsr;
    table[36] = REFUSED;
    table[39] = REFUSED;
    table[40] = || Exit::Pause;
    // The task priority fell below what waits.
    table[43] = || Exit::InterruptWindow;
    table[48] = nested_fault;
    table[50] = REFUSED;
    table[51] = REFUSED;
    table[52] = || Exit::Deadline;
    table[53] = REFUSED;
    table[54] = || Exit::CacheFlush;
    table[55] = || Exit::Xsetbv;
    table[58] = REFUSED;
    table[59] = REFUSED;
    table[63] = REFUSED;
    table[64] = REFUSED;
    table
};

/// Why the guest exited, for all reasons that need no more than a look.
pub fn decode(reason: u32) -> Exit {
    DECODERS
        .get(reason as usize & 0xFFFF)
        .map_or_else(UNKNOWN, |decoder| decoder())
}

/// Qualification of I/O instructions: SDM vol. 3, table 28-5.
fn port() -> Exit {
    let qualification = vmcs::read(Field::ExitQualification);
    Exit::Port(PortAccess {
        port: (qualification >> 16) as u16,
        width: (qualification & 7) as u8 + 1,
        input: qualification & 1 << 3 != 0,
        string: qualification & 1 << 4 != 0,
        repeat: qualification & 1 << 5 != 0,
        length: vmcs::read(Field::ExitInstructionLength) as u8,
    })
}

/// Qualification of EPT violations: SDM vol. 3, table 28-7.
fn nested_fault() -> Exit {
    let qualification = vmcs::read(Field::ExitQualification);
    Exit::NestedFault(NestedFault {
        address: GuestPhys(vmcs::read(Field::GuestPhysicalAddress)),
        execute: qualification & 1 << 2 != 0,
    })
}

/// A control-register access, from its qualification (SDM vol. 3, table 28-3).
#[derive(Clone, Copy, Debug)]
pub enum ControlRegister {
    /// MOV to CR0, CR3 or CR4 from a general-purpose register.
    Write(u8, usize),
    /// CLTS.
    ClearTaskSwitched,
    /// LMSW of these four bits.
    LoadStatusWord(u64),
    /// CR8, which the common layer handles.
    Priority(ControlRegisterAccess),
}

/// What the guest did to a control register; `gpr` reads a register's value.
pub fn control_register(gpr: impl Fn(usize) -> u64) -> ControlRegister {
    let qualification = vmcs::read(Field::ExitQualification);
    let number = (qualification & 0xF) as u8;
    let register = (qualification >> 8 & 0xF) as usize;
    match (qualification >> 4 & 3, number) {
        (0, 8) => {
            ControlRegister::Priority(ControlRegisterAccess::WriteCr8(gpr(register) as u8 & 0xF))
        }
        (1, 8) => ControlRegister::Priority(ControlRegisterAccess::ReadCr8(register)),
        (0, number) => ControlRegister::Write(number, register),
        (2, _) => ControlRegister::ClearTaskSwitched,
        _ => ControlRegister::LoadStatusWord(qualification >> 16 & 0xF),
    }
}
