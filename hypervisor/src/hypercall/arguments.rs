//! Structures in guest memory: read and written whole, once.

use alloc::sync::Arc;

use oxen_abi::Errno;
use oxen_core::address::GuestLinear;
use oxen_core::id::DomainId;

use crate::domain::{Domain, registry};
use crate::memory::guest;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// A structure that was read from the guest, by its bytes. Offsets are the ABI's.
#[derive(Clone, Copy, Debug)]
pub struct Argument<const N: usize>([u8; N]);

impl<const N: usize> Argument<N> {
    /// Reads the structure at a guest pointer.
    ///
    /// # Errors
    /// `Fault` if it cannot be read.
    pub fn read<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Result<Self, Errno> {
        let mut bytes = [0; N];
        guest::read(vcpu, GuestLinear(pointer), &mut bytes).map_err(|_| Errno::Fault)?;
        Ok(Self(bytes))
    }

    /// Writes the structure back.
    ///
    /// # Errors
    /// `Fault` if it cannot be written.
    pub fn write<H: Vcpu>(&self, vcpu: &Running<H>, pointer: u64) -> Result<(), Errno> {
        write_bytes(vcpu, pointer, &self.0)
    }

    /// All of it.
    pub const fn bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// The 16-bit field at `offset`.
    pub fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.0[offset], self.0[offset + 1]])
    }

    /// The 32-bit field at `offset`.
    pub fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    /// The 64-bit field at `offset`.
    pub fn u64(&self, offset: usize) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    /// Sets the 8-bit field at `offset`.
    pub fn set_u8(&mut self, offset: usize, value: u8) {
        self.0[offset] = value;
    }

    /// Sets the 16-bit field at `offset`.
    pub fn set_u16(&mut self, offset: usize, value: u16) {
        self.0[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets the 32-bit field at `offset`.
    pub fn set_u32(&mut self, offset: usize, value: u32) {
        self.0[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets the 64-bit field at `offset`.
    pub fn set_u64(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// Writes bytes at a guest pointer.
///
/// # Errors
/// `Fault` if they cannot be written.
pub fn write_bytes<H: Vcpu>(vcpu: &Running<H>, pointer: u64, bytes: &[u8]) -> Result<(), Errno> {
    guest::write(vcpu, GuestLinear(pointer), bytes).map_err(|_| Errno::Fault)
}

/// Reads bytes at a guest pointer.
///
/// # Errors
/// `Fault` if they cannot be read.
pub fn read_bytes<H: Vcpu>(vcpu: &Running<H>, pointer: u64, bytes: &mut [u8]) -> Result<(), Errno> {
    guest::read(vcpu, GuestLinear(pointer), bytes).map_err(|_| Errno::Fault)
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
