//! The world switch.

use core::arch::global_asm;

use oxen_core::address::HostPhys;

use crate::virt::Gprs;

// extern "sysv64" fn svm_enter(guest: vmcb address, registers, host: save area address)
//
// Physical interrupts obey the host's IF as VMRUN saves it (V_INTR_MASKING), so IF is set before; GIF holds everything
// back until the host's own state is whole again. A pending NMI is taken by the host's handler at STGI.
global_asm!(
    ".section .text",
    ".global svm_enter",
    "svm_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rsi",
    "push rdx",
    "mov rax, rdi",
    "clgi",
    "sti",
    "vmload rax",
    "mov rcx, [rsi + 8]",
    "mov rdx, [rsi + 16]",
    "mov rbx, [rsi + 24]",
    "mov rbp, [rsi + 40]",
    "mov rdi, [rsi + 56]",
    "mov r8, [rsi + 64]",
    "mov r9, [rsi + 72]",
    "mov r10, [rsi + 80]",
    "mov r11, [rsi + 88]",
    "mov r12, [rsi + 96]",
    "mov r13, [rsi + 104]",
    "mov r14, [rsi + 112]",
    "mov r15, [rsi + 120]",
    "mov rsi, [rsi + 48]",
    "vmrun rax",
    "vmsave rax",
    "mov rax, [rsp + 8]",
    "mov [rax + 8], rcx",
    "mov [rax + 16], rdx",
    "mov [rax + 24], rbx",
    "mov [rax + 40], rbp",
    "mov [rax + 48], rsi",
    "mov [rax + 56], rdi",
    "mov [rax + 64], r8",
    "mov [rax + 72], r9",
    "mov [rax + 80], r10",
    "mov [rax + 88], r11",
    "mov [rax + 96], r12",
    "mov [rax + 104], r13",
    "mov [rax + 112], r14",
    "mov [rax + 120], r15",
    "mov rax, [rsp]",
    "vmload rax",
    "cli",
    "cld",
    "stgi",
    "add rsp, 16",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);

unsafe extern "sysv64" {
    fn svm_enter(guest: u64, registers: *mut Gprs, host: u64);
}

/// Runs the guest of the control block at `guest` until it exits. RAX and RSP are the control block's.
///
/// # Safety
/// `guest` is a complete control block whose nested tables keep the guest out of the hypervisor's memory, and `host`
/// holds this CPU's state as VMSAVE left it.
pub unsafe fn enter(guest: HostPhys, registers: &mut Gprs, host: HostPhys) {
    // SAFETY: by the caller's promise; the assembly keeps all callee-saved registers.
    unsafe { svm_enter(guest.0, registers, host.0) };
}

/// Saves this CPU's segment and system-call state to `area`, where [`enter`] finds it after each exit.
///
/// # Safety
/// `area` is a page of ours.
pub unsafe fn save_host(area: HostPhys) {
    // SAFETY: by the caller's promise.
    unsafe { core::arch::asm!("vmsave rax", in("rax") area.0, options(nostack)) };
}
