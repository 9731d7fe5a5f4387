//! What a VMCS says when something went wrong.

use core::fmt::{self, Write};

use arrayvec::ArrayString;
use x86_64::registers::control::Cr2;

use super::control_registers;
use super::fields::{Field, LDTR, SEGMENTS, TR};
use super::vmcs;
use crate::virt::SystemRegisters;

/// The fields that an entry checks, most likely culprits first, by groups of one line each.
const CHECKED: [&[Field]; 8] = [
    &[
        Field::PinControls,
        Field::ProcessorControls,
        Field::SecondaryControls,
        Field::ExitControls,
        Field::EntryControls,
        Field::ExceptionBitmap,
    ],
    &[
        Field::EntryInterruption,
        Field::EntryErrorCode,
        Field::EntryInstructionLength,
        Field::GuestInterruptibility,
        Field::GuestActivity,
        Field::GuestPendingDebug,
    ],
    &[
        Field::GuestCr0,
        Field::GuestCr3,
        Field::GuestCr4,
        Field::GuestEfer,
        Field::GuestPat,
        Field::GuestDr7,
        Field::GuestDebugControl,
    ],
    &[Field::GuestRip, Field::GuestRsp, Field::GuestRflags],
    &[
        Field::GuestGdtrBase,
        Field::GuestGdtrLimit,
        Field::GuestIdtrBase,
        Field::GuestIdtrLimit,
    ],
    &[
        Field::EptPointer,
        Field::VirtualApicPage,
        Field::TprThreshold,
        Field::MsrBitmap,
        Field::PortBitmapA,
        Field::LinkPointer,
        Field::Vpid,
    ],
    &[
        Field::HostCr0,
        Field::HostCr3,
        Field::HostCr4,
        Field::HostEfer,
        Field::HostPat,
        Field::HostRip,
        Field::HostRsp,
    ],
    &[
        Field::HostCsSelector,
        Field::HostSsSelector,
        Field::HostTrSelector,
        Field::HostGsBase,
        Field::HostTrBase,
        Field::HostGdtrBase,
        Field::HostIdtrBase,
    ],
];

/// Logs why an entry failed, and all that it checked (SDM vol. 3, chapter 27 and table 31-1).
#[cold]
pub fn log_failed_entry(cause: fmt::Arguments<'_>) {
    log::error!("VM entry failed: {cause}");
    let mut line = ArrayString::<512>::new();
    for group in CHECKED {
        line.clear();
        for &field in group {
            // What does not fit is cut.
            let _ = write!(line, "{field:?} {:#x}, ", vmcs::read(field));
        }
        log::error!("{line}");
    }
    for (selector, limit, rights, base) in SEGMENTS.into_iter().chain([LDTR, TR]) {
        log::error!(
            "{selector:?} {:#x} base {:#x} limit {:#x} rights {:#x}",
            vmcs::read(selector),
            vmcs::read(base),
            vmcs::read(limit),
            vmcs::read(rights)
        );
    }
}

/// Writes the last exit and the guest's state, for a crash report.
pub fn write(out: &mut dyn fmt::Write, cpl: u8) -> fmt::Result {
    let read = vmcs::read;
    writeln!(
        out,
        "exit {:#x} qualification {:#x} interruption {:#x} vectoring {:#x} gpa {:#x}",
        read(Field::ExitReason),
        read(Field::ExitQualification),
        read(Field::ExitInterruption),
        read(Field::VectoringInformation),
        read(Field::GuestPhysicalAddress)
    )?;
    let SystemRegisters {
        cr0,
        cr3,
        cr4,
        efer,
    } = control_registers::visible();
    writeln!(
        out,
        "cr0 {cr0:#x} cr2 {:#x} cr3 {cr3:#x} cr4 {cr4:#x} efer {efer:#x} cpl {cpl}",
        Cr2::read_raw()
    )?;
    writeln!(
        out,
        "cs {:#x} base {:#x} rights {:#x}; ss {:#x}; interruptibility {:#x}; entry controls {:#x}",
        read(Field::GuestCsSelector),
        read(Field::GuestCsBase),
        read(Field::GuestCsRights),
        read(Field::GuestSsSelector),
        read(Field::GuestInterruptibility),
        read(Field::EntryControls)
    )?;
    writeln!(
        out,
        "idt {:#x} limit {:#x}; gdt {:#x} limit {:#x}; pending debug {:#x}; dr7 {:#x}",
        read(Field::GuestIdtrBase),
        read(Field::GuestIdtrLimit),
        read(Field::GuestGdtrBase),
        read(Field::GuestGdtrLimit),
        read(Field::GuestPendingDebug),
        read(Field::GuestDr7)
    )
}
