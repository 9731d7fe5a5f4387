//! What QEMU's emulation of AMD-V does otherwise than a CPU.

use super::vmcb::{Vmcb, event};
use crate::cpu;
use crate::interrupt::{local_apic, vectors};

/// Whether the CPU is QEMU's own emulation, which says so where hypervisors tell their names.
pub fn is_qemu() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    let cpuid = core::arch::x86_64::__cpuid;
    if cpuid(1).ecx & HYPERVISOR == 0 {
        return false;
    }
    let leaf = cpuid(0x4000_0000);
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    name.as_flattened() == b"TCGTCGTCGTCG"
}

/// Whether an entry would forget that the guest's interrupts wait for one more instruction, as STI asked for.
///
/// QEMU (seen in 7.2) tells that in the control block at an exit, but does not look for it there at the next entry. An interrupt
/// would come in before the HLT of `sti; hlt`, and the guest would sleep on, with nothing left to wake it. `vcpu/exits.rs` takes
/// the HLT at once there.
pub const fn forgets_shadow(vmcb: &Vmcb) -> bool {
    const SHADOW: u64 = 1;
    vmcb.control.interrupt_shadow & SHADOW != 0
}

/// To be called before an entry with `injection` in the control block, if the CPU is QEMU's.
///
/// QEMU (seen in 7.2) delivers an injected interrupt at the entry, but leaves it noted as the exception that its CPU loop
/// is about to raise. Where the loop stops for a reason of its own before the guest exits or faults, it delivers the
/// interrupt once more, whatever RFLAGS.IF is by then: into critical sections, and onto stacks that are not whole yet. With
/// a physical interrupt waiting at the entry the guest exits before its first instruction, which ends the note.
pub fn exit_at_once(injection: u64) {
    if injection & (event::VALID | event::KIND) == event::VALID | event::EXTERNAL {
        local_apic::send(cpu::current().apic_id(), vectors::ATTENTION);
    }
}
