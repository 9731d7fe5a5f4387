//! A vCPU's registers for the control domain: asked for by any CPU, taken by the one on which it is loaded.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use oxen_abi::domctl::context as record;
use spin::Mutex;

use super::{Running, VcpuShared, Wait};
use crate::time;
use crate::virt::{Gprs, Vcpu};

/// An `hvm_hw_cpu` (`public/arch-x86/hvm/save.h`). Floating-point state is not in it, and its flags say so.
pub type Record = [u8; record::CPU_SIZE];

/// A vCPU's place for the question and the answer.
#[derive(Default)]
pub struct Snapshot {
    wanted: AtomicBool,
    taken: Mutex<Option<Box<Record>>>,
}

impl VcpuShared {
    /// The registers, if they have been taken since [`VcpuShared::want_registers`].
    pub fn take_registers(&self) -> Option<Box<Record>> {
        self.snapshot.taken.lock().take()
    }

    /// Whether they have been.
    pub fn has_registers(&self) -> bool {
        self.snapshot.taken.lock().is_some()
    }

    /// Asks for the registers: the CPU that runs the vCPU, or the one where it is woken for that, paused or not.
    pub fn want_registers(&self) {
        if !self.snapshot.wanted.swap(true, Ordering::AcqRel) {
            self.kick();
        }
    }

    /// Whether somebody waits for the registers.
    pub fn are_registers_wanted(&self) -> bool {
        self.snapshot.wanted.load(Ordering::Acquire)
    }
}

/// Answers, if somebody has asked. Called by the CPU on which the vCPU is loaded, outside of the guest.
pub fn answer<H: Vcpu>(vcpu: &mut Running<H>) {
    if !vcpu.shared().snapshot.wanted.load(Ordering::Relaxed) {
        return;
    }
    let record = take(vcpu);
    let place = &vcpu.shared().snapshot;
    *place.taken.lock() = Some(record);
    place.wanted.store(false, Ordering::Release);
}

fn take<H: Vcpu>(vcpu: &mut Running<H>) -> Box<Record> {
    /// The record's order of general-purpose registers, by x86 encoding.
    const ORDER: [usize; 16] = [0, 3, 1, 2, 5, 6, 7, 4, 8, 9, 10, 11, 12, 13, 14, 15];
    const RSP: usize = 4;
    let mut bytes = Box::new([0; record::CPU_SIZE]);
    // One that has not started has no registers yet, but for what it will start with.
    if vcpu.wait == Wait::Down && !vcpu.shared().is_initialised() {
        return bytes;
    }
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    let registers = vcpu.hardware.registers();
    let mut general: Gprs = vcpu.gprs;
    general.0[RSP] = registers.rsp;
    for (index, register) in ORDER.into_iter().enumerate() {
        put(record::GENERAL + 8 * index, general.0[register]);
    }
    for (index, value) in vcpu.debug_registers.into_iter().enumerate() {
        put(record::DR0 + 8 * index, value);
    }
    for (at, value) in [
        (record::RIP, registers.rip),
        (record::RFLAGS, registers.rflags),
        (record::CR0, registers.cr0),
        (record::CR2, registers.cr2),
        (record::CR3, registers.cr3),
        (record::CR4, registers.cr4),
        (record::DR6, registers.dr6),
        (record::DR7, registers.dr7),
        (record::GDTR_BASE, registers.gdtr.base),
        (record::IDTR_BASE, registers.idtr.base),
        (record::SYSENTER, registers.sysenter[0]),
        (record::SYSENTER + 8, registers.sysenter[1]),
        (record::SYSENTER + 16, registers.sysenter[2]),
        (record::SHADOW_GS, registers.kernel_gs_base),
        (record::LSTAR, registers.lstar),
        (record::STAR, registers.star),
        (record::CSTAR, registers.cstar),
        (record::SYSCALL_MASK, registers.syscall_mask),
        (record::EFER, registers.efer),
        (record::TSC_AUX, registers.tsc_aux),
        (record::TSC, time::ticks()),
    ] {
        put(at, value);
    }
    for (index, segment) in registers.segments.iter().enumerate() {
        put(record::BASES + 8 * index, segment.base);
    }
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    for (index, segment) in registers.segments.iter().enumerate() {
        let rights = segment.attributes & 0xFF | segment.attributes >> 4 & 0xF00;
        put(record::SELECTORS + 4 * index, segment.selector.into());
        put(record::LIMITS + 4 * index, segment.limit);
        put(record::RIGHTS + 4 * index, rights);
    }
    put(record::GDTR_LIMIT, registers.gdtr.limit);
    put(record::IDTR_LIMIT, registers.idtr.limit);
    bytes
}
