//! From exit codes to the common vocabulary (APM vol. 2, appendix C).

use oxen_core::address::GuestPhys;

use super::vmcb::Vmcb;
use crate::virt::{Exit, NestedFault, PortAccess};

/// Exit codes that the backend itself looks at.
pub mod code {
    pub const EXCEPTION_DEBUG: u64 = 0x41;
    pub const EXCEPTION_ALIGNMENT: u64 = 0x51;
    pub const IRET: u64 = 0x74;
}

type Decoder = fn(&Vmcb) -> Exit;

/// What each exit code means.
const DECODERS: &[(u64, Decoder)] = &[
    (0x46, |_| Exit::UndefinedOpcode),
    (0x52, |_| Exit::MachineCheck),
    (0x60, |_| Exit::ExternalInterrupt),
    (0x61, |_| Exit::Nmi),
    (0x64, |_| Exit::InterruptWindow),
    (0x6F, |_| Exit::Refused),
    (0x72, |_| Exit::Cpuid),
    (0x76, |_| Exit::CacheFlush),
    (0x77, |_| Exit::Pause),
    (0x78, |_| Exit::Halt),
    (0x7A, |_| Exit::Refused),
    (0x7B, port),
    (0x7C, |vmcb| {
        if vmcb.control.exit_info_1 & 1 == 0 {
            Exit::ReadMsr
        } else {
            Exit::WriteMsr
        }
    }),
    (0x7F, |_| Exit::Shutdown),
    (0x80, |_| Exit::Refused),
    (0x81, |_| Exit::Hypercall),
    (0x82, |_| Exit::Refused),
    (0x83, |_| Exit::Refused),
    (0x84, |_| Exit::Refused),
    (0x85, |_| Exit::Refused),
    (0x86, |_| Exit::Refused),
    (0x89, |_| Exit::CacheFlush),
    (0x8A, |_| Exit::Refused),
    (0x8B, |_| Exit::Refused),
    (0x8D, |_| Exit::Xsetbv),
    (0x8E, |_| Exit::Refused),
    (0x400, nested_fault),
];

/// Position in [`DECODERS`] plus one of each code below 0x90; 0 for codes without a meaning.
const INDEX: [u8; 0x90] = {
    let mut index = [0; 0x90];
    let mut i = 0;
    while i < DECODERS.len() {
        let code = DECODERS[i].0 as usize;
        if code < index.len() {
            index[code] = i as u8 + 1;
        }
        i += 1;
    }
    index
};

/// Why the guest of `vmcb` exited.
pub fn decode(vmcb: &Vmcb) -> Exit {
    const NESTED_PAGE_FAULT: u64 = 0x400;
    let code = vmcb.control.exit_code;
    if code == NESTED_PAGE_FAULT {
        return nested_fault(vmcb);
    }
    let slot = usize::try_from(code)
        .ok()
        .and_then(|code| INDEX.get(code))
        .copied()
        .unwrap_or(0);
    match usize::from(slot)
        .checked_sub(1)
        .and_then(|slot| DECODERS.get(slot))
    {
        Some((_, decoder)) => decoder(vmcb),
        None => Exit::Unexpected(code),
    }
}

/// EXITINFO1 of an IOIO exit: APM vol. 2, 15.10.2.
fn port(vmcb: &Vmcb) -> Exit {
    let info = vmcb.control.exit_info_1;
    Exit::Port(PortAccess {
        port: (info >> 16) as u16,
        width: (info >> 4) as u8 & 7,
        input: info & 1 != 0,
        string: info & 1 << 2 != 0,
        repeat: info & 1 << 3 != 0,
        length: vmcb.control.exit_info_2.wrapping_sub(vmcb.save.rip) as u8,
    })
}

/// EXITINFO1 is a page-fault error code.
fn nested_fault(vmcb: &Vmcb) -> Exit {
    let info = vmcb.control.exit_info_1;
    Exit::NestedFault(NestedFault {
        address: GuestPhys(vmcb.control.exit_info_2),
        write: info & 1 << 1 != 0,
        execute: info & 1 << 4 != 0,
    })
}
