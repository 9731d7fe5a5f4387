//! What a VMCS holds from the first, what brings a CPU back to itself, and the state in which a vCPU starts.

use oxen_core::registers::Table;
use x86_64::registers::control::{Cr0, Cr4};

use super::capabilities::Capabilities;
use super::control_registers::{CR0_KEPT, CR0_NUMERIC_ERROR, CR4_FORCED, CR4_KEPT};
use super::controls::{entry as entry_control, secondary};
use super::fields::{Field, LDTR, SEGMENTS, SegmentFields, TR};
use super::msr::Live;
use super::{control_registers, entry, vmcs};
use crate::cpu::msr;
use crate::cpu::percpu::host_state;
use crate::virt::{Gprs, Registers, Segment, VcpuConfig};

/// Segment registers in the order of [`segment`](oxen_core::registers::segment).
const CS_TO_LDTR: [SegmentFields; 8] = [
    SEGMENTS[1],
    SEGMENTS[3],
    SEGMENTS[0],
    SEGMENTS[4],
    SEGMENTS[5],
    SEGMENTS[2],
    TR,
    LDTR,
];

/// Where a domain's nested tables begin, for the CPU (SDM vol. 3, 25.6.11): write-back, four levels.
pub fn ept_pointer(config: &VcpuConfig) -> u64 {
    const WRITE_BACK_FOUR_LEVELS: u64 = 6 | 3 << 3;
    config.nested_root.address().0 | WRITE_BACK_FOUR_LEVELS
}

/// Reads the registers of the current VMCS, and what lies beside it.
pub fn registers(gprs: &Gprs, live: &Live, cr2: u64, dr6: u64) -> Registers {
    const RSP: usize = 4;
    let system = control_registers::visible();
    let mut general = gprs.0;
    general[RSP] = vmcs::read(Field::GuestRsp);
    Registers {
        general,
        rip: vmcs::read(Field::GuestRip),
        rflags: vmcs::read(Field::GuestRflags),
        cr0: system.cr0,
        cr2,
        cr3: system.cr3,
        cr4: system.cr4,
        dr6,
        dr7: vmcs::read(Field::GuestDr7),
        efer: system.efer,
        pat: vmcs::read(Field::GuestPat),
        segments: CS_TO_LDTR.map(|(selector, limit, rights, base)| Segment {
            selector: vmcs::read(selector) as u16,
            attributes: vmcs::read(rights) as u32,
            limit: vmcs::read(limit) as u32,
            base: vmcs::read(base),
        }),
        gdtr: Table {
            base: vmcs::read(Field::GuestGdtrBase),
            limit: vmcs::read(Field::GuestGdtrLimit) as u32,
        },
        idtr: Table {
            base: vmcs::read(Field::GuestIdtrBase),
            limit: vmcs::read(Field::GuestIdtrLimit) as u32,
        },
        sysenter: [
            vmcs::read(Field::GuestSysenterCs),
            vmcs::read(Field::GuestSysenterEsp),
            vmcs::read(Field::GuestSysenterEip),
        ],
        msrs: live.msrs(),
        ..Registers::default()
    }
}

/// Writes the fields of the current VMCS that stay as they are for all its life, or begin as here.
pub fn write_controls(
    capabilities: &Capabilities,
    config: &VcpuConfig,
    vpid: u16,
    msr_bitmap: u64,
) {
    const UNDEFINED_OPCODE: u64 = 1 << 6;
    const MACHINE_CHECK: u64 = 1 << 18;
    // A guest whose #AC or #DB handler faults the same way would otherwise loop in microcode for ever.
    const ENDLESS: u64 = 1 << 1 | 1 << 17;
    vmcs::write_all([
        (Field::Vpid, vpid.into()),
        (Field::PinControls, capabilities.pin.into()),
        (Field::ProcessorControls, capabilities.primary.into()),
        (Field::SecondaryControls, capabilities.secondary.into()),
        (Field::ExitControls, capabilities.exit.into()),
        (Field::EntryControls, capabilities.entry.into()),
        (
            Field::ExceptionBitmap,
            UNDEFINED_OPCODE | MACHINE_CHECK | ENDLESS,
        ),
        // Mask and match are equal for every error code, so that the exception bitmap's bit alone decides.
        (Field::PageFaultMask, 0),
        (Field::PageFaultMatch, 0),
        (Field::Cr3TargetCount, 0),
        (Field::ExitMsrStoreCount, 0),
        (Field::ExitMsrLoadCount, 0),
        (Field::EntryMsrLoadCount, 0),
        (Field::PortBitmapA, config.port_bitmap.0),
        (Field::PortBitmapB, config.port_bitmap.0 + 4096),
        (Field::MsrBitmap, msr_bitmap),
        (Field::TscOffset, config.tsc_offset),
        (Field::VirtualApicPage, config.apic_page.0),
        (Field::EptPointer, ept_pointer(config)),
        (Field::LinkPointer, u64::MAX),
        (Field::Cr0Mask, CR0_KEPT),
        (Field::Cr4Mask, CR4_KEPT),
    ]);
    if let Some(page) = config.apic_access_page {
        vmcs::write(Field::ApicAccessPage, page.0);
    }
    if capabilities.secondary & secondary::PAUSE_LOOP != 0 {
        // In TSC ticks (SDM vol. 3, 25.6.13): two PAUSEs closer than the gap belong to one loop, which may last as long
        // as a short critical section.
        const GAP: u64 = 128;
        const WINDOW: u64 = 4096;
        vmcs::write_all([(Field::PauseLoopGap, GAP), (Field::PauseLoopWindow, WINDOW)]);
    }
    if capabilities.secondary & secondary::ENCLS != 0 {
        vmcs::write(Field::EnclsBitmap, u64::MAX);
    }
}

/// Writes the fields of the current VMCS that bring this CPU back to itself.
pub fn write_host() {
    const PAT: u32 = 0x277;
    const EFER: u32 = 0xC000_0080;
    let host = host_state();
    let (ss, cs, tr) = (u64::from(host.ss), u64::from(host.cs), u64::from(host.tr));
    vmcs::write_all([
        (Field::HostEsSelector, ss),
        (Field::HostCsSelector, cs),
        (Field::HostSsSelector, ss),
        (Field::HostDsSelector, ss),
        (Field::HostFsSelector, 0),
        (Field::HostGsSelector, 0),
        (Field::HostTrSelector, tr),
        (Field::HostCr0, Cr0::read_raw()),
        (Field::HostCr3, host.cr3),
        (Field::HostCr4, Cr4::read_raw()),
        (Field::HostFsBase, 0),
        (Field::HostGsBase, host.gs_base),
        (Field::HostTrBase, host.tss_base),
        (Field::HostGdtrBase, host.gdt_base),
        (Field::HostIdtrBase, host.idt_base),
        (Field::HostSysenterCs, 0),
        (Field::HostSysenterEsp, 0),
        (Field::HostSysenterEip, 0),
        (Field::HostPat, msr::read(PAT)),
        (Field::HostEfer, msr::read(EFER)),
        (Field::HostRip, entry::exit_address()),
    ]);
}

/// Writes registers into the current VMCS; no event waits for entry then.
pub fn write_registers(registers: &Registers) {
    const RSP: usize = 4;
    for (fields, segment) in CS_TO_LDTR.into_iter().zip(registers.segments) {
        write_segment(fields, segment);
    }
    let Registers { cr0, cr4, .. } = *registers;
    let [cs, esp, eip] = registers.sysenter;
    vmcs::write_all([
        (Field::GuestGdtrBase, registers.gdtr.base),
        (Field::GuestGdtrLimit, registers.gdtr.limit.into()),
        (Field::GuestIdtrBase, registers.idtr.base),
        (Field::GuestIdtrLimit, registers.idtr.limit.into()),
        (Field::GuestEfer, registers.efer),
        (Field::GuestPat, registers.pat),
        (Field::GuestDebugControl, 0),
        (Field::Cr0Shadow, cr0 & CR0_KEPT),
        (Field::GuestCr0, cr0 & !CR0_KEPT | CR0_NUMERIC_ERROR),
        (Field::GuestCr3, registers.cr3),
        (Field::Cr4Shadow, cr4 & CR4_KEPT),
        (Field::GuestCr4, cr4 & !CR4_KEPT | CR4_FORCED),
        (Field::GuestDr7, registers.dr7),
        (Field::GuestRsp, registers.general[RSP]),
        (Field::GuestRip, registers.rip),
        (Field::GuestRflags, registers.rflags),
        (Field::GuestPendingDebug, 0),
        (Field::GuestInterruptibility, 0),
        (Field::GuestActivity, 0),
        (Field::GuestSysenterCs, cs),
        (Field::GuestSysenterEsp, esp),
        (Field::GuestSysenterEip, eip),
        (Field::EntryInterruption, 0),
    ]);
    if registers.has_directories() {
        // With nested tables an entry takes them from here (SDM vol. 3, 27.3.2.4).
        let [a, b, c, d] = registers.directories;
        vmcs::write_all([
            (Field::GuestDirectory0, a),
            (Field::GuestDirectory1, b),
            (Field::GuestDirectory2, c),
            (Field::GuestDirectory3, d),
        ]);
    }
    let long = u64::from(entry_control::GUEST_64_BIT);
    if registers.is_long() {
        vmcs::change(Field::EntryControls, long, 0);
    } else {
        vmcs::change(Field::EntryControls, 0, long);
    }
}

fn write_segment((selector, limit, rights, base): SegmentFields, value: Segment) {
    vmcs::write_all([
        (selector, value.selector.into()),
        (limit, value.limit.into()),
        (rights, value.attributes.into()),
        (base, value.base),
    ]);
}
