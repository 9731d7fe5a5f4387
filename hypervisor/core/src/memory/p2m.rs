//! The guest-physical map (p2m): the nested page tables themselves, for both vendors.
//!
//! Both have four levels of 512 entries and keep the frame number in the same bits; they differ in the permission and
//! memory-type bits. The type of a mapping lives in bits 55:52, which both ignore (SDM vol. 3, table 29-7; APM vol. 2,
//! 5.4).

use oxen_abi::Errno;

use crate::address::{Gfn, HostPhys, Mfn};

/// Guest-physical address bits that four levels reach.
pub const ADDRESS_BITS: u32 = 48;

const LEVELS: u32 = 4;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
const LARGE: u64 = 1 << 7;
const KIND_SHIFT: u32 = 52;
const KIND_MASK: u64 = 0xF << KIND_SHIFT;

/// What a mapping is, for the hypervisor's own decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The domain's own RAM.
    Ram = 1,
    /// Its own RAM, read-only to it.
    RamReadOnly = 2,
    /// Device memory of the machine.
    Device = 3,
    /// A frame of another domain, mapped by its privilege.
    Foreign = 4,
    /// A frame that another domain granted.
    Grant = 5,
    /// A frame that another domain granted for reading.
    GrantReadOnly = 6,
    /// A frame of the hypervisor's, shared with the domain.
    Shared = 7,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Ram,
        Self::RamReadOnly,
        Self::Device,
        Self::Foreign,
        Self::Grant,
        Self::GrantReadOnly,
        Self::Shared,
    ];

    /// Whether the guest may write.
    pub const fn writable(self) -> bool {
        !matches!(self, Self::RamReadOnly | Self::GrantReadOnly)
    }

    /// Whether the guest may execute.
    pub const fn executable(self) -> bool {
        matches!(self, Self::Ram | Self::RamReadOnly)
    }

    /// Whether the memory is RAM that the hypervisor may copy from and to.
    pub const fn is_memory(self) -> bool {
        !matches!(self, Self::Device)
    }
}

/// How a vendor encodes table entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// VT-x extended page tables (SDM vol. 3, 29.3.2).
    Ept,
    /// AMD-V nested page tables: long-mode entries (APM vol. 2, 15.25).
    Npt,
}

impl Format {
    fn table(self, table: Mfn) -> u64 {
        // EPT: read, write, execute. NPT: present, writable, user, as the nested walk counts as a user access.
        table.address().0 | 0b111
    }

    fn leaf(self, frame: Mfn, kind: Kind, level: u32) -> u64 {
        let large = if level > 0 { LARGE } else { 0 };
        let permissions = match self {
            Self::Ept => {
                const WRITE_BACK: u64 = 6 << 3;
                let memory_type = if kind.is_memory() { WRITE_BACK } else { 0 };
                1 | u64::from(kind.writable()) << 1
                    | u64::from(kind.executable()) << 2
                    | memory_type
            }
            Self::Npt => {
                const PRESENT_USER: u64 = 0b101;
                const UNCACHED: u64 = 0b11 << 3;
                const NO_EXECUTE: u64 = 1 << 63;
                let memory_type = if kind.is_memory() { 0 } else { UNCACHED };
                let execute = if kind.executable() { 0 } else { NO_EXECUTE };
                PRESENT_USER | u64::from(kind.writable()) << 1 | memory_type | execute
            }
        };
        frame.address().0 | permissions | large | (kind as u64) << KIND_SHIFT
    }
}

/// Where the tables themselves live.
pub trait TableMemory {
    /// A zeroed frame for a table.
    fn allocate(&mut self) -> Option<Mfn>;
    /// Takes a table's frame back.
    fn release(&mut self, table: Mfn);
    /// Returns when no CPU can be in the middle of a walk through tables that nothing leads to any more.
    fn wait_for_walks(&mut self);
    /// Entry `slot` of a table.
    fn read(&self, table: Mfn, slot: usize) -> u64;
    /// Sets entry `slot` of a table, in one store.
    fn write(&mut self, table: Mfn, slot: usize, entry: u64);
}

/// What a guest frame leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The machine frame behind the very guest frame that was asked for.
    pub frame: Mfn,
    /// What it is.
    pub kind: Kind,
}

/// A run of guest frames that one entry maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: Gfn,
    frames: u64,
    frame: Mfn,
    kind: Kind,
}

impl Span {
    /// Whether `gfn` is in it.
    pub const fn contains(&self, gfn: Gfn) -> bool {
        gfn.0.wrapping_sub(self.first.0) < self.frames
    }

    /// Frames from `gfn`, which is in it, to its end.
    pub const fn rest_from(&self, gfn: Gfn) -> u64 {
        self.first.0 + self.frames - gfn.0
    }

    /// What `gfn`, which is in it, leads to.
    pub fn mapping(&self, gfn: Gfn) -> Mapping {
        Mapping {
            frame: self.frame + (gfn.0 - self.first.0),
            kind: self.kind,
        }
    }
}

/// The map cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for a table, or as many tables as may be.
    OutOfMemory,
    /// The guest frame lies beyond [`ADDRESS_BITS`].
    BeyondMap,
}

impl From<MapError> for Errno {
    fn from(error: MapError) -> Self {
        match error {
            MapError::OutOfMemory => Self::NoMem,
            MapError::BeyondMap => Self::Inval,
        }
    }
}

/// A domain's guest-physical map.
pub struct P2m<M> {
    format: Format,
    memory: M,
    root: Mfn,
    tables: u64,
    /// Most frames that the tables may take.
    most_tables: u64,
    /// Largest level of leaves: 2 (1 GiB), 1 (2 MiB) or 0.
    largest: u32,
}

impl<M: TableMemory> P2m<M> {
    /// An empty map; `None` without memory for its root.
    pub fn new(format: Format, mut memory: M, gigabyte_pages: bool) -> Option<Self> {
        let root = memory.allocate()?;
        let largest = if gigabyte_pages { 2 } else { 1 };
        Some(Self {
            format,
            memory,
            root,
            tables: 1,
            most_tables: u64::MAX,
            largest,
        })
    }

    /// Frame of the root table, for the hardware.
    pub const fn root(&self) -> Mfn {
        self.root
    }

    /// Frames that the tables take.
    pub const fn tables(&self) -> u64 {
        self.tables
    }

    /// Bounds the frames that the tables take from now on. They do not shrink again when what they lead to is unmapped, so
    /// that whoever may map anywhere could take all memory for them otherwise.
    pub const fn limit_tables(&mut self, most: u64) {
        self.most_tables = most;
    }

    /// Most frames that the tables may take.
    pub const fn most_tables(&self) -> u64 {
        self.most_tables
    }

    /// What `gfn` leads to.
    pub fn lookup(&self, gfn: Gfn) -> Option<Mapping> {
        self.lookup_span(gfn).map(|span| span.mapping(gfn))
    }

    /// What `gfn` leads to, with all that the same entry maps.
    pub fn lookup_span(&self, gfn: Gfn) -> Option<Span> {
        if gfn.0 >> (ADDRESS_BITS - 12) != 0 {
            return None;
        }
        let mut table = self.root;
        for level in (0..LEVELS).rev() {
            let entry = self.memory.read(table, slot(gfn.0, level));
            if entry == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                let frames = 1 << (9 * level);
                return kind_of(entry).map(|kind| Span {
                    first: Gfn(gfn.0 & !(frames - 1)),
                    frames,
                    frame: HostPhys(entry & ADDRESS).frame(),
                    kind,
                });
            }
            table = HostPhys(entry & ADDRESS).frame();
        }
        None
    }

    /// Maps `frames` guest frames from `gfn` on to machine frames from `mfn` on, with the largest pages that fit, in
    /// place of what was there. The caller flushes cached translations if something was.
    ///
    /// # Errors
    /// Out of memory: a part may be mapped; or the range lies beyond the map.
    pub fn map(&mut self, gfn: Gfn, mfn: Mfn, frames: u64, kind: Kind) -> Result<(), MapError> {
        check_range(gfn, frames)?;
        let mut done = 0;
        while done < frames {
            let (g, m) = (gfn.0 + done, mfn.0 + done);
            let level = (1..=self.largest)
                .rev()
                .find(|level| {
                    let size = 1 << (9 * level);
                    (g | m) & (size - 1) == 0 && frames - done >= size
                })
                .unwrap_or(0);
            let leaf = self.format.leaf(Mfn(m), kind, level);
            self.set(g, level, leaf)?;
            done += 1 << (9 * level);
        }
        Ok(())
    }

    /// Makes `frames` guest frames from `gfn` on lead nowhere. The caller flushes cached translations.
    ///
    /// # Errors
    /// Out of memory when a large page must be split, or the range lies beyond the map.
    pub fn unmap(&mut self, gfn: Gfn, frames: u64) -> Result<(), MapError> {
        check_range(gfn, frames)?;
        let mut done = 0;
        while done < frames {
            let g = gfn.0 + done;
            let level = (1..LEVELS)
                .rev()
                .find(|level| {
                    let size = 1 << (9 * level);
                    g & (size - 1) == 0 && frames - done >= size
                })
                .unwrap_or(0);
            if self.lookup_table(g, level).is_some() {
                self.set(g, level, 0)?;
            }
            done += 1 << (9 * level);
        }
        Ok(())
    }

    /// Frees all tables. The map must not be used by any CPU any more.
    pub fn destroy(mut self) -> M {
        self.release_all();
        self.memory
    }

    /// Takes all tables back, the root too: the map is of no use afterwards.
    pub fn release_all(&mut self) {
        self.release_below(self.root, LEVELS - 1);
    }

    /// Sets the entry for `gfn` at `level`, building tables and splitting large pages on the way.
    fn set(&mut self, gfn: u64, level: u32, entry: u64) -> Result<(), MapError> {
        let mut table = self.root;
        for upper in (level + 1..LEVELS).rev() {
            let at = slot(gfn, upper);
            let old = self.memory.read(table, at);
            table = if old != 0 && old & LARGE == 0 {
                HostPhys(old & ADDRESS).frame()
            } else {
                if self.tables >= self.most_tables {
                    return Err(MapError::OutOfMemory);
                }
                let fresh = self.memory.allocate().ok_or(MapError::OutOfMemory)?;
                self.tables += 1;
                if old != 0 {
                    self.split(old, upper, fresh);
                }
                self.memory.write(table, at, self.format.table(fresh));
                fresh
            };
        }
        let at = slot(gfn, level);
        let old = self.memory.read(table, at);
        self.memory.write(table, at, entry);
        if level > 0 && old != 0 && old & LARGE == 0 {
            let below = HostPhys(old & ADDRESS).frame();
            // A CPU that still read them would take whatever comes into their frames for translations.
            self.memory.wait_for_walks();
            self.release_below(below, level - 1);
        }
        Ok(())
    }

    /// Fills `table` with the parts of a large page of `level`.
    fn split(&mut self, large: u64, level: u32, table: Mfn) {
        let first = HostPhys(large & ADDRESS).frame();
        let Some(kind) = kind_of(large) else { return };
        for part in 0..512 {
            let frame = first + (part << (9 * (level - 1)));
            let leaf = self.format.leaf(frame, kind, level - 1);
            self.memory.write(table, part as usize, leaf);
        }
    }

    /// The table that would hold the entry for `gfn` at `level`, or a larger leaf above it; `None` for a hole.
    fn lookup_table(&self, gfn: u64, level: u32) -> Option<()> {
        let mut table = self.root;
        for upper in (level..LEVELS).rev() {
            let entry = self.memory.read(table, slot(gfn, upper));
            if entry == 0 {
                return None;
            }
            if entry & LARGE != 0 {
                break;
            }
            table = HostPhys(entry & ADDRESS).frame();
        }
        Some(())
    }

    fn release_below(&mut self, table: Mfn, level: u32) {
        if level > 0 {
            for at in 0..512 {
                let entry = self.memory.read(table, at);
                if entry != 0 && entry & LARGE == 0 {
                    self.release_below(HostPhys(entry & ADDRESS).frame(), level - 1);
                }
            }
        }
        self.memory.release(table);
        self.tables -= 1;
    }
}

fn check_range(gfn: Gfn, frames: u64) -> Result<(), MapError> {
    let limit = 1 << (ADDRESS_BITS - 12);
    match gfn.0.checked_add(frames) {
        Some(end) if end <= limit => Ok(()),
        _ => Err(MapError::BeyondMap),
    }
}

fn kind_of(entry: u64) -> Option<Kind> {
    let number = ((entry & KIND_MASK) >> KIND_SHIFT) as usize;
    Kind::ALL.get(number.checked_sub(1)?).copied()
}

const fn slot(gfn: u64, level: u32) -> usize {
    (gfn >> (9 * level)) as usize & 511
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};

    #[derive(Default)]
    struct Tables {
        pages: HashMap<u64, Box<[u64; 512]>>,
        next: u64,
        /// Times that walks were waited for.
        waits: u32,
    }

    impl TableMemory for Tables {
        fn allocate(&mut self) -> Option<Mfn> {
            self.next += 1;
            self.pages.insert(self.next, Box::new([0; 512]));
            Some(Mfn(self.next))
        }

        fn release(&mut self, table: Mfn) {
            self.pages
                .remove(&table.0)
                .expect("a released table was allocated");
        }

        fn wait_for_walks(&mut self) {
            self.waits += 1;
        }

        fn read(&self, table: Mfn, slot: usize) -> u64 {
            self.pages[&table.0][slot]
        }

        fn write(&mut self, table: Mfn, slot: usize, entry: u64) {
            self.pages
                .get_mut(&table.0)
                .expect("tables are allocated before use")[slot] = entry;
        }
    }

    fn map(format: Format) -> P2m<Tables> {
        P2m::new(format, Tables::default(), true).expect("tests have memory")
    }

    #[test]
    fn a_gigabyte_takes_one_entry_and_splits_when_a_page_is_cut_out() {
        let mut p2m = map(Format::Ept);
        p2m.map(Gfn(1 << 18), Mfn(1 << 18), 1 << 18, Kind::Ram)
            .expect("in range");
        assert_eq!(p2m.tables(), 2);
        p2m.unmap(Gfn((1 << 18) + 5), 1).expect("in range");
        assert_eq!(p2m.tables(), 4);
        assert_eq!(p2m.lookup(Gfn((1 << 18) + 5)), None);
        assert_eq!(
            p2m.lookup(Gfn((1 << 18) + 6)),
            Some(Mapping {
                frame: Mfn((1 << 18) + 6),
                kind: Kind::Ram
            })
        );
    }

    #[test]
    fn a_large_page_over_small_ones_frees_their_table() {
        let mut p2m = map(Format::Npt);
        p2m.map(Gfn(512), Mfn(7), 1, Kind::Shared)
            .expect("in range");
        assert_eq!(p2m.tables(), 4);
        assert_eq!(p2m.memory.waits, 0);
        p2m.map(Gfn(512), Mfn(1024), 512, Kind::Ram)
            .expect("in range");
        assert_eq!((p2m.tables(), p2m.memory.waits), (3, 1));
        assert_eq!(
            p2m.lookup(Gfn(513)),
            Some(Mapping {
                frame: Mfn(1025),
                kind: Kind::Ram
            })
        );
        assert!(p2m.destroy().pages.is_empty());
    }

    #[test]
    fn a_map_takes_no_more_tables_than_it_may() {
        let mut p2m = map(Format::Ept);
        p2m.limit_tables(5);
        assert_eq!(p2m.map(Gfn(0), Mfn(1), 1, Kind::Grant), Ok(()));
        assert_eq!(p2m.map(Gfn(512), Mfn(1), 1, Kind::Grant), Ok(()));
        let scattered = p2m.map(Gfn(1024), Mfn(1), 1, Kind::Grant);
        assert_eq!((scattered, p2m.tables()), (Err(MapError::OutOfMemory), 5));
        assert_eq!(p2m.map(Gfn(513), Mfn(1), 1, Kind::Grant), Ok(()));
        p2m.limit_tables(6);
        assert_eq!(p2m.map(Gfn(1024), Mfn(1), 1, Kind::Grant), Ok(()));
        assert!(p2m.destroy().pages.is_empty());
    }

    #[test]
    fn read_only_kinds_have_no_write_permission_in_either_format() {
        for format in [Format::Ept, Format::Npt] {
            assert_eq!(format.leaf(Mfn(1), Kind::GrantReadOnly, 0) & 0b10, 0);
            assert_eq!(format.leaf(Mfn(1), Kind::Ram, 0) & 0b10, 0b10);
        }
    }

    #[test]
    fn frames_beyond_the_map_are_refused() {
        let mut p2m = map(Format::Ept);
        assert_eq!(
            p2m.map(Gfn(1 << 36), Mfn(0), 1, Kind::Ram),
            Err(MapError::BeyondMap)
        );
        assert_eq!(
            p2m.map(Gfn(u64::MAX), Mfn(0), 2, Kind::Ram),
            Err(MapError::BeyondMap)
        );
        assert_eq!(p2m.lookup(Gfn(1 << 36)), None);
    }

    #[test]
    fn tables_are_bounded_and_what_was_mapped_stays() {
        let mut p2m = map(Format::Ept);
        p2m.limit_tables(5);
        p2m.map(Gfn(7), Mfn(7), 1, Kind::Shared).expect("in range");
        let far = |n: u64| Gfn(n << 27);
        assert_eq!(p2m.tables(), 4);
        assert_eq!(
            p2m.map(far(1), Mfn(7), 1, Kind::Shared),
            Err(MapError::OutOfMemory)
        );
        assert_eq!(p2m.tables(), 5);
        assert!(p2m.lookup(Gfn(7)).is_some() && p2m.lookup(far(1)).is_none());
        for n in 2..100 {
            assert!(p2m.map(far(n), Mfn(7), 1, Kind::Shared).is_err());
        }
        assert_eq!(p2m.tables(), 5);
        assert!(p2m.destroy().pages.is_empty());
    }

    proptest! {
        #[test]
        fn the_map_agrees_with_a_plain_one(steps in prop::collection::vec((any::<bool>(), 0u64..2048, 0u64..2048, 1u64..1100), 1..20)) {
            let mut p2m = map(Format::Ept);
            let mut model = BTreeMap::new();
            for (add, gfn, mfn, count) in steps {
                if add {
                    p2m.map(Gfn(gfn), Mfn(mfn), count, Kind::Ram).expect("in range");
                    model.extend((0..count).map(|i| (gfn + i, mfn + i)));
                } else {
                    p2m.unmap(Gfn(gfn), count).expect("in range");
                    for i in 0..count {
                        model.remove(&(gfn + i));
                    }
                }
            }
            for gfn in 0..3200 {
                prop_assert_eq!(p2m.lookup(Gfn(gfn)).map(|m| m.frame.0), model.get(&gfn).copied());
            }
            prop_assert!(p2m.destroy().pages.is_empty());
        }
    }
}
