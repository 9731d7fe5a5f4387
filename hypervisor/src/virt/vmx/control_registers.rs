//! CR0 and CR4: which bits are the guest's own, and what happens when it changes another.
//!
//! A bit that is not the guest's own reads as in the shadow, and its real value never changes (SDM vol. 3, 25.6.6). MOV
//! exits only if it would change such a bit; then the shadow takes the new value and the guest executes the instruction
//! again: it does not exit this time, and the CPU itself does everything else that the instruction entails (checks,
//! long mode, PDPTEs).

use super::fields::Field;
use super::vcpu::VmxVcpu;
use super::vmcs;
use crate::virt::{ControlRegisterAccess, Exception, Exit, Gprs, SystemRegisters, Vcpu};

pub const CR0_PROTECTED: u64 = 1 << 0;
/// Must be set in VMX operation (SDM vol. 3, 24.8).
pub const CR0_NUMERIC_ERROR: u64 = 1 << 5;
const CR0_NOT_WRITE_THROUGH: u64 = 1 << 29;
const CR0_CACHE_DISABLE: u64 = 1 << 30;
/// CD and NW: entries and exits do not switch them, so that a guest that has them would slow the hypervisor too.
const CR0_CACHE: u64 = CR0_CACHE_DISABLE | CR0_NOT_WRITE_THROUGH;
/// CR0 bits that are not the guest's own.
pub const CR0_KEPT: u64 = CR0_NUMERIC_ERROR | CR0_CACHE;

const CR4_MACHINE_CHECK: u64 = 1 << 6;
const CR4_VMX: u64 = 1 << 13;
/// CR4 bits that are the guest's own: VME to OSXMMEXCPT but for MCE, UMIP, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP.
const CR4_OWN: u64 = 0x7FF & !CR4_MACHINE_CHECK | 1 << 11 | 0b111 << 16 | 0b11 << 20;
/// CR4 bits that are not.
pub const CR4_KEPT: u64 = !CR4_OWN;
/// In reality always set: VMX wants VMXE, and a machine check must reach us.
pub const CR4_FORCED: u64 = CR4_VMX | CR4_MACHINE_CHECK;

const EFER_LMA: u64 = 1 << 10;
const ATTRIBUTE_LONG: u64 = 1 << 13;

/// Control registers and EFER as the guest sees them.
pub fn visible() -> SystemRegisters {
    let merge = |real, kept: u64, shadow| vmcs::read(real) & !kept | vmcs::read(shadow) & kept;
    SystemRegisters {
        cr0: merge(Field::GuestCr0, CR0_KEPT, Field::Cr0Shadow),
        cr3: vmcs::read(Field::GuestCr3),
        cr4: merge(Field::GuestCr4, CR4_KEPT, Field::Cr4Shadow),
        efer: vmcs::read(Field::GuestEfer),
    }
}

/// Handles an exit for a control-register access, by its qualification (SDM vol. 3, table 28-3).
pub fn access(vcpu: &mut VmxVcpu, gprs: &mut Gprs) -> Option<Exit> {
    const STACK_POINTER: usize = 4;
    let qualification = vmcs::read(Field::ExitQualification);
    let register = (qualification >> 8 & 0xF) as usize;
    let value = || match register {
        STACK_POINTER => vmcs::read(Field::GuestRsp),
        _ => gprs.0[register],
    };
    let allowed = match (qualification >> 4 & 3, qualification & 0xF) {
        (0, 0) => write_cr0(value()),
        (0, 4) => write_cr4(if in_64_bit_mode() {
            value()
        } else {
            value() & 0xFFFF_FFFF
        }),
        (0, 8) => return priority(ControlRegisterAccess::WriteCr8(value() as u8 & 0xF)),
        (1, 8) => return priority(ControlRegisterAccess::ReadCr8(register)),
        // CLTS, LMSW and CR3 never exit: all their bits are the guest's own.
        _ => return Some(Exit::Unexpected(vmcs::read(Field::ExitReason))),
    };
    if !allowed {
        vcpu.raise(Exception::GENERAL_PROTECTION);
    }
    None
}

const fn priority(access: ControlRegisterAccess) -> Option<Exit> {
    Some(Exit::ControlRegister(access))
}

/// What the CPU cannot judge, as it does not see the bits: NW without CD (SDM vol. 3, table 12-5).
fn write_cr0(value: u64) -> bool {
    let allowed = value & CR0_CACHE != CR0_NOT_WRITE_THROUGH;
    if allowed {
        vmcs::write(Field::Cr0Shadow, value & CR0_KEPT);
    }
    allowed
}

/// Of the bits that are not its own a guest may have MCE, which it then has anyway; the others are of features that it is
/// not shown.
fn write_cr4(value: u64) -> bool {
    let allowed = value & CR4_KEPT & !CR4_MACHINE_CHECK == 0;
    if allowed {
        vmcs::write(Field::Cr4Shadow, value & CR4_KEPT);
    }
    allowed
}

/// Whether the guest runs 64-bit code.
pub fn in_64_bit_mode() -> bool {
    vmcs::read(Field::GuestEfer) & EFER_LMA != 0
        && vmcs::read(Field::GuestCsRights) & ATTRIBUTE_LONG != 0
}
