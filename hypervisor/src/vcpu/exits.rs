//! What each exit leads to, by topic.

use oxen_core::apic::Effect;
use oxen_core::emulate;

use super::{Running, Wait, cpuid, interrupts, io, mmio, msr};
use crate::domain::crash;
use crate::hypercall;
use crate::platform;
use crate::virt::{ControlRegisterAccess, Exception, Exit, Gprs, Vcpu};

/// Handles an exit; an external interrupt has been taken.
pub fn handle<H: Vcpu>(vcpu: &mut Running<H>, exit: Exit) {
    match exit {
        Exit::Hypercall => hypercall::handle(vcpu),
        Exit::Cpuid => answer_cpuid(vcpu),
        Exit::ReadMsr => msr::read(vcpu),
        Exit::WriteMsr => msr::write(vcpu),
        Exit::Halt => halt(vcpu),
        Exit::Port(access) => io::handle(vcpu, access),
        Exit::NestedFault(fault) => mmio::handle(vcpu, fault),
        Exit::ApicWrite(offset) => {
            let effect = vcpu.apic.written(offset);
            interrupts::apply(vcpu, effect);
        }
        Exit::EndOfInterrupt(vector) => {
            interrupts::apply(
                vcpu,
                Effect::Eoi {
                    vector,
                    level: true,
                },
            );
        }
        Exit::InterruptWindow => vcpu.hardware.want_interrupt_window(false),
        Exit::NmiWindow => vcpu.hardware.want_nmi_window(false),
        Exit::Nmi | Exit::ExternalInterrupt => halt_in_shadow(vcpu),
        Exit::Deadline | Exit::MachineCheck => {}
        Exit::Pause => {
            // It spins for something that another vCPU holds: let that one have the CPU.
            vcpu.yield_turn();
            skip(vcpu);
        }
        Exit::UndefinedOpcode => undefined_opcode(vcpu),
        Exit::Xsetbv => xsetbv(vcpu),
        Exit::CacheFlush => flush_caches(vcpu),
        Exit::ControlRegister(access) => control_register(vcpu, access),
        Exit::Refused => vcpu.hardware.raise(Exception::UNDEFINED_OPCODE),
        Exit::Shutdown => crash::triple_fault(vcpu),
        Exit::Unexpected(code) => crash::unexpected(vcpu, code),
    }
}

/// Moves past the instruction that exited.
pub fn skip<H: Vcpu>(vcpu: &mut Running<H>) {
    if let Some(length) = vcpu.hardware.instruction_length() {
        vcpu.hardware.skip(length);
        return;
    }
    // Where the bytes cannot be read any more, the fault has been raised instead.
    let Some((bytes, mode)) = mmio::fetch(vcpu) else {
        return;
    };
    match emulate::instruction_length(&bytes, mode) {
        Some(length) => vcpu.hardware.skip(length),
        // The instruction was executed a moment ago: only a guest that rewrites it as it runs gets here.
        None => vcpu.hardware.raise(Exception::UNDEFINED_OPCODE),
    }
}

fn answer_cpuid<H: Vcpu>(vcpu: &mut Running<H>) {
    const CR4_OSXSAVE: u64 = 1 << 18;
    let (leaf, subleaf) = (vcpu.gprs.0[Gprs::RAX] as u32, vcpu.gprs.0[Gprs::RCX] as u32);
    let domain = &vcpu.domain;
    let view = cpuid::View {
        vcpu: u32::from(vcpu.shared().id.0),
        apic_id: vcpu.apic.id(),
        domain,
        // One leaf shows it, and it takes some looking up.
        osxsave: leaf == 1 && vcpu.hardware.system().cr4 & CR4_OSXSAVE != 0,
    };
    let mut result = cpuid::values(&view, leaf, subleaf);
    domain.control.update_cpu_policy(&mut vcpu.cpu_policy);
    if let Some(policy) = &vcpu.cpu_policy.policy {
        result = policy.apply(leaf, subleaf, result);
    }
    let registers = [Gprs::RAX, Gprs::RBX, Gprs::RCX, Gprs::RDX];
    for (register, value) in registers.into_iter().zip(result) {
        vcpu.gprs.0[register] = value.into();
    }
    skip(vcpu);
}

/// HLT with interrupts off ends a vCPU: PVH Linux powers off that way where ACPI offers none.
fn halt<H: Vcpu>(vcpu: &mut Running<H>) {
    skip(vcpu);
    halted(vcpu);
}

/// Where an interrupt of the machine's or an NMI ended guest mode between STI and HLT, and the next entry would let interrupts
/// in before the HLT: what the HLT does is done now.
pub fn halt_in_shadow<H: Vcpu>(vcpu: &mut Running<H>) {
    const LENGTH: u8 = 1;
    if vcpu.hardware.will_forget_shadow() && mmio::is_at_halt(vcpu) {
        vcpu.hardware.skip(LENGTH);
        halted(vcpu);
    }
}

/// Behind the HLT.
fn halted<H: Vcpu>(vcpu: &mut Running<H>) {
    const RFLAGS_INTERRUPT: u64 = 1 << 9;
    if vcpu.hardware.rflags() & RFLAGS_INTERRUPT == 0 && !vcpu.shared().nmi_waits() {
        crash::vcpu_down(vcpu);
        return;
    }
    interrupts::before_wait(vcpu);
    if !interrupts::halt_ends(vcpu) {
        vcpu.wait = Wait::Halted;
    }
}

/// #UD may be the other vendor's hypercall instruction: it works, so that a guest's choice by CPUID vendor never matters.
fn undefined_opcode<H: Vcpu>(vcpu: &mut Running<H>) {
    const VMCALL: [u8; 3] = [0x0F, 0x01, 0xC1];
    const VMMCALL: [u8; 3] = [0x0F, 0x01, 0xD9];
    let hypercall = mmio::fetch(vcpu)
        .is_some_and(|(bytes, _)| bytes.starts_with(&VMCALL) || bytes.starts_with(&VMMCALL));
    if hypercall {
        hypercall::handle_with_length(vcpu, VMCALL.len() as u8);
    } else {
        vcpu.hardware.raise(Exception::UNDEFINED_OPCODE);
    }
}

fn xsetbv<H: Vcpu>(vcpu: &mut Running<H>) {
    let index = vcpu.gprs.0[Gprs::RCX] as u32;
    let value = vcpu.gprs.edx_eax();
    if vcpu.hardware.cpl() == 0 && index == 0 && vcpu.fpu.write_xcr0(value) {
        skip(vcpu);
    } else {
        vcpu.general_protection();
    }
}

/// A domain that drives real devices may need its caches written back; for others memory is coherent anyway. INVD never
/// discards: it could take the hypervisor's own writes with it.
fn flush_caches<H: Vcpu>(vcpu: &mut Running<H>) {
    if vcpu.domain.privileged {
        platform::write_back_caches();
    }
    skip(vcpu);
}

fn control_register<H: Vcpu>(vcpu: &mut Running<H>, access: ControlRegisterAccess) {
    match access {
        ControlRegisterAccess::WriteCr8(priority) => vcpu.apic.set_tpr(priority << 4),
        ControlRegisterAccess::ReadCr8(register) => {
            let priority = u64::from(vcpu.apic.tpr() >> 4);
            set_register(vcpu, register, priority);
        }
    }
    skip(vcpu);
}

/// Writes a general-purpose register by its encoding, the stack pointer included.
pub fn set_register<H: Vcpu>(vcpu: &mut Running<H>, register: usize, value: u64) {
    const RSP: usize = 4;
    if register == RSP {
        vcpu.hardware.set_rsp(value);
    } else {
        vcpu.gprs.0[register & 15] = value;
    }
}

/// Reads a general-purpose register by its encoding, the stack pointer included.
pub fn register<H: Vcpu>(vcpu: &Running<H>, register: usize) -> u64 {
    const RSP: usize = 4;
    if register == RSP {
        vcpu.hardware.rsp()
    } else {
        vcpu.gprs.0[register & 15]
    }
}
