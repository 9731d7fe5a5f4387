//! ACPI tables: what the hypervisor needs from the machine's, and the set that dom0 gets.
//!
//! Tables are bytes that firmware wrote: every field is read with a bounds check, every length is limited.

mod dom0;
mod facts;
mod fadt;
mod iommu;
mod madt;
mod tables;

pub use dom0::{Dom0Tables, build_dom0_tables};
pub use facts::{McfgSegment, SerialConsole, hpet_base, sleep_type_s5};
pub use fadt::{Fadt, Place, Reset};
pub use iommu::{amd_units, vtd_units};
pub use madt::{Cpu, IoApicEntry, LocalNmi, Madt, NmiSource, Override};
pub use tables::{Table, Tables, find_rsdp};

use crate::address::HostPhys;

/// Reads of physical memory.
pub trait PhysicalRead {
    /// Fills `into` from `address`; false where that is not possible.
    fn read(&self, address: HostPhys, into: &mut [u8]) -> bool;
}

/// A little-endian number of `size` bytes at `offset`.
fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let part = bytes.get(offset..offset.checked_add(size)?)?;
    Some(
        part.iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}

/// The sum of all bytes, which a valid table brings to 0.
fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

#[cfg(test)]
mod tests;
