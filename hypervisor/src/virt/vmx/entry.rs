//! The world switch: guest registers in, VM entry, VM exit, guest registers out.

use core::arch::global_asm;

use super::fields::Field;
use crate::virt::Gprs;

// extern "sysv64" fn vmx_enter(registers, resume) -> failed
//
// HOST_RSP points at the saved pointer to the registers, so that the exit finds it. The flags of TEST live until the
// jump, as MOV changes none.
global_asm!(
    ".section .text",
    ".balign 16",
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
    "3:", // only an entry that failed before it began comes here
    "mov eax, 1",
    "add rsp, 8",
    "jmp 4f",
    ".balign 16",
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
    "pop qword ptr [rdi + 56]",
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
