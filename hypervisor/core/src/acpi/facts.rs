//! Smaller tables that the hypervisor reads (MCFG, HPET, SPCR), and the one value that it takes from AML.

use alloc::vec::Vec;

use super::fadt::Place;
use super::tables::HEADER;
use super::{Table, number};
use crate::address::HostPhys;

/// A range of memory-mapped configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McfgSegment {
    /// Where bus 0 of the segment would begin.
    pub base: HostPhys,
    /// PCI segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

impl McfgSegment {
    /// Reads all entries of the table (PCI firmware specification 4.1.2).
    pub fn parse_all(table: &Table) -> Vec<Self> {
        let entries = table.bytes.get(HEADER + 8..).unwrap_or(&[]);
        entries
            .chunks_exact(16)
            .filter_map(|entry| {
                Some(Self {
                    base: HostPhys(number(entry, 0, 8)?),
                    segment: number(entry, 8, 2)? as u16,
                    first_bus: entry[10],
                    last_bus: entry[11],
                })
            })
            .collect()
    }
}

/// Registers of the high-precision event timer (IA-PC HPET specification, 3.2.4); `None` unless they are in memory.
pub fn hpet_base(table: &Table) -> Option<HostPhys> {
    match Place::read(&table.bytes, HEADER + 4)? {
        Place::Memory(base) => Some(base),
        _ => None,
    }
}

/// The serial port that firmware used as its console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialConsole {
    /// Its kind: 0 and 1 are 16550-compatible.
    pub interface: u8,
    /// Its registers.
    pub base: Place,
}

impl SerialConsole {
    /// Reads the serial port console redirection table; `None` if it names no port.
    pub fn parse(table: &Table) -> Option<Self> {
        Some(Self {
            interface: number(&table.bytes, HEADER, 1)? as u8,
            base: Place::read(&table.bytes, HEADER + 4)?,
        })
    }
}

/// SLP_TYPa and SLP_TYPb of S5, from the package named `_S5_` in a definition block: the name, PackageOp, length, element
/// count, then integers. dom0 owns AML; this one package is all we read.
pub fn sleep_type_s5(dsdt: &[u8]) -> Option<(u8, u8)> {
    const NAME_AND_PACKAGE: &[u8; 5] = b"_S5_\x12";
    dsdt.windows(NAME_AND_PACKAGE.len())
        .enumerate()
        .filter(|(_, window)| window == NAME_AND_PACKAGE)
        .find_map(|(at, window)| sleep_types(dsdt.get(at + window.len()..)?))
}

/// The first two elements of a package, from its length on. The second may be missing.
fn sleep_types(package: &[u8]) -> Option<(u8, u8)> {
    const SLEEP_TYPE: u8 = 0b111;
    // The length takes one byte, and as many more as its top two bits say; then comes the count of elements.
    let length_bytes = 1 + usize::from(package.first()? >> 6);
    let (&count, elements) = package.get(length_bytes..)?.split_first()?;
    let (a, rest) = integer(elements)?;
    let b = match count {
        0 => return None,
        1 => 0,
        _ => integer(rest)?.0,
    };
    Some((a & SLEEP_TYPE, b & SLEEP_TYPE))
}

/// The low byte of an integer constant, and what is behind it.
fn integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    const ZERO: u8 = 0x00;
    const ONE: u8 = 0x01;
    const BYTE: u8 = 0x0A;
    const WORD: u8 = 0x0B;
    const DOUBLE_WORD: u8 = 0x0C;
    let (&first, rest) = aml.split_first()?;
    let size = match first {
        ZERO | ONE => return Some((first, rest)),
        BYTE => 1,
        WORD => 2,
        DOUBLE_WORD => 4,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(size)?;
    Some((value[0], rest))
}
