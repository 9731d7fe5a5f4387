//! Model-specific registers, with a way to try one that may not exist.

use core::arch::global_asm;

use crate::interrupt::table::Frame;

// The two tries: on #GP the handler moves RIP to the `_fault` label, which reports failure.
global_asm!(
    ".section .text",
    ".global msr_try_read",
    "msr_try_read:", // edi: index; rsi: where the value goes; returns eax = 1 on success
    "mov ecx, edi",
    ".global msr_try_read_instruction",
    "msr_try_read_instruction:",
    "rdmsr",
    "mov [rsi], eax",
    "mov [rsi + 4], edx",
    "mov eax, 1",
    "ret",
    ".global msr_try_write",
    "msr_try_write:", // edi: index; rsi: value; returns eax = 1 on success
    "mov ecx, edi",
    "mov eax, esi",
    "mov rdx, rsi",
    "shr rdx, 32",
    ".global msr_try_write_instruction",
    "msr_try_write_instruction:",
    "wrmsr",
    "mov eax, 1",
    "ret",
    ".global msr_try_fault",
    "msr_try_fault:",
    "xor eax, eax",
    "ret",
);

unsafe extern "C" {
    fn msr_try_read(index: u32, value: *mut u64) -> u32;
    fn msr_try_write(index: u32, value: u64) -> u32;
    static msr_try_read_instruction: u8;
    static msr_try_write_instruction: u8;
    static msr_try_fault: u8;
}

/// Reads an MSR that may not exist.
pub fn read_safe(index: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: the function writes one u64 through the pointer; a #GP is turned into failure.
    (unsafe { msr_try_read(index, &raw mut value) } == 1).then_some(value)
}

/// Writes an MSR that may not exist or may refuse the value; tells whether it was written.
///
/// # Safety
/// The write, if it succeeds, leaves the hypervisor's own state sound.
#[must_use]
pub unsafe fn write_safe(index: u32, value: u64) -> bool {
    // SAFETY: a #GP is turned into failure; the caller vouches for success.
    (unsafe { msr_try_write(index, value) }) == 1
}

/// Reads an MSR that CPUID or the architecture guarantees.
pub fn read(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading an MSR that exists has no side effect on memory.
    unsafe {
        core::arch::asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR that CPUID or the architecture guarantees.
///
/// # Safety
/// The value leaves the hypervisor's own state sound.
pub unsafe fn write(index: u32, value: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        core::arch::asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// If the frame is a #GP of one of the two tries, lets it continue as a failure.
pub fn fix_up(frame: &mut Frame) -> bool {
    let tries = [
        (&raw const msr_try_read_instruction) as u64,
        (&raw const msr_try_write_instruction) as u64,
    ];
    let ours = tries.contains(&frame.rip);
    if ours {
        frame.rip = (&raw const msr_try_fault) as u64;
    }
    ours
}
