//! A vCPU on VT-x.

use core::fmt;
use core::sync::atomic::Ordering;

use oxen_core::address::HostPhys;
use oxen_core::apic::local::{Mode, register};
use oxen_core::guest_page::GuestPage;
use oxen_core::id::CpuId;
use oxen_core::registers::reset;
use x86_64::registers::control::Cr2;

use super::capabilities::Capabilities;
use super::control_registers::{self, CR0_PROTECTED};
use super::controls::{pin, primary, secondary};
use super::fields::{Field, SEGMENTS};
use super::msr::Live;
use super::vpid::Vpid;
use super::{Vmx, apic, entry, events, exit, missing, report, state, vmcs};
use crate::cpu;
use crate::memory::{HostPages, guest_page};
use crate::time;
use crate::virt::{
    Exception, Exit, Gprs, Missing, Msrs, Registers, Segment, SegmentName, SystemRegisters, Vcpu,
    VcpuConfig,
};

/// Task priority in the local APIC's page.
const TASK_PRIORITY: usize = 0x80;

/// Hardware state of one vCPU.
pub struct VmxVcpu {
    region: HostPages,
    capabilities: Capabilities,
    config: VcpuConfig,
    vpid: Vpid,
    /// The plain one, and the one for an x2APIC that the CPU virtualizes.
    msr_bitmaps: [HostPhys; 2],
    /// The secondary controls with which the CPU virtualizes the local APIC now.
    apic_controls: u32,
    apic_page: GuestPage,
    live_msrs: Live,
    cr2: u64,
    dr6: u64,
    /// The VMCS holds nothing yet.
    fresh: bool,
    /// The VMCS is current on this CPU.
    loaded: bool,
    launched: bool,
    /// CPU whose host state the VMCS holds, and which may have translations cached.
    home: Option<CpuId>,
    /// An event waits for the next entry.
    pub(super) event_queued: bool,
    deadline: Option<u64>,
    /// Window controls that are on.
    windows: u32,
    /// The TPR threshold in the VMCS.
    threshold: u64,
}

impl VmxVcpu {
    /// Makes a vCPU that no CPU has loaded yet. Needs no VMX operation.
    pub(super) fn new(
        capabilities: &Capabilities,
        msr_bitmaps: [HostPhys; 2],
        config: &VcpuConfig,
    ) -> Result<Self, Missing> {
        let region =
            HostPages::new_zeroed(1).ok_or_else(|| missing(format_args!("memory for a VMCS")))?;
        region
            .shared()
            .u32(0)
            .store(capabilities.revision, Ordering::Relaxed);
        let vpid =
            Vpid::allocate().ok_or_else(|| missing(format_args!("a free virtual processor ID")))?;
        let apic_page = guest_page(config.apic_page.frame())
            .ok_or_else(|| missing(format_args!("RAM for the local APIC's page")))?;
        Ok(Self {
            region,
            capabilities: *capabilities,
            config: *config,
            vpid,
            msr_bitmaps,
            apic_controls: 0,
            apic_page,
            live_msrs: Live::default(),
            cr2: 0,
            dr6: reset::DR6,
            fresh: true,
            loaded: false,
            launched: false,
            home: None,
            event_queued: false,
            deadline: None,
            windows: 0,
            threshold: 0,
        })
    }

    pub(super) fn set_threshold(&mut self, threshold: u64) {
        if threshold != self.threshold {
            self.threshold = threshold;
            vmcs::write(Field::TprThreshold, threshold);
        }
    }

    /// The first load finds a VMCS in whatever state memory was (SDM vol. 3, 25.11.3).
    fn make_current(&mut self) {
        let address = self.region.first().address();
        if self.fresh {
            // SAFETY: a region of ours, which no CPU has loaded.
            unsafe { vmcs::clear(address) };
        }
        // SAFETY: a VMCS of ours, which `unload` released on whatever CPU had it.
        unsafe { vmcs::load(address) };
        self.loaded = true;
        self.launched = false;
        if self.fresh {
            self.fresh = false;
            let (vpid, msr_bitmap) = (self.vpid.number(), self.msr_bitmaps[0].0);
            state::write_controls(&self.capabilities, &self.config, vpid, msr_bitmap);
        }
    }

    /// Notes the registers that no VMCS holds and that the guest has left in the CPU.
    fn save_live(&mut self) {
        self.live_msrs.save();
        self.cr2 = Cr2::read_raw();
        // SAFETY: reading a debug register has no effect.
        unsafe { core::arch::asm!("mov {}, dr6", out(reg) self.dr6, options(nomem, nostack)) };
    }

    /// The timer counts only in guest mode, so it is set anew at each entry.
    #[inline]
    fn set_timer(&self) {
        if let (Some(deadline), Some(shift)) = (self.deadline, self.capabilities.timer_shift) {
            let counts = deadline.saturating_sub(time::ticks()) >> shift;
            vmcs::write(Field::PreemptionTimer, counts.min(u32::MAX.into()));
        }
    }

    fn set_windows(&mut self, bits: u32, want: bool) {
        let windows = if want {
            self.windows | bits
        } else {
            self.windows & !bits
        };
        if windows != self.windows {
            self.windows = windows;
            let controls = self.capabilities.primary | windows;
            vmcs::write(Field::ProcessorControls, controls.into());
        }
    }
}

impl Drop for VmxVcpu {
    fn drop(&mut self) {
        if self.loaded {
            // SAFETY: current on this CPU; the CPU must not write it back once its page is someone else's.
            unsafe { vmcs::clear(self.region.first().address()) };
        }
    }
}

impl Vcpu for VmxVcpu {
    type Backend = Vmx;

    fn load(&mut self) {
        self.make_current();
        let cpu = cpu::current().id();
        if self.home != Some(cpu) {
            self.home = Some(cpu);
            state::write_host();
            // The ID and the root may have been someone else's when this CPU last met them.
            vmcs::invalidate_vpid(self.capabilities.invvpid_single, self.vpid.number());
            self.flush_nested();
        }
        self.live_msrs.load();
        // SAFETY: CR2 and DR6 only tell of faults, and the hypervisor reads them only when one of its own stops it.
        unsafe {
            core::arch::asm!("mov cr2, {}", "mov dr6, {}", in(reg) self.cr2, in(reg) self.dr6, options(nomem, nostack));
        }
    }

    fn flush_nested(&mut self) {
        vmcs::invalidate_nested(
            self.capabilities.invept_single,
            state::ept_pointer(&self.config),
        );
    }

    fn unload(&mut self) {
        self.save_live();
        // SAFETY: a VMCS of ours, current on this CPU.
        unsafe { vmcs::clear(self.region.first().address()) };
        self.loaded = false;
    }

    fn set_registers(&mut self, gprs: &mut Gprs, registers: &Registers) {
        gprs.0 = registers.general;
        state::write_registers(registers);
        self.event_queued = false;
        self.set_windows(primary::INTERRUPT_WINDOW | primary::NMI_WINDOW, false);
        self.threshold = 0;
        vmcs::write(Field::TprThreshold, 0);
        if self.capabilities.apic_page != 0 {
            apic::clear_status();
        }
        // SAFETY: CR2 and DR6 only tell of faults.
        unsafe {
            core::arch::asm!("mov cr2, {}", "mov dr6, {}", in(reg) registers.cr2, in(reg) registers.dr6, options(nomem, nostack));
        }
    }

    fn set_msrs(&mut self, msrs: &Msrs) {
        self.live_msrs = Live::from_msrs(msrs);
        self.live_msrs.load();
    }

    fn enter(&mut self, gprs: &mut Gprs) -> Exit {
        loop {
            self.set_timer();
            // SAFETY: `load` and `start` completed the VMCS; its nested tables hold only what the domain owns.
            if !unsafe { entry::enter(gprs, self.launched) } {
                let error = vmcs::read(Field::InstructionError);
                report::log_failed_entry(format_args!("error {error}"));
                return Exit::Unexpected(u64::MAX);
            }
            self.launched = true;
            self.event_queued = false;
            self.requeue_interrupted_event();
            if let Some(exit) = exit::handle(self, gprs) {
                return exit;
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

    fn registers(&mut self, gprs: &Gprs) -> Registers {
        self.save_live();
        state::registers(gprs, &self.live_msrs, self.cr2, self.dr6)
    }

    fn system(&self) -> SystemRegisters {
        control_registers::visible()
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

    fn in_64_bit_mode(&self) -> bool {
        control_registers::in_64_bit_mode()
    }

    fn cpl(&self) -> u8 {
        // SS.DPL is the current privilege level (SDM vol. 3, 25.4.1).
        (vmcs::read(Field::GuestSsRights) >> 5) as u8 & 3
    }

    fn instruction_length(&self) -> Option<u8> {
        Some(vmcs::read(Field::ExitInstructionLength) as u8)
    }

    fn skip(&mut self, length: u8) {
        let next = vmcs::read(Field::GuestRip).wrapping_add(length.into());
        vmcs::write(Field::GuestRip, next);
        events::complete_instruction();
    }

    fn raise(&mut self, exception: Exception) {
        // In real mode exceptions push no error code (SDM vol. 3, 27.2.1.3).
        let protected = vmcs::read(Field::GuestCr0) & CR0_PROTECTED != 0;
        let code = exception.error_code.filter(|_| protected).map(u64::from);
        self.queue_exception(exception.vector, code);
    }

    fn inject_interrupt(&mut self, vector: u8) {
        self.queue_interrupt(vector);
    }

    fn inject_nmi(&mut self) {
        self.queue_nmi();
    }

    fn queued_event(&self) -> Option<(u32, u32)> {
        self.event_queued.then(|| {
            (
                vmcs::read(Field::EntryInterruption) as u32,
                vmcs::read(Field::EntryErrorCode) as u32,
            )
        })
    }

    fn can_interrupt(&self) -> bool {
        !self.event_queued && events::interrupts_enabled()
    }

    fn interrupts_enabled(&self) -> bool {
        events::interrupts_enabled()
    }

    fn can_nmi(&self) -> bool {
        !self.event_queued && events::nmis_enabled()
    }

    fn want_interrupt_window(&mut self, want: bool) {
        self.set_windows(primary::INTERRUPT_WINDOW, want);
    }

    fn want_nmi_window(&mut self, want: bool) {
        self.set_windows(primary::NMI_WINDOW, want);
    }

    fn set_task_priority(&mut self, tpr: u8, waiting: Option<u8>) {
        // The register page is the virtual-APIC page: the priority itself is there already. A threshold above it would make
        // the entry fail (SDM vol. 3, 27.2.1.1).
        let class = u64::from(tpr >> 4);
        let threshold = waiting
            .map(|vector| u64::from(vector >> 4))
            .filter(|&priority| priority <= class)
            .unwrap_or(0);
        self.set_threshold(threshold);
    }

    fn task_priority(&self) -> u8 {
        self.apic_page.u8(TASK_PRIORITY).load(Ordering::Relaxed)
    }

    fn set_apic_mode(&mut self, mode: Mode) {
        if self.capabilities.apic_page == 0 {
            let secondary =
                self.capabilities.secondary | apic::plain_controls(&self.capabilities, mode);
            vmcs::write(Field::SecondaryControls, secondary.into());
            return;
        }
        self.apic_controls = apic::controls(&self.capabilities, mode);
        let secondary = self.capabilities.secondary | self.apic_controls;
        let by_msr = self.apic_controls & secondary::X2APIC != 0;
        vmcs::write_all([
            (Field::SecondaryControls, secondary.into()),
            (Field::MsrBitmap, self.msr_bitmaps[usize::from(by_msr)].0),
        ]);
        if self.delivers_interrupts() {
            // Until now the page may have been worked on without the CPU's knowledge.
            self.set_threshold(0);
            let highest = |array: usize| {
                (0..8).rev().find_map(|word| {
                    let bits = self
                        .apic_page
                        .u32(array + word * 0x10)
                        .load(Ordering::Relaxed);
                    (bits != 0).then(|| (word as u32 * 32 + 31 - bits.leading_zeros()) as u8)
                })
            };
            apic::set_status(
                highest(register::IRR as usize).unwrap_or(0),
                highest(register::ISR as usize).unwrap_or(0),
            );
        }
    }

    fn delivers_interrupts(&self) -> bool {
        self.apic_controls != 0
    }

    fn set_requested(&mut self, vector: u8) {
        apic::set_requested(vector);
    }

    fn set_end_exits(&mut self, vectors: &[u32; 8]) {
        apic::set_end_exits(vectors);
    }

    fn set_deadline(&mut self, deadline: Option<u64>) -> bool {
        if self.capabilities.timer_shift.is_none() {
            return false;
        }
        if self.deadline.is_some() != deadline.is_some() {
            let on = if deadline.is_some() {
                pin::PREEMPTION_TIMER
            } else {
                0
            };
            vmcs::write(
                Field::PinControls,
                u64::from(self.capabilities.pin) | u64::from(on),
            );
        }
        self.deadline = deadline;
        true
    }

    fn read_kept_msr(&self, _: u32) -> Option<u64> {
        // Reads of those MSRs do not exit, see `msr`.
        None
    }

    fn write_kept_msr(&mut self, _: u32, _: u64) -> Option<bool> {
        None
    }

    fn dump(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        report::write(out, self.cpl())
    }
}
