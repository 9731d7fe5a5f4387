//! Events on their way into the guest, and those that an exit brought.

use super::fields::Field;
use super::vcpu::VmxVcpu;
use super::vmcs;
use crate::interrupt;
use crate::virt::{Exit, Gprs};

// Interruption information, of entries and exits (SDM vol. 3, 25.8.3 and 25.9.2).
const VALID: u64 = 1 << 31;
const ERROR_CODE: u64 = 1 << 11;
const KIND: u64 = 7 << 8;
const NMI: u64 = 2 << 8;
const EXCEPTION: u64 = 3 << 8;
const SOFTWARE_INTERRUPT: u64 = 4 << 8;
const PRIVILEGED_SOFTWARE_EXCEPTION: u64 = 5 << 8;
const NMI_VECTOR: u64 = 2;

// Interruptibility (SDM vol. 3, table 25-3).
const BLOCKED_BY_STI_OR_SS: u64 = 0b11;
const BLOCKED_BY_NMI: u64 = 1 << 3;

/// A single step is pending, in the pending debug exceptions (SDM vol. 3, table 25-4).
const PENDING_STEP: u64 = 1 << 14;
const RFLAGS_TRAP: u64 = 1 << 8;
const RFLAGS_INTERRUPT: u64 = 1 << 9;

impl VmxVcpu {
    fn queue(&mut self, information: u64, error_code: Option<u64>) {
        let flag = if error_code.is_some() { ERROR_CODE } else { 0 };
        vmcs::write(Field::EntryInterruption, information | flag | VALID);
        if let Some(code) = error_code {
            vmcs::write(Field::EntryErrorCode, code);
        }
        self.event_queued = true;
    }

    pub(super) fn queue_exception(&mut self, vector: u8, error_code: Option<u64>) {
        self.queue(EXCEPTION | u64::from(vector), error_code);
    }

    pub(super) fn queue_interrupt(&mut self, vector: u8) {
        self.queue(vector.into(), None);
    }

    pub(super) fn queue_nmi(&mut self) {
        self.queue(NMI | NMI_VECTOR, None);
    }

    /// Queues again what the exit interrupted in its delivery (SDM vol. 3, 28.2.4).
    pub(super) fn requeue_interrupted_event(&mut self) {
        let information = vmcs::read(Field::VectoringInformation);
        if information & VALID != 0 {
            self.requeue(information);
        }
    }

    #[cold]
    fn requeue(&mut self, information: u64) {
        const VECTOR: u64 = 0xFF;
        let kind = information & KIND;
        if kind == NMI {
            // It will be delivered again, and blocks then.
            vmcs::change(Field::GuestInterruptibility, 0, BLOCKED_BY_NMI);
        }
        if kind >= SOFTWARE_INTERRUPT {
            vmcs::write(
                Field::EntryInstructionLength,
                vmcs::read(Field::ExitInstructionLength),
            );
        }
        let code = (information & ERROR_CODE != 0).then(|| vmcs::read(Field::VectoringErrorCode));
        self.queue(information & (KIND | VECTOR), code);
    }

    /// A debug exception, which exits so that one within the delivery of another cannot keep the CPU for ever. What the CPU
    /// would have done to the debug registers is done here (SDM vol. 3, 28.1 and 18.2.3).
    fn debug_exception(&mut self, kind: u64) {
        const DEBUG: u8 = 1;
        const BREAKPOINTS: u64 = 0xF;
        const DETECTED_AND_STEP: u64 = 0b11 << 13;
        const GENERAL_DETECT: u64 = 1 << 13;
        let hits = vmcs::read(Field::ExitQualification) & (BREAKPOINTS | DETECTED_AND_STEP);
        let status: u64;
        // SAFETY: DR6 is the guest's while it is loaded, and the hypervisor has no breakpoints.
        unsafe {
            core::arch::asm!("mov {}, dr6", out(reg) status, options(nomem, nostack));
            core::arch::asm!("mov dr6, {}", in(reg) status & !BREAKPOINTS | hits, options(nomem, nostack));
        }
        vmcs::change(Field::GuestDr7, 0, GENERAL_DETECT);
        let blocked = vmcs::read(Field::GuestInterruptibility) & BLOCKED_BY_STI_OR_SS != 0;
        if blocked && vmcs::read(Field::GuestRflags) & RFLAGS_TRAP != 0 {
            // Entry insists on it (SDM vol. 3, 27.3.1.5), and the exit has cleared it.
            vmcs::change(Field::GuestPendingDebug, PENDING_STEP, 0);
        }
        if kind == PRIVILEGED_SOFTWARE_EXCEPTION {
            // INT1: the handler returns behind the instruction.
            vmcs::write(
                Field::EntryInstructionLength,
                vmcs::read(Field::ExitInstructionLength),
            );
            self.queue(kind | u64::from(DEBUG), None);
        } else {
            self.queue_exception(DEBUG, None);
        }
    }
}

/// Handles exits for exceptions and NMIs.
pub fn exception(vcpu: &mut VmxVcpu, _: &mut Gprs) -> Option<Exit> {
    const DEBUG: u64 = 1;
    const UNDEFINED_OPCODE: u64 = 6;
    const ALIGNMENT: u64 = 17;
    let information = vmcs::read(Field::ExitInterruption);
    restore_nmi_blocking(information);
    if information & KIND == NMI {
        // SAFETY: the gate is the NMI's own; its IRET lets further NMIs in.
        unsafe { core::arch::asm!("int 2") };
        return Some(Exit::Nmi);
    }
    match information & 0xFF {
        UNDEFINED_OPCODE => return Some(Exit::UndefinedOpcode),
        DEBUG => vcpu.debug_exception(information & KIND),
        ALIGNMENT => vcpu.queue_exception(ALIGNMENT as u8, Some(0)),
        _ => interrupt::host_machine_check(),
    }
    None
}

/// An IRET that faulted had already ended the blocking of NMIs: it must hold until the IRET runs again (SDM vol. 3,
/// 28.2.3). `information` is that of the exception, or the qualification of an EPT violation.
pub fn restore_nmi_blocking(information: u64) {
    const UNBLOCKED_BY_IRET: u64 = 1 << 12;
    if information & UNBLOCKED_BY_IRET != 0 && vmcs::read(Field::VectoringInformation) & VALID == 0
    {
        vmcs::change(Field::GuestInterruptibility, BLOCKED_BY_NMI, 0);
    }
}

/// Whether IF is set and neither STI nor MOV SS blocks.
pub fn interrupts_enabled() -> bool {
    vmcs::read(Field::GuestRflags) & RFLAGS_INTERRUPT != 0
        && vmcs::read(Field::GuestInterruptibility) & BLOCKED_BY_STI_OR_SS == 0
}

/// Whether nothing blocks an NMI. Some CPUs refuse to inject one under an STI.
pub fn nmis_enabled() -> bool {
    vmcs::read(Field::GuestInterruptibility) & (BLOCKED_BY_STI_OR_SS | BLOCKED_BY_NMI) == 0
}

/// An instruction has been completed for the guest: what its execution would have ended ends, and a single step is due.
pub fn complete_instruction() {
    let interruptibility = vmcs::read(Field::GuestInterruptibility);
    if interruptibility & BLOCKED_BY_STI_OR_SS != 0 {
        vmcs::write(
            Field::GuestInterruptibility,
            interruptibility & !BLOCKED_BY_STI_OR_SS,
        );
    }
    if vmcs::read(Field::GuestRflags) & RFLAGS_TRAP != 0 {
        vmcs::change(Field::GuestPendingDebug, PENDING_STEP, 0);
    }
}
