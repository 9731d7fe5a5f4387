//! Where the registers of the machine's IOMMUs are: they stay the hypervisor's.

use alloc::vec::Vec;
use core::ops::Range;

use super::tables::HEADER;
use super::{Table, number};

/// Bytes between a table's header and its first structure, in both tables.
const FIXED: usize = 12;

/// Register ranges of VT-d units (VT-d specification 8.3).
pub fn vtd_units(dmar: &Table) -> Vec<Range<u64>> {
    const DRHD: u64 = 0;
    structures(dmar)
        .filter(|unit| number(unit, 0, 2) == Some(DRHD))
        .filter_map(|unit| {
            // A power of two of pages.
            let pages = 1 << (number(unit, 5, 1)? & 0xF);
            range(number(unit, 8, 8)?, pages << 12)
        })
        .collect()
}

/// Register ranges of AMD's units (AMD I/O virtualization specification 5.2). A unit is described several times, in older
/// and newer forms.
pub fn amd_units(ivrs: &Table) -> Vec<Range<u64>> {
    const PLAIN: u64 = 16 << 10;
    const WITH_COUNTERS: u64 = 512 << 10;
    const COUNTERS: u64 = 1 << 9;
    let mut units: Vec<Range<u64>> = structures(ivrs)
        .filter_map(|unit| {
            let features = match number(unit, 0, 1)? {
                0x10 => 0,
                0x11 | 0x40 => number(unit, 24, 8)?,
                _ => return None,
            };
            let size = if features & COUNTERS != 0 {
                WITH_COUNTERS
            } else {
                PLAIN
            };
            range(number(unit, 8, 8)?, size)
        })
        .collect();
    units.sort_unstable_by_key(|unit| (unit.start, core::cmp::Reverse(unit.end)));
    units.dedup_by_key(|unit| unit.start);
    units
}

/// The structures of a table: in both, the length is two bytes at offset 2.
fn structures(table: &Table) -> impl Iterator<Item = &[u8]> {
    let mut rest = table.bytes.get(HEADER + FIXED..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let length = number(rest, 2, 2)? as usize;
        let (structure, behind) = rest.split_at_checked(length)?;
        if length < 4 {
            return None;
        }
        rest = behind;
        Some(structure)
    })
}

fn range(base: u64, size: u64) -> Option<Range<u64>> {
    (base != 0).then_some(())?;
    Some(base..base.checked_add(size)?)
}
