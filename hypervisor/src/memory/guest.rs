//! Copies between the hypervisor and a guest's linear memory, through the guest's own page tables.
//!
//! Each byte is copied once. Nothing here hands out references: the guest may change its memory at any time.

use oxen_core::address::{GuestLinear, GuestPhys, PAGE_SIZE};
use oxen_core::memory::walk::{self, Access, GuestPhysRead, PageFault};

use crate::domain::Domain;
use crate::vcpu::Running;
use crate::virt::{Exception, Vcpu};

/// A linear access that the guest's own tables refuse, or that leads to no RAM.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The linear address that could not be reached.
    pub address: GuestLinear,
    /// The page-fault error code that the guest would see.
    pub error_code: u32,
}

impl GuestPhysRead for Domain {
    fn read_u64(&self, address: GuestPhys) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read_physical(address, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    fn read_u32(&self, address: GuestPhys) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read_physical(address, &mut bytes)
            .then(|| u32::from_le_bytes(bytes))
    }
}

/// Translates for an access by the guest's kernel, as a hypercall's pointers are used: supervisor, SMAP lifted when the
/// guest has set AC.
pub fn translate<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    access: Access,
) -> Result<GuestPhys, Fault> {
    let registers = vcpu.hardware.system();
    let paging = walk::Paging {
        cr0: registers.cr0,
        cr3: registers.cr3,
        cr4: registers.cr4,
        efer: registers.efer,
        rflags: vcpu.hardware.rflags(),
    };
    match walk::translate(&*vcpu.domain, &paging, address, access) {
        Ok(translation) => Ok(translation.address),
        Err(PageFault { error_code }) => Err(Fault {
            address,
            error_code,
        }),
    }
}

/// Copies from the guest.
pub fn read<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    into: &mut [u8],
) -> Result<(), Fault> {
    copy_in(vcpu, address, Access::SUPERVISOR_READ, into)
}

fn copy_in<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    access: Access,
    into: &mut [u8],
) -> Result<(), Fault> {
    let length = into.len();
    each_page(address, length, |at, range| {
        let physical = translate(vcpu, at, access)?;
        let part = &mut into[range];
        if vcpu.domain.read_physical(physical, part) {
            Ok(())
        } else {
            Err(Fault {
                address: at,
                error_code: 0,
            })
        }
    })
}

/// Copies instruction bytes, with the rights of the code that runs: user code lies in user pages.
pub fn fetch<H: Vcpu>(
    vcpu: &Running<H>,
    address: GuestLinear,
    into: &mut [u8],
) -> Result<(), Fault> {
    let access = Access {
        write: false,
        user: vcpu.hardware.cpl() == 3,
        execute: true,
    };
    copy_in(vcpu, address, access, into)
}

/// Copies to the guest.
pub fn write<H: Vcpu>(vcpu: &Running<H>, address: GuestLinear, from: &[u8]) -> Result<(), Fault> {
    let access = Access::SUPERVISOR_WRITE;
    each_page(address, from.len(), |at, range| {
        let physical = translate(vcpu, at, access)?;
        let part = &from[range];
        if vcpu.domain.write_physical(physical, part) {
            Ok(())
        } else {
            Err(Fault {
                address: at,
                error_code: 2,
            })
        }
    })
}

/// Raises the fault in the guest.
pub fn raise_page_fault<H: Vcpu>(vcpu: &mut Running<H>, fault: Fault) {
    const PAGE_FAULT: u8 = 14;
    vcpu.hardware.set_cr2(fault.address.0);
    vcpu.hardware.raise(Exception {
        vector: PAGE_FAULT,
        error_code: Some(fault.error_code),
    });
}

/// Splits a linear range at page boundaries.
fn each_page(
    address: GuestLinear,
    length: usize,
    mut copy: impl FnMut(GuestLinear, core::ops::Range<usize>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut done = 0;
    while done < length {
        let at = GuestLinear(address.0.wrapping_add(done as u64));
        let in_page = PAGE_SIZE - (at.0 as usize & (PAGE_SIZE - 1));
        let part = in_page.min(length - done);
        copy(at, done..done + part)?;
        done += part;
    }
    Ok(())
}
