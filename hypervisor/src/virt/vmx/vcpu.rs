//! A vCPU on VT-x.

use core::fmt;
use core::sync::atomic::Ordering;

use oxen_core::address::HostPhys;
use oxen_core::id::CpuId;
use x86_64::registers::control::{Cr0, Cr2, Cr4};

use super::controls::{Controls, entry as entry_control, pin, primary, secondary};
use super::exit::{self, ControlRegister, reason};
use super::fields::{Field, LDTR, SEGMENTS, SegmentFields, TR};
use super::{Vmx, missing, vmcs};
use crate::cpu::percpu::host_state;
use crate::cpu::{self, msr};
use crate::interrupt;
use crate::memory::HostPages;
use crate::time;
use crate::virt::{
    Exception, Exit, Gprs, Missing, Segment, SegmentName, StartState, SystemRegisters, Vcpu,
    VcpuConfig,
};

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME, LMA, NXE: what guests may set.
const EFER_ALLOWED: u64 = 1 | EFER_LME | EFER_LMA | 1 << 11;
const CR0_PROTECTED: u64 = 1 << 0;
const CR0_TASK_SWITCHED: u64 = 1 << 3;
const CR0_EXTENSION: u64 = 1 << 4;
const CR0_NUMERIC_ERROR: u64 = 1 << 5;
const CR0_CACHE: u64 = 0b11 << 29;
const CR0_PAGING: u64 = 1 << 31;
const CR4_MACHINE_CHECK: u64 = 1 << 6;
const CR4_VMX: u64 = 1 << 13;
/// CR4 bits that are the guest's own: VME to OSXMMEXCPT but for MCE, UMIP, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP.
const CR4_GUEST: u64 = 0x7FF & !CR4_MACHINE_CHECK | 1 << 11 | 0b111 << 16 | 0b11 << 20;
/// In reality always set: VMX wants VMXE, and a machine check must reach us.
const CR4_FORCED: u64 = CR4_VMX | CR4_MACHINE_CHECK;
const RFLAGS_INTERRUPT: u64 = 1 << 9;
const BLOCKED_BY_STI_OR_SS: u64 = 0b11;
const BLOCKED_BY_NMI: u64 = 1 << 3;
const EVENT_VALID: u64 = 1 << 31;
const EVENT_ERROR_CODE: u64 = 1 << 11;
const EVENT_KIND: u64 = 7 << 8;
const EVENT_NMI: u64 = 2 << 8;
const EVENT_EXCEPTION: u64 = 3 << 8;
const UNUSABLE: u64 = 1 << 16;
/// PAT at reset (SDM vol. 3, 12.12.4).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const TPR: usize = 0x80;

/// MSRs that are in the registers while the vCPU is loaded, as the hypervisor uses none of them: STAR, LSTAR, CSTAR,
/// SFMASK, kernel GS base, TSC_AUX.
const LIVE_MSRS: [u32; 6] = [
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084,
    0xC000_0102,
    0xC000_0103,
];

/// Hardware state of one vCPU.
pub struct VmxVcpu {
    region: HostPages,
    apic_page: HostPhys,
    live_msrs: [u64; LIVE_MSRS.len()],
    cr2: u64,
    launched: bool,
    /// An event is queued for the next entry.
    event_queued: bool,
    timer_shift: Option<u32>,
    deadline: Option<u64>,
    timer_on: bool,
    windows: u64,
    threshold: u64,
    last_cpu: Option<CpuId>,
}

impl VmxVcpu {
    pub(super) fn new(
        controls: &Controls,
        vpid: u16,
        msr_bitmap: HostPhys,
        config: &VcpuConfig,
    ) -> Result<Self, Missing> {
        const UNDEFINED_OPCODE: u64 = 1 << 6;
        const MACHINE_CHECK: u64 = 1 << 18;
        // A guest whose #AC or #DB handler faults the same way would otherwise loop in microcode for ever.
        const ENDLESS: u64 = 1 << 1 | 1 << 17;
        const EPT_WRITE_BACK_FOUR_LEVELS: u64 = 6 | 3 << 3;
        let region =
            HostPages::new_zeroed(1).ok_or_else(|| missing(format_args!("memory for a VMCS")))?;
        region
            .shared()
            .u32(0)
            .store(controls.revision, Ordering::Relaxed);
        let this = Self {
            region,
            apic_page: config.apic_page,
            live_msrs: [0; LIVE_MSRS.len()],
            cr2: 0,
            launched: false,
            event_queued: false,
            timer_shift: controls.timer_shift,
            deadline: None,
            timer_on: false,
            windows: 0,
            threshold: 0,
            last_cpu: None,
        };
        let address = this.region.first().address();
        // SAFETY: a fresh region of ours.
        unsafe {
            vmcs::clear(address);
            vmcs::load(address);
        }
        let values = [
            (Field::Vpid, vpid.into()),
            (Field::PinControls, controls.pin.into()),
            (Field::ProcessorControls, controls.primary.into()),
            (Field::SecondaryControls, controls.secondary.into()),
            (Field::ExitControls, controls.exit.into()),
            (Field::EntryControls, controls.entry.into()),
            (
                Field::ExceptionBitmap,
                UNDEFINED_OPCODE | MACHINE_CHECK | ENDLESS,
            ),
            (Field::PortBitmapA, config.port_bitmap.0),
            (Field::PortBitmapB, config.port_bitmap.0 + 4096),
            (Field::MsrBitmap, msr_bitmap.0),
            (Field::TscOffset, config.tsc_offset),
            (Field::VirtualApicPage, config.apic_page.0),
            (
                Field::EptPointer,
                config.nested_root.address().0 | EPT_WRITE_BACK_FOUR_LEVELS,
            ),
            (Field::LinkPointer, u64::MAX),
            (Field::Cr0Mask, CR0_NUMERIC_ERROR),
            (Field::Cr4Mask, !CR4_GUEST),
            (Field::TprThreshold, 0),
        ];
        values
            .into_iter()
            .for_each(|(field, value)| vmcs::write(field, value));
        if controls.secondary & secondary::PAUSE_LOOP != 0 {
            // Ticks between two PAUSEs of one loop, and of a whole loop, before it counts as waiting in vain.
            vmcs::write(Field::PauseLoopGap, 128);
            vmcs::write(Field::PauseLoopWindow, 4096);
        }
        // SAFETY: as above.
        unsafe { vmcs::clear(address) };
        Ok(this)
    }

    /// Fields that bring this CPU back to itself.
    fn write_host_state() {
        const PAT: u32 = 0x277;
        const EFER: u32 = 0xC000_0080;
        let host = host_state();
        let (ss, cs, tr) = (u64::from(host.ss), u64::from(host.cs), u64::from(host.tr));
        let values = [
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
            (Field::HostRip, vmcs::exit_address()),
        ];
        values
            .into_iter()
            .for_each(|(field, value)| vmcs::write(field, value));
    }

    fn queue(&mut self, information: u64, error_code: Option<u64>) {
        vmcs::write(Field::EntryInterruption, information | EVENT_VALID);
        if let Some(code) = error_code {
            vmcs::write(Field::EntryErrorCode, code);
        }
        self.event_queued = true;
    }

    /// Queues again what the exit interrupted (SDM vol. 3, 28.2.4).
    fn requeue_interrupted_event(&mut self) {
        const UNDEFINED: u64 = 1 << 12;
        const SOFTWARE: u64 = 4 << 8;
        let information = vmcs::read(Field::VectoringInformation);
        if information & EVENT_VALID == 0 {
            return;
        }
        let kind = information & EVENT_KIND;
        if kind == EVENT_NMI {
            // It will be delivered again, and blocks then.
            vmcs::change(Field::GuestInterruptibility, 0, BLOCKED_BY_NMI);
        }
        if kind >= SOFTWARE {
            vmcs::write(
                Field::EntryInstructionLength,
                vmcs::read(Field::ExitInstructionLength),
            );
        }
        let code =
            (information & EVENT_ERROR_CODE != 0).then(|| vmcs::read(Field::VectoringErrorCode));
        self.queue(information & !UNDEFINED, code);
    }

    /// An IRET that faulted had already ended the blocking of NMIs: it must hold until the IRET runs again (SDM vol. 3,
    /// 28.2.3).
    fn restore_nmi_blocking(information: u64) {
        const UNBLOCKED_BY_IRET: u64 = 1 << 12;
        if information & UNBLOCKED_BY_IRET != 0
            && vmcs::read(Field::VectoringInformation) & EVENT_VALID == 0
        {
            vmcs::change(Field::GuestInterruptibility, BLOCKED_BY_NMI, 0);
        }
    }

    /// Exceptions and NMIs; `None` means enter again.
    fn exception(&mut self) -> Option<Exit> {
        const DEBUG: u64 = 1;
        const UNDEFINED_OPCODE: u64 = 6;
        const ALIGNMENT: u64 = 17;
        let information = vmcs::read(Field::ExitInterruption);
        Self::restore_nmi_blocking(information);
        if information & EVENT_KIND == EVENT_NMI {
            // SAFETY: the gate is the NMI's own; its IRET lets further NMIs in.
            unsafe { core::arch::asm!("int 2") };
            return Some(Exit::Nmi);
        }
        match information & 0xFF {
            UNDEFINED_OPCODE => Some(Exit::UndefinedOpcode),
            DEBUG => {
                let hits = vmcs::read(Field::ExitQualification);
                // SAFETY: DR6 is the guest's while it is loaded; the exit left it as it was (SDM vol. 3, 28.1).
                unsafe {
                    core::arch::asm!("mov {0}, dr6", "or {0}, {1}", "mov dr6, {0}", out(reg) _, in(reg) hits)
                };
                self.queue(EVENT_EXCEPTION | DEBUG, None);
                None
            }
            ALIGNMENT => {
                self.queue(EVENT_EXCEPTION | EVENT_ERROR_CODE | ALIGNMENT, Some(0));
                None
            }
            _ => interrupt::host_machine_check(),
        }
    }

    /// Accesses to control-register bits that are not the guest's own.
    fn control_register(&mut self, gprs: &mut Gprs) -> Option<Exit> {
        let rsp = vmcs::read(Field::GuestRsp);
        let gpr = |index: usize| if index == 4 { rsp } else { gprs.0[index & 15] };
        let accepted = match exit::control_register(gpr) {
            ControlRegister::Priority(access) => return Some(Exit::ControlRegister(access)),
            ControlRegister::Write(0, register) => self.write_cr0(gpr(register)),
            ControlRegister::Write(4, register) => Self::write_cr4(gpr(register)),
            ControlRegister::Write(..) => false,
            ControlRegister::ClearTaskSwitched => {
                vmcs::change(Field::GuestCr0, 0, CR0_TASK_SWITCHED);
                true
            }
            ControlRegister::LoadStatusWord(bits) => {
                // LMSW cannot clear PE.
                let old = self.system().cr0;
                self.write_cr0(old & !0xE | bits & 0xF)
            }
        };
        if accepted {
            let length = vmcs::read(Field::ExitInstructionLength) as u8;
            self.skip(length);
        } else {
            self.raise(Exception::GENERAL_PROTECTION);
        }
        None
    }

    /// CR0 as the guest wants it; NE stays set in reality. Paging turns long mode on and off.
    fn write_cr0(&mut self, value: u64) -> bool {
        let paging_without_protection = value & CR0_PAGING != 0 && value & CR0_PROTECTED == 0;
        let write_through_only = value & CR0_CACHE == 1 << 29;
        if value >> 32 != 0 || paging_without_protection || write_through_only {
            return false;
        }
        let efer = vmcs::read(Field::GuestEfer);
        if value & CR0_PAGING != 0 && efer & EFER_LME != 0 {
            vmcs::write(Field::GuestEfer, efer | EFER_LMA);
            vmcs::change(Field::EntryControls, entry_control::GUEST_64_BIT.into(), 0);
        } else {
            vmcs::write(Field::GuestEfer, efer & !EFER_LMA);
            vmcs::change(Field::EntryControls, 0, entry_control::GUEST_64_BIT.into());
        }
        vmcs::write(Field::Cr0Shadow, value);
        vmcs::write(Field::GuestCr0, value | CR0_NUMERIC_ERROR | CR0_EXTENSION);
        true
    }

    /// CR4 as the guest wants it, of the bits that it may have; MCE it sees, and has anyway.
    fn write_cr4(value: u64) -> bool {
        if value & !(CR4_GUEST | CR4_MACHINE_CHECK) != 0 {
            return false;
        }
        vmcs::write(Field::Cr4Shadow, value);
        vmcs::write(Field::GuestCr4, value | CR4_FORCED);
        true
    }

    /// The timer counts only in guest mode, so it is set anew at each entry.
    fn arm_timer(&mut self) {
        let (Some(shift), on) = (self.timer_shift, self.deadline.is_some()) else {
            return;
        };
        if on != self.timer_on {
            let bit = u64::from(pin::PREEMPTION_TIMER);
            let (set, clear) = if on { (bit, 0) } else { (0, bit) };
            vmcs::change(Field::PinControls, set, clear);
            self.timer_on = on;
        }
        if let Some(deadline) = self.deadline {
            let counts = deadline.saturating_sub(time::ticks()) >> shift;
            vmcs::write(Field::PreemptionTimer, counts.min(u32::MAX.into()));
        }
    }

    fn set_window(&mut self, bit: u32, want: bool) {
        let bit = u64::from(bit);
        if (self.windows & bit != 0) != want {
            self.windows ^= bit;
            let (set, clear) = if want { (bit, 0) } else { (0, bit) };
            vmcs::change(Field::ProcessorControls, set, clear);
        }
    }

    fn write_segment((selector, limit, rights, base): SegmentFields, value: Segment) {
        vmcs::write(selector, value.selector.into());
        vmcs::write(limit, value.limit.into());
        vmcs::write(rights, value.attributes.into());
        vmcs::write(base, value.base);
    }
}

impl Vcpu for VmxVcpu {
    type Backend = Vmx;

    fn load(&mut self) {
        // SAFETY: a VMCS of ours, which `unload` released on whatever CPU had it.
        unsafe { vmcs::load(self.region.first().address()) };
        Self::write_host_state();
        for (index, value) in LIVE_MSRS.into_iter().zip(self.live_msrs) {
            // SAFETY: none of these matters to the hypervisor; a CPU without TSC_AUX refuses it and loses nothing.
            let _ = unsafe { msr::write_safe(index, value) };
        }
        // SAFETY: CR2 only remembers an address.
        unsafe { core::arch::asm!("mov cr2, {}", in(reg) self.cr2, options(nomem, nostack)) };
        self.launched = false;
        let cpu = cpu::current().id();
        if self.last_cpu.replace(cpu) != Some(cpu) {
            // What this CPU remembers of the domain may be older than the vCPU's own last look at the map.
            vmcs::invalidate_all();
        }
    }

    fn flush_nested(&mut self) {
        vmcs::invalidate_all();
    }

    fn unload(&mut self) {
        for (slot, index) in self.live_msrs.iter_mut().zip(LIVE_MSRS) {
            *slot = msr::read_safe(index).unwrap_or(0);
        }
        self.cr2 = Cr2::read_raw();
        // SAFETY: a VMCS of ours, current on this CPU.
        unsafe { vmcs::clear(self.region.first().address()) };
    }

    fn start(&mut self, gprs: &mut Gprs, start: StartState) {
        const FLAT_CODE: u32 = 0xC09B;
        const FLAT_DATA: u32 = 0xC093;
        const REAL_CODE: u32 = 0x009B;
        const REAL_DATA: u32 = 0x0093;
        *gprs = Gprs::default();
        let segment = |attributes, limit| Segment {
            selector: 0,
            attributes,
            limit,
            base: 0,
        };
        let (code, data, cr0, rip) = match start {
            StartState::Pvh { entry, start_info } => {
                gprs.0[Gprs::RBX] = start_info.into();
                let (code, data) = (segment(FLAT_CODE, u32::MAX), segment(FLAT_DATA, u32::MAX));
                (code, data, CR0_PROTECTED | CR0_EXTENSION, u64::from(entry))
            }
            StartState::Sipi { vector } => {
                let (selector, base) = (u16::from(vector) << 8, u64::from(vector) << 12);
                let code = Segment {
                    selector,
                    base,
                    ..segment(REAL_CODE, 0xFFFF)
                };
                (
                    code,
                    segment(REAL_DATA, 0xFFFF),
                    CR0_CACHE | CR0_EXTENSION,
                    0,
                )
            }
        };
        for fields in SEGMENTS {
            Self::write_segment(fields, data);
        }
        Self::write_segment(SEGMENTS[1], code);
        Self::write_segment(TR, segment(0x8B, 0x67));
        Self::write_segment(LDTR, segment(UNUSABLE as u32, 0));
        let values = [
            (Field::GuestGdtrBase, 0),
            (Field::GuestGdtrLimit, 0xFFFF),
            (Field::GuestIdtrBase, 0),
            (Field::GuestIdtrLimit, 0xFFFF),
            (Field::GuestEfer, 0),
            (Field::GuestPat, PAT_RESET),
            (Field::Cr0Shadow, cr0),
            (Field::GuestCr0, cr0 | CR0_NUMERIC_ERROR),
            (Field::GuestCr3, 0),
            (Field::Cr4Shadow, 0),
            (Field::GuestCr4, CR4_FORCED),
            (Field::GuestDr7, 0x400),
            (Field::GuestRsp, 0),
            (Field::GuestRip, rip),
            (Field::GuestRflags, 2),
            (Field::GuestPendingDebug, 0),
            (Field::GuestInterruptibility, 0),
            (Field::GuestActivity, 0),
            (Field::GuestSysenterCs, 0),
            (Field::GuestSysenterEsp, 0),
            (Field::GuestSysenterEip, 0),
            (Field::EntryInterruption, 0),
        ];
        values
            .into_iter()
            .for_each(|(field, value)| vmcs::write(field, value));
        vmcs::change(Field::EntryControls, 0, entry_control::GUEST_64_BIT.into());
        self.set_window(primary::INTERRUPT_WINDOW, false);
        self.set_window(primary::NMI_WINDOW, false);
        self.event_queued = false;
    }

    fn enter(&mut self, gprs: &mut Gprs) -> Exit {
        loop {
            self.arm_timer();
            // SAFETY: `new`, `load` and `start` completed the VMCS; its nested tables hold only what the domain owns.
            if !unsafe { vmcs::enter(gprs, self.launched) } {
                log::error!(
                    "VM entry failed, error {}",
                    vmcs::read(Field::InstructionError)
                );
                return Exit::Unexpected(u64::MAX);
            }
            self.launched = true;
            self.event_queued = false;
            let reason = vmcs::read(Field::ExitReason) as u32;
            self.requeue_interrupted_event();
            match reason {
                reason::EXCEPTION => {
                    if let Some(exit) = self.exception() {
                        return exit;
                    }
                }
                reason::CONTROL_REGISTER => {
                    if let Some(exit) = self.control_register(gprs) {
                        return exit;
                    }
                }
                reason::EPT_VIOLATION => {
                    Self::restore_nmi_blocking(vmcs::read(Field::ExitQualification));
                    return exit::decode(reason);
                }
                failed if failed & reason::ENTRY_FAILED != 0 => {
                    return Exit::Unexpected(failed.into());
                }
                _ => return exit::decode(reason),
            }
        }
    }

    fn rip(&self) -> u64 {
        vmcs::read(Field::GuestRip)
    }

    fn rsp(&self) -> u64 {
        vmcs::read(Field::GuestRsp)
    }

    fn set_rsp(&mut self, rsp: u64) {
        vmcs::write(Field::GuestRsp, rsp);
    }

    fn rflags(&self) -> u64 {
        vmcs::read(Field::GuestRflags)
    }

    fn set_rflags(&mut self, rflags: u64) {
        vmcs::write(Field::GuestRflags, rflags);
    }

    fn system(&self) -> SystemRegisters {
        let merge = |real, mask: u64, shadow| vmcs::read(real) & !mask | vmcs::read(shadow) & mask;
        SystemRegisters {
            cr0: merge(Field::GuestCr0, CR0_NUMERIC_ERROR, Field::Cr0Shadow),
            cr3: vmcs::read(Field::GuestCr3),
            cr4: merge(Field::GuestCr4, !CR4_GUEST, Field::Cr4Shadow),
            efer: vmcs::read(Field::GuestEfer),
        }
    }

    fn set_cr2(&mut self, cr2: u64) {
        // SAFETY: CR2 only remembers an address, and is the guest's while it is loaded.
        unsafe { core::arch::asm!("mov cr2, {}", in(reg) cr2, options(nomem, nostack)) };
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let (selector, limit, rights, base) = match name {
            SegmentName::Es => SEGMENTS[0],
            SegmentName::Cs => SEGMENTS[1],
            SegmentName::Ds => SEGMENTS[3],
        };
        Segment {
            selector: vmcs::read(selector) as u16,
            attributes: vmcs::read(rights) as u32,
            limit: vmcs::read(limit) as u32,
            base: vmcs::read(base),
        }
    }

    fn cpl(&self) -> u8 {
        // SS.DPL is the current privilege level (SDM vol. 3, 25.4.1).
        (vmcs::read(Field::GuestSsRights) >> 5) as u8 & 3
    }

    fn instruction_length(&self) -> Option<u8> {
        Some(vmcs::read(Field::ExitInstructionLength) as u8)
    }

    fn skip(&mut self, length: u8) {
        vmcs::write(
            Field::GuestRip,
            vmcs::read(Field::GuestRip).wrapping_add(length.into()),
        );
        let interruptibility = vmcs::read(Field::GuestInterruptibility);
        if interruptibility & BLOCKED_BY_STI_OR_SS != 0 {
            vmcs::write(
                Field::GuestInterruptibility,
                interruptibility & !BLOCKED_BY_STI_OR_SS,
            );
        }
    }

    fn raise(&mut self, exception: Exception) {
        // In real mode exceptions push no error code (SDM vol. 3, 27.2.1.3).
        let protected = vmcs::read(Field::GuestCr0) & CR0_PROTECTED != 0;
        let code = exception.error_code.filter(|_| protected).map(u64::from);
        let flag = if code.is_some() { EVENT_ERROR_CODE } else { 0 };
        self.queue(EVENT_EXCEPTION | flag | u64::from(exception.vector), code);
    }

    fn inject_interrupt(&mut self, vector: u8) {
        self.queue(vector.into(), None);
    }

    fn inject_nmi(&mut self) {
        self.queue(EVENT_NMI | 2, None);
    }

    fn can_interrupt(&self) -> bool {
        !self.event_queued && self.interrupts_enabled()
    }

    fn interrupts_enabled(&self) -> bool {
        vmcs::read(Field::GuestRflags) & RFLAGS_INTERRUPT != 0
            && vmcs::read(Field::GuestInterruptibility) & BLOCKED_BY_STI_OR_SS == 0
    }

    fn can_nmi(&self) -> bool {
        let blocked = BLOCKED_BY_STI_OR_SS | BLOCKED_BY_NMI;
        !self.event_queued && vmcs::read(Field::GuestInterruptibility) & blocked == 0
    }

    fn want_interrupt_window(&mut self, want: bool) {
        self.set_window(primary::INTERRUPT_WINDOW, want);
    }

    fn want_nmi_window(&mut self, want: bool) {
        self.set_window(primary::NMI_WINDOW, want);
    }

    fn set_task_priority(&mut self, tpr: u8, waiting: Option<u8>) {
        // The register page is the virtual-APIC page: the priority itself is there already.
        let class = u64::from(tpr >> 4);
        let threshold = waiting
            .map(|vector| u64::from(vector >> 4))
            .filter(|&priority| priority <= class)
            .unwrap_or(0);
        if threshold != self.threshold {
            self.threshold = threshold;
            vmcs::write(Field::TprThreshold, threshold);
        }
    }

    fn task_priority(&self) -> u8 {
        crate::memory::guest_page(self.apic_page.frame())
            .map_or(0, |page| page.u8(TPR).load(Ordering::Relaxed))
    }

    fn set_deadline(&mut self, deadline: Option<u64>) -> bool {
        self.deadline = deadline;
        self.timer_shift.is_some()
    }

    fn read_kept_msr(&self, index: u32) -> Option<u64> {
        (index == 0xC000_0080).then(|| vmcs::read(Field::GuestEfer))
    }

    fn write_kept_msr(&mut self, index: u32, value: u64) -> Option<bool> {
        if index != 0xC000_0080 {
            return None;
        }
        let old = vmcs::read(Field::GuestEfer);
        let paging = vmcs::read(Field::GuestCr0) & CR0_PAGING != 0;
        if value & !EFER_ALLOWED != 0 || (paging && (value ^ old) & EFER_LME != 0) {
            return Some(false);
        }
        // LMA is the CPU's own.
        vmcs::write(Field::GuestEfer, value & !EFER_LMA | old & EFER_LMA);
        Some(true)
    }

    fn dump(&self, out: &mut dyn fmt::Write) -> fmt::Result {
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
        } = self.system();
        writeln!(
            out,
            "cr0 {cr0:#x} cr2 {:#x} cr3 {cr3:#x} cr4 {cr4:#x} efer {efer:#x} cpl {}",
            Cr2::read_raw(),
            self.cpl()
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
        )
    }
}
