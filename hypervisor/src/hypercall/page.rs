//! The hypercall page, for guests that ask for one through its MSR (older kernels, other systems).

use oxen_abi::numbers::PAGE_SLOTS;
use oxen_core::address::{GuestPhys, PAGE_SIZE};
use oxen_core::apic::GeneralProtection;
use oxen_core::event::Layout;

use crate::cpu::features::{self, Vendor};
use crate::vcpu::Running;
use crate::virt::Vcpu;

const SLOT: usize = 32;
const IRET: usize = 23;

/// WRMSR of the page's address: fills the page.
///
/// # Errors
/// The address is not the domain's writable memory, or names a second page.
pub fn write_msr<H: Vcpu>(
    vcpu: &mut Running<H>,
    _: u32,
    value: u64,
) -> Result<(), GeneralProtection> {
    if value & (PAGE_SIZE as u64 - 1) != 0 {
        return Err(GeneralProtection);
    }
    let written = vcpu
        .domain
        .write_physical(GuestPhys(value), &build(features::vendor()));
    if written {
        vcpu.domain.set_layout(layout(vcpu));
        Ok(())
    } else {
        Err(GeneralProtection)
    }
}

/// The layout of what is shared with a guest in the mode of this vCPU.
pub fn layout<H: Vcpu>(vcpu: &Running<H>) -> Layout {
    if vcpu.hardware.in_64_bit_mode() {
        Layout::Wide
    } else {
        Layout::Narrow
    }
}

/// `mov eax, number; vmcall or vmmcall; ret` in each slot; the rest traps.
fn build(vendor: Vendor) -> [u8; PAGE_SIZE] {
    const BREAKPOINT: u8 = 0xCC;
    const UNDEFINED: [u8; 2] = [0x0F, 0x0B];
    let call = match vendor {
        Vendor::Intel => [0x0F, 0x01, 0xC1],
        Vendor::Amd => [0x0F, 0x01, 0xD9],
    };
    let mut page = [BREAKPOINT; PAGE_SIZE];
    for (number, slot) in page.chunks_exact_mut(SLOT).take(PAGE_SLOTS).enumerate() {
        if number == IRET {
            slot[..2].copy_from_slice(&UNDEFINED);
            continue;
        }
        slot[0] = 0xB8;
        slot[1..5].copy_from_slice(&(number as u32).to_le_bytes());
        slot[5..8].copy_from_slice(&call);
        slot[8] = 0xC3;
    }
    page
}
