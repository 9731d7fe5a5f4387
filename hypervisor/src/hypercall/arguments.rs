//! The caller of a hypercall: its memory, and which domains it may name.

use alloc::sync::Arc;

use oxen_abi::Errno;
use oxen_core::address::GuestLinear;
pub use oxen_core::hypercall::Argument;
use oxen_core::hypercall::Caller;
use oxen_core::id::DomainId;

use crate::domain::{Domain, registry};
use crate::memory::guest;
use crate::vcpu::Running;
use crate::virt::Vcpu;

impl<H: Vcpu> Caller for Running<H> {
    fn is_64_bit(&self) -> bool {
        self.hardware.in_64_bit_mode()
    }

    fn copy_in(&self, pointer: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        guest::read(self, GuestLinear(pointer), bytes).map_err(|_| Errno::Fault)
    }

    fn copy_out(&self, pointer: u64, bytes: &[u8]) -> Result<(), Errno> {
        guest::write(self, GuestLinear(pointer), bytes).map_err(|_| Errno::Fault)
    }
}

/// Writes bytes at a guest pointer.
///
/// # Errors
/// `Fault` if they cannot be written.
pub fn write_bytes<H: Vcpu>(vcpu: &Running<H>, pointer: u64, bytes: &[u8]) -> Result<(), Errno> {
    vcpu.copy_out(pointer, bytes)
}

/// Reads bytes at a guest pointer.
///
/// # Errors
/// `Fault` if they cannot be read.
pub fn read_bytes<H: Vcpu>(vcpu: &Running<H>, pointer: u64, bytes: &mut [u8]) -> Result<(), Errno> {
    vcpu.copy_in(pointer, bytes)
}

/// The domain that an argument names: the caller by `DOMID_SELF` or by number, or, for the control domain, any.
///
/// # Errors
/// `Srch` for a number that nobody has, `Perm` for a caller that may not.
pub fn target_domain<H: Vcpu>(vcpu: &Running<H>, domain: u16) -> Result<Arc<Domain>, Errno> {
    if own_domain(vcpu, domain).is_ok() {
        return Ok(vcpu.domain.clone());
    }
    if !vcpu.domain.privileged {
        return Err(Errno::Perm);
    }
    registry::get(DomainId(domain)).ok_or(Errno::Srch)
}

/// The domain that an argument names: the caller itself, by number or as `DOMID_SELF`.
///
/// # Errors
/// `Srch` for any other.
pub fn own_domain<H: Vcpu>(vcpu: &Running<H>, domain: u16) -> Result<(), Errno> {
    let named = DomainId(domain);
    if named == DomainId::SELF || named == vcpu.domain.id {
        Ok(())
    } else {
        Err(Errno::Srch)
    }
}
