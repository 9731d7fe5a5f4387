//! A vCPU on AMD-V.

use core::fmt;
use core::ptr::NonNull;

use oxen_core::address::HostPhys;
use oxen_core::registers::{Table, cr0, rflags, segment};

use super::asid::Asid;
use super::vmcb::{PackedSegment, Vmcb, clean, event, intercept_1, intercept_2, virtual_interrupt};
use super::{Features, Svm, emulation, entry, exit, host_area, missing};
use crate::cpu::{self, msr};
use crate::memory::HostPages;
use crate::virt::{
    Exception, Exit, Gprs, Missing, Msrs, Registers, Segment, SegmentName, SystemRegisters, Vcpu,
    VcpuConfig,
};

const EFER_SVME: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME, LMA, NXE, FFXSR: what guests may set.
const EFER_ALLOWED: u64 = 1 | 1 << 8 | EFER_LMA | 1 << 11 | 1 << 14;
const RFLAGS_INTERRUPT: u64 = 1 << 9;
const TSC_AUX: u32 = 0xC000_0103;

/// Hardware state of one vCPU.
pub struct SvmVcpu {
    page: HostPages,
    features: Features,
    host_area: HostPhys,
    /// On the CPU that it was last loaded on.
    asid: Option<Asid>,
    /// Clean bits to clear at the next entry.
    dirty: u64,
    flush: bool,
    tsc_aux: u64,
    /// An NMI was delivered and its IRET has not been seen yet.
    nmi_blocked: bool,
    /// RIP of an intercepted IRET: until it has run, the NMI handler's frame is still in use.
    iret_at: Option<u64>,
    nmi_window: bool,
}

impl SvmVcpu {
    pub(super) fn new(
        features: Features,
        msr_map: HostPhys,
        config: VcpuConfig,
    ) -> Result<Self, Missing> {
        let page = HostPages::new_zeroed(1).ok_or_else(|| missing("memory for a control block"))?;
        let mut this = Self {
            page,
            features,
            host_area: HostPhys(0),
            asid: None,
            dirty: clean::ALL,
            flush: true,
            tsc_aux: 0,
            nmi_blocked: false,
            iret_at: None,
            nmi_window: false,
        };
        const UNDEFINED_OPCODE: u32 = 1 << 6;
        const MACHINE_CHECK: u32 = 1 << 18;
        // A guest whose #AC or #DB handler faults the same way would otherwise loop in microcode for ever.
        const ENDLESS: u32 = 1 << 1 | 1 << 17;
        let control = &mut this.vmcb_mut().control;
        control.intercept_exceptions = UNDEFINED_OPCODE | MACHINE_CHECK | ENDLESS;
        control.intercept_1 = intercept_1::INTERRUPT
            | intercept_1::NMI
            | intercept_1::INIT
            | intercept_1::RDPMC
            | intercept_1::CPUID
            | intercept_1::INVD
            | intercept_1::HLT
            | intercept_1::INVLPGA
            | intercept_1::PORT
            | intercept_1::MSR
            | intercept_1::TASK_SWITCH
            | intercept_1::SHUTDOWN;
        control.intercept_2 = intercept_2::SVM_INSTRUCTIONS
            | intercept_2::WBINVD
            | intercept_2::MONITOR
            | intercept_2::MWAIT
            | intercept_2::XSETBV
            | intercept_2::RDPRU;
        if features.pause_filter {
            const PAUSES: u16 = 3000;
            control.intercept_1 |= intercept_1::PAUSE;
            control.pause_filter_count = PAUSES;
        }
        control.port_map = config.port_bitmap.0;
        control.msr_map = msr_map.0;
        control.tsc_offset = config.tsc_offset;
        control.virtual_interrupt = virtual_interrupt::MASKING;
        control.nested_enable = 1;
        control.nested_root = config.nested_root.address().0;
        Ok(this)
    }

    fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is ours, zeroed when made, and a Vmcb is plain data; the CPU writes it only during `enter`.
        unsafe { self.page.pointer().cast::<Vmcb>().as_ref() }
    }

    fn vmcb_mut(&mut self) -> &mut Vmcb {
        let mut pointer: NonNull<Vmcb> = self.page.pointer().cast();
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { pointer.as_mut() }
    }

    fn inject(&mut self, value: u64) {
        self.vmcb_mut().control.event_injection = value | event::VALID;
    }

    /// Queues again what the exit interrupted (APM vol. 2, 15.7.2).
    fn requeue_interrupted_event(&mut self) {
        let info = self.vmcb().control.exit_interrupt_info;
        if info & event::VALID != 0 {
            self.vmcb_mut().control.event_injection = info;
        }
    }

    fn set_virtual_interrupt(&mut self, change: impl FnOnce(u64) -> u64, intercept: bool) {
        let control = &mut self.vmcb_mut().control;
        control.virtual_interrupt = change(control.virtual_interrupt);
        if intercept {
            control.intercept_1 |= intercept_1::VIRTUAL_INTERRUPT;
        } else {
            control.intercept_1 &= !intercept_1::VIRTUAL_INTERRUPT;
        }
        self.dirty |= clean::VIRTUAL_INTERRUPT | clean::INTERCEPTS;
    }

    fn intercept_iret(&mut self, on: bool) {
        let control = &mut self.vmcb_mut().control;
        if on {
            control.intercept_1 |= intercept_1::IRET;
        } else {
            control.intercept_1 &= !intercept_1::IRET;
        }
        self.dirty |= clean::INTERCEPTS;
    }

    fn prepare_tlb(&mut self) {
        const FLUSH_ALL: u32 = 1;
        const FLUSH_GUEST: u32 = 3;
        let flush = core::mem::take(&mut self.flush);
        let by_asid = self.features.flush_by_asid;
        self.vmcb_mut().control.tlb_control = match (flush, by_asid) {
            (false, _) => 0,
            (true, true) => FLUSH_GUEST,
            (true, false) => FLUSH_ALL,
        };
    }

    /// Exits that are the backend's own business; `None` means enter again.
    fn own_exit(&mut self) -> Option<Exit> {
        match self.vmcb().control.exit_code {
            exit::code::EXCEPTION_DEBUG => {
                self.inject(event::EXCEPTION | 1);
                None
            }
            exit::code::EXCEPTION_ALIGNMENT => {
                self.inject(event::EXCEPTION | event::ERROR_CODE_VALID | 17);
                None
            }
            exit::code::IRET => {
                self.nmi_blocked = false;
                self.iret_at = Some(self.vmcb().save.rip);
                self.intercept_iret(false);
                self.nmi_window.then_some(Exit::NmiWindow)
            }
            _ => Some(exit::decode(self.vmcb())),
        }
    }
}

/// The privilege level that goes with registers, which the save area wants told apart.
const fn privilege(registers: &Registers) -> u8 {
    const USER: u8 = 3;
    if registers.rflags & rflags::VIRTUAL_8086 != 0 {
        USER
    } else if registers.cr0 & cr0::PROTECTED == 0 {
        0
    } else {
        (registers.segments[segment::SS].attributes >> 5) as u8 & USER
    }
}

impl Vcpu for SvmVcpu {
    type Backend = Svm;

    fn load(&mut self) {
        let cpu = cpu::current().id();
        self.host_area = host_area(cpu);
        // Another CPU may have what it cached of the control block.
        self.dirty = clean::ALL;
        let (asid, is_other) = Asid::on(cpu, self.asid, self.features.asids);
        self.flush |= is_other;
        self.asid = Some(asid);
        self.vmcb_mut().control.asid = asid.number();
        // SAFETY: the hypervisor itself uses no RDTSCP, so the value belongs to the loaded vCPU. On a CPU without the
        // register the write fails and nothing is lost.
        let _ = unsafe { msr::write_safe(TSC_AUX, self.tsc_aux) };
    }

    fn flush_nested(&mut self) {
        self.flush = true;
    }

    fn unload(&mut self) {
        self.tsc_aux = msr::read_safe(TSC_AUX).unwrap_or(0);
    }

    fn set_registers(&mut self, gprs: &mut Gprs, registers: &Registers) {
        const RSP: usize = 4;
        gprs.0 = registers.general;
        let [cs, ds, es, fs, gs, ss, tr, ldtr] = registers.segments.map(Into::into);
        let table = |table: Table| PackedSegment {
            base: table.base,
            limit: table.limit,
            ..PackedSegment::default()
        };
        let save = &mut self.vmcb_mut().save;
        (save.cs, save.ds, save.es, save.fs) = (cs, ds, es, fs);
        (save.gs, save.ss, save.tr, save.ldtr) = (gs, ss, tr, ldtr);
        (save.gdtr, save.idtr) = (table(registers.gdtr), table(registers.idtr));
        save.cpl = privilege(registers);
        save.efer = registers.efer | EFER_SVME;
        (save.cr0, save.cr2) = (registers.cr0, registers.cr2);
        (save.cr3, save.cr4) = (registers.cr3, registers.cr4);
        (save.dr6, save.dr7) = (registers.dr6, registers.dr7);
        (save.rflags, save.rip) = (registers.rflags, registers.rip);
        save.rsp = registers.general[RSP];
        save.pat = registers.pat;
        [save.sysenter_cs, save.sysenter_esp, save.sysenter_eip] = registers.sysenter;
        let control = &mut self.vmcb_mut().control;
        control.event_injection = 0;
        control.exit_interrupt_info = 0;
        control.interrupt_shadow = 0;
        self.nmi_blocked = false;
        self.iret_at = None;
        self.dirty = clean::ALL;
        self.set_virtual_interrupt(|_| virtual_interrupt::MASKING, false);
        self.intercept_iret(false);
    }

    fn set_msrs(&mut self, msrs: &Msrs) {
        let save = &mut self.vmcb_mut().save;
        save.kernel_gs_base = msrs.kernel_gs_base;
        (save.star, save.lstar, save.cstar) = (msrs.star, msrs.lstar, msrs.cstar);
        save.sfmask = msrs.syscall_mask;
        self.tsc_aux = msrs.tsc_aux;
        // SAFETY: as in `load`: the vCPU is loaded.
        let _ = unsafe { msr::write_safe(TSC_AUX, msrs.tsc_aux) };
    }

    fn enter(&mut self, gprs: &mut Gprs) -> Exit {
        loop {
            self.prepare_tlb();
            if self.features.qemu {
                emulation::exit_at_once(self.vmcb().control.event_injection);
            }
            let clean = if self.features.clean_bits {
                clean::ALL & !self.dirty
            } else {
                0
            };
            self.dirty = 0;
            let (guest, host) = (self.page.first().address(), self.host_area);
            let vmcb = self.vmcb_mut();
            vmcb.control.clean = clean;
            vmcb.save.rax = gprs.0[Gprs::RAX];
            // SAFETY: the control block is complete, its nested tables hold only what the domain owns, and `load` set the
            // host area of this CPU.
            unsafe { entry::enter(guest, gprs, host) };
            let vmcb = self.vmcb_mut();
            gprs.0[Gprs::RAX] = vmcb.save.rax;
            vmcb.control.event_injection = 0;
            self.requeue_interrupted_event();
            if let Some(exit) = self.own_exit() {
                return exit;
            }
        }
    }

    fn rip(&self) -> u64 {
        self.vmcb().save.rip
    }

    fn rsp(&self) -> u64 {
        self.vmcb().save.rsp
    }

    fn set_rsp(&mut self, rsp: u64) {
        self.vmcb_mut().save.rsp = rsp;
    }

    fn rflags(&self) -> u64 {
        self.vmcb().save.rflags
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.vmcb_mut().save.rflags = rflags;
    }

    fn registers(&mut self, gprs: &Gprs) -> Registers {
        const RSP: usize = 4;
        // The vCPU is loaded, and its guest writes this one itself.
        let tsc_aux = msr::read_safe(TSC_AUX).unwrap_or(self.tsc_aux);
        let save = &self.vmcb().save;
        let table = |packed: PackedSegment| Table {
            base: packed.base,
            limit: packed.limit,
        };
        let mut general = gprs.0;
        general[RSP] = save.rsp;
        Registers {
            general,
            rip: save.rip,
            rflags: save.rflags,
            cr0: save.cr0,
            cr2: save.cr2,
            cr3: save.cr3,
            cr4: save.cr4,
            dr6: save.dr6,
            dr7: save.dr7,
            efer: save.efer & !EFER_SVME,
            pat: save.pat,
            segments: [
                save.cs, save.ds, save.es, save.fs, save.gs, save.ss, save.tr, save.ldtr,
            ]
            .map(Into::into),
            gdtr: table(save.gdtr),
            idtr: table(save.idtr),
            sysenter: [save.sysenter_cs, save.sysenter_esp, save.sysenter_eip],
            msrs: Msrs {
                kernel_gs_base: save.kernel_gs_base,
                star: save.star,
                lstar: save.lstar,
                cstar: save.cstar,
                syscall_mask: save.sfmask,
                tsc_aux,
            },
            ..Registers::default()
        }
    }

    fn system(&self) -> SystemRegisters {
        let save = &self.vmcb().save;
        SystemRegisters {
            cr0: save.cr0,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: save.efer & !EFER_SVME,
        }
    }

    fn set_cr2(&mut self, cr2: u64) {
        self.vmcb_mut().save.cr2 = cr2;
        self.dirty |= clean::CR2;
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let save = &self.vmcb().save;
        let packed = match name {
            SegmentName::Es => save.es,
            SegmentName::Cs => save.cs,
            SegmentName::Ds => save.ds,
        };
        packed.into()
    }

    fn in_64_bit_mode(&self) -> bool {
        const EFER_LMA: u64 = 1 << 10;
        const LONG: u16 = 1 << 9;
        let save = &self.vmcb().save;
        save.efer & EFER_LMA != 0 && save.cs.attributes & LONG != 0
    }

    fn cpl(&self) -> u8 {
        self.vmcb().save.cpl
    }

    fn instruction_length(&self) -> Option<u8> {
        if !self.features.next_rip {
            return None;
        }
        let vmcb = self.vmcb();
        u8::try_from(vmcb.control.next_rip.wrapping_sub(vmcb.save.rip))
            .ok()
            .filter(|length| (1..=15).contains(length))
    }

    fn skip(&mut self, length: u8) {
        let vmcb = self.vmcb_mut();
        vmcb.save.rip = vmcb.save.rip.wrapping_add(length.into());
        vmcb.control.interrupt_shadow = 0;
    }

    fn raise(&mut self, exception: Exception) {
        let error = exception
            .error_code
            .map_or(0, |code| event::ERROR_CODE_VALID | u64::from(code) << 32);
        self.inject(event::EXCEPTION | u64::from(exception.vector) | error);
    }

    fn inject_interrupt(&mut self, vector: u8) {
        self.inject(event::EXTERNAL | u64::from(vector));
    }

    fn inject_nmi(&mut self) {
        self.inject(event::NMI | 2);
        self.nmi_blocked = true;
        self.intercept_iret(true);
    }

    fn queued_event(&self) -> Option<(u32, u32)> {
        let injection = self.vmcb().control.event_injection;
        (injection & event::VALID != 0).then_some((injection as u32, (injection >> 32) as u32))
    }

    fn can_interrupt(&self) -> bool {
        self.interrupts_enabled() && self.vmcb().control.event_injection & event::VALID == 0
    }

    fn interrupts_enabled(&self) -> bool {
        let vmcb = self.vmcb();
        vmcb.save.rflags & RFLAGS_INTERRUPT != 0 && vmcb.control.interrupt_shadow & 1 == 0
    }

    fn will_forget_shadow(&self) -> bool {
        self.features.qemu && emulation::forgets_shadow(self.vmcb())
    }

    fn can_nmi(&self) -> bool {
        let vmcb = self.vmcb();
        !self.nmi_blocked
            && self.iret_at != Some(vmcb.save.rip)
            && vmcb.control.interrupt_shadow & 1 == 0
            && vmcb.control.event_injection & event::VALID == 0
    }

    fn want_interrupt_window(&mut self, want: bool) {
        use virtual_interrupt::{IGNORE_TPR, PENDING};
        if want {
            self.set_virtual_interrupt(|field| field | PENDING | IGNORE_TPR, true);
        } else if self.vmcb().control.virtual_interrupt & PENDING != 0 {
            self.set_virtual_interrupt(|field| field & !(PENDING | IGNORE_TPR), false);
        }
    }

    fn want_nmi_window(&mut self, want: bool) {
        self.nmi_window = want;
    }

    fn set_task_priority(&mut self, tpr: u8, waiting: Option<u8>) {
        use virtual_interrupt::{IGNORE_TPR, PENDING, PRIORITY, PRIORITY_SHIFT, TPR};
        let class = u64::from(tpr >> 4);
        let held = waiting
            .map(|vector| u64::from(vector >> 4))
            .filter(|&priority| priority <= class);
        let field = self.vmcb().control.virtual_interrupt;
        match held {
            Some(priority) if field & IGNORE_TPR == 0 => self.set_virtual_interrupt(
                |field| field & !(TPR | PRIORITY) | class | PENDING | priority << PRIORITY_SHIFT,
                true,
            ),
            _ if field & TPR != class => {
                self.vmcb_mut().control.virtual_interrupt = field & !TPR | class;
                self.dirty |= clean::VIRTUAL_INTERRUPT;
            }
            _ => {}
        }
    }

    fn task_priority(&self) -> u8 {
        ((self.vmcb().control.virtual_interrupt & virtual_interrupt::TPR) << 4) as u8
    }

    fn set_deadline(&mut self, _deadline: Option<u64>) -> bool {
        // AMD-V has no preemption timer; the local APIC's timer ends guest mode.
        false
    }

    fn read_kept_msr(&self, index: u32) -> Option<u64> {
        let save = &self.vmcb().save;
        match index {
            0xC000_0080 => Some(save.efer & !EFER_SVME),
            0x277 => Some(save.pat),
            0xC000_0100 => Some(save.fs.base),
            0xC000_0101 => Some(save.gs.base),
            _ => None,
        }
    }

    fn write_kept_msr(&mut self, index: u32, value: u64) -> Option<bool> {
        const EFER_LME: u64 = 1 << 8;
        const CR0_PAGING: u64 = 1 << 31;
        if index != 0xC000_0080 {
            return None;
        }
        let save = &mut self.vmcb_mut().save;
        let paging = save.cr0 & CR0_PAGING != 0;
        if value & !EFER_ALLOWED != 0 || (paging && (value ^ save.efer) & EFER_LME != 0) {
            return Some(false);
        }
        // LMA is the CPU's own.
        save.efer = value & !EFER_LMA | save.efer & EFER_LMA | EFER_SVME;
        self.dirty |= clean::CONTROL_REGISTERS;
        Some(true)
    }

    fn dump(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let (control, save) = (&self.vmcb().control, &self.vmcb().save);
        writeln!(
            out,
            "exit {:#x} info {:#x} {:#x} event {:#x} injection {:#x}",
            control.exit_code,
            control.exit_info_1,
            control.exit_info_2,
            control.exit_interrupt_info,
            control.event_injection
        )?;
        writeln!(
            out,
            "cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x} rflags {:#x} cpl {}",
            save.cr0, save.cr2, save.cr3, save.cr4, save.efer, save.rflags, save.cpl
        )?;
        writeln!(
            out,
            "cs {:#x} base {:#x} attributes {:#x}; ss {:#x}; gdt {:#x}; idt {:#x}",
            save.cs.selector,
            save.cs.base,
            save.cs.attributes,
            save.ss.selector,
            save.gdtr.base,
            save.idtr.base
        )
    }
}
