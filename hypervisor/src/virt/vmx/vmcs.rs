//! The VMX instructions, and the VMCS that is current on this CPU.

use core::arch::asm;

use oxen_core::address::HostPhys;

use super::fields::Field;

/// Reads a field of the current VMCS. The field exists on this CPU, and a VMCS is current: the value is nothing
/// meaningful otherwise.
#[inline]
pub fn read(field: Field) -> u64 {
    let value: u64;
    // SAFETY: VMREAD changes nothing but its destination. Whatever changes the VMCS counts as a write of memory, so a
    // read is not moved over it.
    unsafe {
        asm!("vmread {}, {}", out(reg) value, in(reg) field as u64, options(pure, readonly, nostack))
    };
    value
}

/// Writes a field of the current VMCS.
#[inline]
pub fn write(field: Field, value: u64) {
    // SAFETY: fields govern the guest; those that govern the way back are written only by `Vcpu::load`.
    unsafe { asm!("vmwrite {}, {}", in(reg) field as u64, in(reg) value, options(nostack)) };
}

/// Writes several fields.
pub fn write_all<const N: usize>(values: [(Field, u64); N]) {
    values
        .into_iter()
        .for_each(|(field, value)| write(field, value));
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

const SINGLE_CONTEXT: u64 = 1;
const ALL_CONTEXTS: u64 = 2;

/// Drops this CPU's cached translations of one root of nested tables, or of all where the CPU knows no less (SDM vol. 3,
/// 31.3, INVEPT).
pub fn invalidate_nested(single: bool, ept_pointer: u64) {
    let kind = if single { SINGLE_CONTEXT } else { ALL_CONTEXTS };
    let descriptor = [ept_pointer, 0];
    // SAFETY: dropping cached translations is always sound.
    unsafe { asm!("invept {}, [{}]", in(reg) kind, in(reg) &descriptor, options(nostack)) };
}

/// Drops this CPU's cached translations of one virtual processor, or of all where the CPU knows no less (SDM vol. 3,
/// 31.3, INVVPID).
pub fn invalidate_vpid(single: bool, vpid: u16) {
    let kind = if single { SINGLE_CONTEXT } else { ALL_CONTEXTS };
    let descriptor = [u64::from(vpid), 0];
    // SAFETY: as above.
    unsafe { asm!("invvpid {}, [{}]", in(reg) kind, in(reg) &descriptor, options(nostack)) };
}
