//! The VMX instructions, and the VMCS that is current on this CPU.

use core::arch::{asm, global_asm};

use oxen_core::address::HostPhys;

use super::fields::Field;
use crate::virt::Gprs;

/// Reads a field of the current VMCS; a field that this CPU does not have reads 0.
#[inline]
pub fn read(field: Field) -> u64 {
    let value: u64;
    // SAFETY: VMREAD changes nothing but its destination; callers run with the vCPU loaded.
    unsafe { asm!("vmread {}, {}", out(reg) value, in(reg) field as u64, options(nomem, nostack)) };
    value
}

/// Writes a field of the current VMCS.
#[inline]
pub fn write(field: Field, value: u64) {
    // SAFETY: fields govern the guest; those that govern the way back are written only by `Vcpu::load`.
    unsafe { asm!("vmwrite {}, {}", in(reg) field as u64, in(reg) value, options(nostack)) };
}

/// Sets and clears bits of a field.
pub fn change(field: Field, set: u64, clear: u64) {
    write(field, read(field) & !clear | set);
}

/// Enters VMX operation on this CPU; false if the CPU refuses.
///
/// # Safety
/// `region` is a page of ours with the revision in its first word, kept for good; CR0 and CR4 are as VMX wants them.
pub unsafe fn on(region: HostPhys) -> bool {
    let failed: u8;
    // SAFETY: by the caller's promise.
    unsafe {
        asm!("vmxon [{}]", "setbe {}", in(reg) &region.0, out(reg_byte) failed, options(nostack))
    };
    failed == 0
}

/// Writes back and releases a VMCS.
///
/// # Safety
/// `region` is a VMCS of ours that no other CPU has loaded.
pub unsafe fn clear(region: HostPhys) {
    // SAFETY: by the caller's promise.
    unsafe { asm!("vmclear [{}]", in(reg) &region.0, options(nostack)) };
}

/// Makes a VMCS the current one.
///
/// # Safety
/// As for [`clear`].
pub unsafe fn load(region: HostPhys) {
    // SAFETY: by the caller's promise.
    unsafe { asm!("vmptrld [{}]", in(reg) &region.0, options(nostack)) };
}

/// Drops all cached guest-physical translations of this CPU (SDM vol. 3, 31.3, INVEPT type 2).
pub fn invalidate_all() {
    const ALL_CONTEXTS: u64 = 2;
    let descriptor = [0u64; 2];
    // SAFETY: dropping cached translations is always sound.
    unsafe { asm!("invept {}, [{}]", in(reg) ALL_CONTEXTS, in(reg) &descriptor, options(nostack)) };
}

// extern "sysv64" fn vmx_enter(registers, resume) -> failed
//
// HOST_RSP points at the saved pointer to the registers, so that the exit finds it.
global_asm!(
    ".section .text",
    ".global vmx_enter",
    "vmx_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "mov eax, {host_rsp}",
    "vmwrite rax, rsp",
    "test esi, esi",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "jnz 2f",
    "vmlaunch",
    "jmp 3f",
    "2:",
    "vmresume",
    "3:",
    "mov eax, 1",
    "add rsp, 8",
    "jmp 4f",
    ".global vmx_exit",
    "vmx_exit:",
    "push rdi",
    "mov rdi, [rsp + 8]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "pop rax",
    "mov [rdi + 56], rax",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "xor eax, eax",
    "add rsp, 8",
    "4:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    host_rsp = const Field::HostRsp as u32,
);

unsafe extern "sysv64" {
    fn vmx_enter(registers: *mut Gprs, resume: u32) -> u32;
    static vmx_exit: u8;
}

/// Where exits arrive.
pub fn exit_address() -> u64 {
    (&raw const vmx_exit) as u64
}

/// Runs the guest of the current VMCS until it exits; false if the entry failed before it began.
///
/// # Safety
/// The current VMCS is complete, its host state is this CPU's, its nested tables keep the guest out of our memory.
pub unsafe fn enter(registers: &mut Gprs, resume: bool) -> bool {
    // SAFETY: by the caller's promise; the assembly keeps all callee-saved registers.
    (unsafe { vmx_enter(registers, resume.into()) }) == 0
}
