//! CPU exceptions in the hypervisor itself: all but the few expected ones are bugs and stop the machine.

use core::sync::atomic::Ordering;

use x86_64::registers::control::Cr2;

use super::table::Frame;
use crate::cpu::{self, msr};
use crate::stop;

/// Vector of the non-maskable interrupt.
pub const NMI: u64 = 2;
/// Vector of the double fault.
pub const DOUBLE_FAULT: u64 = 8;
/// Vector of the general-protection fault.
pub const GENERAL_PROTECTION: u64 = 13;
/// Vector of the page fault.
pub const PAGE_FAULT: u64 = 14;
/// Vector of the machine check.
pub const MACHINE_CHECK: u64 = 18;

const NAMES: [&str; 22] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range",
    "undefined opcode",
    "device not available",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization",
    "control protection",
];

/// Judges an exception: expected ones are repaired, NMIs counted, anything else stops the machine with its registers.
pub fn handle(frame: &mut Frame) {
    match frame.vector {
        NMI => super::host_nmi(),
        MACHINE_CHECK => machine_check(),
        GENERAL_PROTECTION => {
            if !msr::fix_up(frame) {
                die(frame);
            }
        }
        _ => die(frame),
    }
}

fn die(frame: &Frame) -> ! {
    stop::begin_panic();
    let name = NAMES
        .get(frame.vector as usize)
        .copied()
        .unwrap_or("reserved");
    crate::console::print(format_args!(
        "exception {} ({name}), error code {:#x}, on cpu {}\n",
        frame.vector,
        frame.error_code,
        cpu::current().id()
    ));
    if frame.vector == PAGE_FAULT {
        crate::console::print(format_args!("accessed address {:#x}\n", Cr2::read_raw()));
    }
    stop::print_registers(frame);
    stop::backtrace(frame.rip, frame.rbp);
    stop::finish(
        stop::Reason::Panic,
        format_args!("{name} at {:#x} in the hypervisor", frame.rip),
    )
}

/// Logs the machine-check banks that hold a valid error (SDM vol. 3, 16.3.2), and stops.
pub fn machine_check() -> ! {
    const MCG_CAP: u32 = 0x179;
    const MCG_STATUS: u32 = 0x17A;
    const FIRST_STATUS: u32 = 0x401;
    const VALID: u64 = 1 << 63;
    stop::begin_panic();
    let banks = msr::read_safe(MCG_CAP).unwrap_or(0) & 0xFF;
    crate::console::print(format_args!(
        "machine check on cpu {}: status {:#x}, {banks} banks, {} NMIs before\n",
        cpu::current().id(),
        msr::read_safe(MCG_STATUS).unwrap_or(0),
        cpu::current().nmis.load(Ordering::Relaxed),
    ));
    for bank in 0..banks as u32 {
        let status = msr::read_safe(FIRST_STATUS + 4 * bank).unwrap_or(0);
        if status & VALID != 0 {
            let address = msr::read_safe(FIRST_STATUS + 4 * bank + 1).unwrap_or(0);
            crate::console::print(format_args!(
                "bank {bank}: status {status:#018x} address {address:#x}\n"
            ));
        }
    }
    stop::finish(
        stop::Reason::Panic,
        format_args!("machine check: the hardware reported an error"),
    )
}
