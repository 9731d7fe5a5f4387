//! Hypercalls, by the instruction of the CPU's vendor.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use oxen_abi::numbers;

/// The calling domain, where a number is asked for (`DOMID_SELF`).
pub const SELF: u16 = 0x7FF0;

static VENDOR: AtomicU8 = AtomicU8::new(0);
const INTEL: u8 = 1;
const AMD: u8 = 2;

/// A hypercall; negative results are errors (`-errno`).
///
/// # Safety
/// Memory that the arguments name may be written by the hypervisor as the call's ABI says.
#[inline]
pub unsafe fn call(number: u64, first: u64, second: u64, third: u64) -> i64 {
    let result;
    // SAFETY: the hypervisor changes RAX only, and what the caller knows of.
    unsafe {
        if is_amd() {
            asm!("vmmcall", inout("rax") number => result, in("rdi") first, in("rsi") second, in("rdx") third, options(nostack));
        } else {
            asm!("vmcall", inout("rax") number => result, in("rdi") first, in("rsi") second, in("rdx") third, options(nostack));
        }
    }
    result
}

/// A hypercall with no argument in memory.
#[inline]
pub fn plain(number: u64, first: u64, second: u64) -> i64 {
    // SAFETY: used for calls that take values only.
    unsafe { call(number, first, second, 0) }
}

/// `event_channel_op`.
#[inline]
pub fn event_channel_op<T>(command: u64, argument: &mut T) -> i64 {
    // SAFETY: the argument is exclusively borrowed, and as large as the command's structure.
    unsafe {
        call(
            numbers::EVENT_CHANNEL_OP,
            command,
            core::ptr::from_mut(argument) as u64,
            0,
        )
    }
}

/// `memory_op`.
#[inline]
pub fn memory_op<T>(command: u64, argument: &mut T) -> i64 {
    // SAFETY: as for `event_channel_op`.
    unsafe {
        call(
            numbers::MEMORY_OP,
            command,
            core::ptr::from_mut(argument) as u64,
            0,
        )
    }
}

/// `sched_op`.
#[inline]
pub fn sched_op<T>(command: u64, argument: &T) -> i64 {
    // SAFETY: the argument is only read.
    unsafe {
        call(
            numbers::SCHED_OP,
            command,
            core::ptr::from_ref(argument) as u64,
            0,
        )
    }
}

/// `vcpu_op`.
#[inline]
pub fn vcpu_op<T>(command: u64, vcpu: u32, argument: &T) -> i64 {
    // SAFETY: the argument is only read.
    unsafe {
        call(
            numbers::VCPU_OP,
            command,
            vcpu.into(),
            core::ptr::from_ref(argument) as u64,
        )
    }
}

/// Whether the CPU's own instruction is VMMCALL.
#[inline]
pub fn is_amd() -> bool {
    match VENDOR.load(Ordering::Relaxed) {
        0 => {
            let amd = core::arch::x86_64::__cpuid(0).ecx == u32::from_le_bytes(*b"cAMD");
            VENDOR.store(if amd { AMD } else { INTEL }, Ordering::Relaxed);
            amd
        }
        known => known == AMD,
    }
}
