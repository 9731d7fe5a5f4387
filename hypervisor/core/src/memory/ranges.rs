//! Sets of address ranges, and the memory maps made of them.

use alloc::vec::Vec;
use core::ops::Range;

use arrayvec::ArrayVec;
use oxen_abi::Errno;

/// Sorted, disjoint, non-empty ranges of u64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The ranges in ascending order; neighbours that touch are one range.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// The first range with numbers from `from` on, of which it has those only.
    pub fn first_from(&self, from: u64) -> Option<Range<u64>> {
        let at = self.0.partition_point(|range| range.end <= from);
        let range = self.0.get(at)?;
        Some(range.start.max(from)..range.end)
    }

    /// Numbers in the set.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: u64) -> bool {
        let after = self.0.partition_point(|range| range.start <= value);
        after > 0 && self.0[after - 1].end > value
    }

    /// Makes room for one change more: the next [`Self::insert`] or [`Self::remove`] needs no memory.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn reserve(&mut self) -> Result<(), Errno> {
        self.0.try_reserve(1).map_err(|_| Errno::NoMem)
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|old| old.end < range.start);
        let last = self.0.partition_point(|old| old.start <= range.end);
        let merged = self.0[first..last].iter().fold(range, |all, old| {
            all.start.min(old.start)..all.end.max(old.end)
        });
        self.replace(first, last, [merged]);
    }

    /// Puts ranges in the place of those from `first` up to `last`, of which they are at most one more.
    fn replace(&mut self, first: usize, last: usize, ranges: impl IntoIterator<Item = Range<u64>>) {
        let mut at = first;
        for range in ranges {
            if at < last {
                self.0[at] = range;
            } else {
                self.0.insert(at, range);
            }
            at += 1;
        }
        if at < last {
            self.0.drain(at..last);
        }
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|old| old.end <= range.start);
        let last = self.0.partition_point(|old| old.start < range.end);
        // What is left of the first and of the last range that it meets.
        let mut rest: ArrayVec<Range<u64>, 2> = ArrayVec::new();
        for old in &self.0[first..last] {
            if old.start < range.start {
                rest.push(old.start..range.start);
            }
            if old.end > range.end {
                rest.push(range.end..old.end);
            }
        }
        self.replace(first, last, rest);
    }

    /// The parts of `range` that are in the set.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0
            .iter()
            .map(move |old| old.start.max(range.start)..old.end.min(range.end))
            .filter(|part| !part.is_empty())
    }

    /// The set with each range shrunk to multiples of `granule`, a power of two.
    pub fn shrunk_to(&self, granule: u64) -> Self {
        let ranges = self.0.iter().filter_map(|range| {
            let start = range.start.checked_next_multiple_of(granule)?;
            let end = range.end & !(granule - 1);
            (start < end).then_some(start..end)
        });
        Self(ranges.collect())
    }

    /// Highest start of `size` numbers in one range, a multiple of `granule`, ending at or below `limit`.
    pub fn find_last(&self, size: u64, granule: u64, limit: u64) -> Option<u64> {
        self.0.iter().rev().find_map(|range| {
            let start = range.end.min(limit).checked_sub(size)? & !(granule - 1);
            (start >= range.start).then_some(start)
        })
    }

    /// Lowest start of `size` numbers in one range, a multiple of `granule`, at or above `from`.
    pub fn find_first(&self, size: u64, granule: u64, from: u64) -> Option<u64> {
        self.0.iter().find_map(|range| {
            let start = range.start.max(from).checked_next_multiple_of(granule)?;
            (start.checked_add(size)? <= range.end).then_some(start)
        })
    }
}

impl From<Range<u64>> for RangeSet {
    fn from(range: Range<u64>) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

/// An entry of a memory map, with its E820 type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// The addresses.
    pub range: Range<u64>,
    /// E820 type.
    pub kind: u32,
}

/// E820 type of usable RAM.
pub const E820_RAM: u32 = 1;
/// E820 type of reserved ranges.
pub const E820_RESERVED: u32 = 2;
/// E820 type of ACPI tables.
pub const E820_ACPI: u32 = 3;
/// E820 type of RAM that must not be used.
pub const E820_UNUSABLE: u32 = 5;

/// Makes a map whose entries are sorted and disjoint: where they overlap the higher type wins, as firmware that
/// contradicts itself is read with suspicion. Entries that touch and agree are joined.
pub fn sanitize(entries: &[MapEntry]) -> Vec<MapEntry> {
    let mut edges: Vec<u64> = entries
        .iter()
        .flat_map(|entry| [entry.range.start, entry.range.end])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut out: Vec<MapEntry> = Vec::new();
    for pair in edges.windows(2) {
        let part = pair[0]..pair[1];
        let kind = entries
            .iter()
            .filter(|entry| entry.range.start <= part.start && entry.range.end >= part.end)
            .map(|entry| entry.kind)
            .max();
        let Some(kind) = kind else { continue };
        match out.last_mut() {
            Some(last) if last.kind == kind && last.range.end == part.start => {
                last.range.end = part.end
            }
            _ => out.push(MapEntry { range: part, kind }),
        }
    }
    out
}

/// dom0's memory map: the host's, with RAM that is not dom0's turned into unusable, so that dom0 places nothing there.
/// `tables` are the ranges of dom0's own RAM that hold its ACPI tables.
pub fn dom0_map(host: &[MapEntry], own: &RangeSet, tables: &RangeSet) -> Vec<MapEntry> {
    let mut out = Vec::new();
    for entry in host {
        if entry.kind != E820_RAM {
            out.push(entry.clone());
            continue;
        }
        out.push(MapEntry {
            range: entry.range.clone(),
            kind: E820_UNUSABLE,
        });
    }
    let mut map: Vec<MapEntry> = Vec::new();
    for entry in out {
        if entry.kind != E820_UNUSABLE {
            map.push(entry);
            continue;
        }
        let mut cuts = RangeSet::from(entry.range.clone());
        for part in own.within(entry.range.clone()) {
            cuts.remove(part.clone());
            let mut ram = RangeSet::from(part.clone());
            for table in tables.within(part.clone()) {
                ram.remove(table.clone());
                map.push(MapEntry {
                    range: table,
                    kind: E820_ACPI,
                });
            }
            map.extend(ram.iter().map(|range| MapEntry {
                range,
                kind: E820_RAM,
            }));
        }
        map.extend(cuts.iter().map(|range| MapEntry {
            range,
            kind: E820_UNUSABLE,
        }));
    }
    map.sort_by_key(|entry| entry.range.start);
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_stricter_type_wins_where_firmware_overlaps() {
        let entry = |range, kind| MapEntry { range, kind };
        let map = sanitize(&[entry(0..100, 1), entry(50..60, 2), entry(100..110, 1)]);
        assert_eq!(map, [entry(0..50, 1), entry(50..60, 2), entry(60..110, 1)]);
    }

    #[test]
    fn ram_that_is_not_dom0s_is_unusable_to_it() {
        let entry = |range, kind| MapEntry { range, kind };
        let own = RangeSet::from(0..40);
        let tables = RangeSet::from(10..12);
        let map = dom0_map(&[entry(0..100, 1), entry(100..120, 2)], &own, &tables);
        assert_eq!(
            map,
            [
                entry(0..10, 1),
                entry(10..12, 3),
                entry(12..40, 1),
                entry(40..100, 5),
                entry(100..120, 2)
            ]
        );
    }

    #[test]
    fn blocks_are_found_from_both_ends() {
        let set = RangeSet::from_iter([10..20, 100..200]);
        assert_eq!(set.find_last(10, 8, 150), Some(136));
        assert_eq!(set.find_first(4, 4, 0), Some(12));
        assert_eq!(set.find_first(50, 1, 160), None);
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_a_bitmap(steps in prop::collection::vec((any::<bool>(), 0u64..200, 0u64..60), 1..40)) {
            let mut set = RangeSet::new();
            let mut bits = [false; 300];
            for (add, start, length) in steps {
                if add { set.insert(start..start + length) } else { set.remove(start..start + length) }
                bits[start as usize..(start + length) as usize].fill(add);
            }
            for (value, &bit) in bits.iter().enumerate() {
                prop_assert_eq!(set.contains(value as u64), bit);
                let first = (value..bits.len()).find(|&at| bits[at]);
                let end = first.map(|first| (first..bits.len()).find(|&at| !bits[at]).unwrap_or(bits.len()));
                let found = set.first_from(value as u64);
                prop_assert_eq!(found.map(|range| (range.start as usize, range.end as usize)), first.zip(end));
            }
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
