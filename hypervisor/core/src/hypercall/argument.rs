//! Structures in the caller's memory: read and written whole, once.

use oxen_abi::{Errno, Narrow};

use super::Caller;

/// A structure that was read from the guest, by its bytes. Offsets are the ABI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument<const N: usize>([u8; N]);

impl<const N: usize> Default for Argument<N> {
    /// All zeroes, to be filled.
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Argument<N> {
    /// Reads the structure at a guest pointer in the layout of the caller's mode; the result has the 64-bit one.
    ///
    /// # Errors
    /// `Fault` if it cannot be read.
    pub fn read_either(caller: &impl Caller, pointer: u64, narrow: &Narrow) -> Result<Self, Errno> {
        if caller.is_64_bit() {
            return Self::read(caller, pointer);
        }
        let end = narrow.last().map_or(0, |(from, _, size)| from + size);
        let mut small = [0; N];
        caller.copy_in(pointer, &mut small[..end])?;
        Ok(Self::widened(&small, narrow))
    }

    /// From bytes in the 32-bit layout, of which there are as many as it has fields for.
    pub fn widened(small: &[u8], narrow: &Narrow) -> Self {
        let mut wide = [0; N];
        for &(from, to, size) in narrow {
            wide[to..to + size].copy_from_slice(&small[from..from + size]);
        }
        Self(wide)
    }

    /// From bytes in the 64-bit layout.
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// Reads the structure at a guest pointer.
    ///
    /// # Errors
    /// `Fault` if it cannot be read.
    pub fn read(caller: &impl Caller, pointer: u64) -> Result<Self, Errno> {
        let mut bytes = [0; N];
        caller.copy_in(pointer, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// Writes the structure back.
    ///
    /// # Errors
    /// `Fault` if it cannot be written.
    pub fn write(&self, caller: &impl Caller, pointer: u64) -> Result<(), Errno> {
        caller.copy_out(pointer, &self.0)
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
