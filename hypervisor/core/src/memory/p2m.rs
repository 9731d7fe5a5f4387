//! The guest-physical map (p2m): the nested page tables themselves, for both vendors.
//!
//! Both have four levels of 512 entries and keep the frame number in the same bits; they differ in the permission and
//! memory-type bits. The type of a mapping lives in bits 55:52, which both ignore (SDM vol. 3, table 29-7; APM vol. 2,
//! 5.4); where an entry leads to a table, bits 61:52, which both ignore too, count that table's entries. A table whose last
//! entry goes is taken out of the map.

use core::cell::Cell;

use arrayvec::ArrayVec;
use oxen_abi::Errno;

use crate::address::{Gfn, HostPhys, Mfn};

/// Guest-physical address bits that four levels reach.
pub const ADDRESS_BITS: u32 = 48;

const LEVELS: u32 = 4;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
const LARGE: u64 = 1 << 7;
const KIND_SHIFT: u32 = 52;
const KIND_MASK: u64 = 0xF << KIND_SHIFT;
/// In an entry that leads to a table, how many entries of that are not zero.
const COUNT_SHIFT: u32 = 52;
const ONE_ENTRY: u64 = 1 << COUNT_SHIFT;
const COUNT_MASK: u64 = 0x3FF << COUNT_SHIFT;
const ENTRIES: u64 = 512;

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
    fn table(self, table: Mfn, entries: u64) -> u64 {
        // EPT: read, write, execute. NPT: present, writable, user, as the nested walk counts as a user access.
        table.address().0 | entries << COUNT_SHIFT | 0b111
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
    const NONE: Self = Self {
        first: Gfn(0),
        frames: 0,
        frame: Mfn(0),
        kind: Kind::Ram,
    };

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

/// Tables that nothing leads to any more, though CPUs may be in the middle of walks through them.
pub type Unlinked = ArrayVec<Mfn, 16>;

/// Where an entry is.
#[derive(Clone, Copy)]
struct Place {
    table: Mfn,
    slot: usize,
}

/// Spans that are remembered: half of them of large pages.
const RECENT: usize = 16;

/// A domain's guest-physical map.
pub struct P2m<M> {
    format: Format,
    memory: M,
    root: Mfn,
    /// Tables that the root leads to, and itself.
    tables: u64,
    unlinked: Unlinked,
    /// Most frames that the tables may take.
    most_tables: u64,
    /// Largest level of leaves: 2 (1 GiB), 1 (2 MiB) or 0.
    largest: u32,
    /// What was looked up last, see [`recent`]. Nothing of it outlives a change.
    recent: [Cell<Span>; RECENT],
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
            unlinked: Unlinked::new_const(),
            most_tables: u64::MAX,
            largest,
            recent: [const { Cell::new(Span::NONE) }; RECENT],
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

    /// Bounds the frames that the tables take from now on: whoever may map anywhere could take all memory for them otherwise.
    pub const fn limit_tables(&mut self, most: u64) {
        self.most_tables = most;
    }

    /// Most frames that the tables may take.
    pub const fn most_tables(&self) -> u64 {
        self.most_tables
    }

    /// What `gfn` leads to.
    #[inline]
    pub fn lookup(&self, gfn: Gfn) -> Option<Mapping> {
        let (large, small) = recent(gfn);
        for place in [large, small] {
            let span = self.recent[place].get();
            if span.contains(gfn) {
                return Some(span.mapping(gfn));
            }
        }
        let span = self.lookup_span(gfn)?;
        let place = if span.frames == 1 { small } else { large };
        self.recent[place].set(span);
        Some(span.mapping(gfn))
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
                    frame: frame_of(entry),
                    kind,
                });
            }
            table = frame_of(entry);
        }
        None
    }

    /// Whether none of `frames` guest frames from `gfn` on leads anywhere.
    pub fn is_hole(&self, gfn: Gfn, frames: u64) -> bool {
        let (mut at, end) = (gfn.0, gfn.0.saturating_add(frames));
        while at < end && at >> (ADDRESS_BITS - 12) == 0 {
            // Down to the level at which nothing is there.
            let (mut table, mut level) = (self.root, LEVELS - 1);
            loop {
                let entry = self.memory.read(table, slot(at, level));
                if entry == 0 {
                    break;
                }
                if level == 0 || entry & LARGE != 0 {
                    return false;
                }
                (table, level) = (frame_of(entry), level - 1);
            }
            at = (at | ((1 << (9 * level)) - 1)) + 1;
        }
        true
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
                    frames - done >= size && (g | m) & (size - 1) == 0
                })
                .unwrap_or(0);
            let leaf = self.format.leaf(Mfn(m), kind, level);
            self.set(g, level, leaf)?;
            done += 1 << (9 * level);
        }
        Ok(())
    }

    /// Makes `frames` guest frames from `gfn` on lead nowhere. The caller flushes cached translations; the tables that become
    /// empty are free only then, see [`Self::take_unlinked`].
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
                    frames - done >= size && g & (size - 1) == 0
                })
                .unwrap_or(0);
            if self.lookup_table(g, level).is_some() {
                self.set(g, level, 0)?;
            }
            done += 1 << (9 * level);
        }
        Ok(())
    }

    /// Takes the tables that nothing leads to any more. The caller gives them back ([`Self::release`]) when it has flushed
    /// cached translations, after this and before anything is done to the map that could reach them.
    pub fn take_unlinked(&mut self) -> Unlinked {
        core::mem::take(&mut self.unlinked)
    }

    /// Gives tables back that no CPU can walk through any more.
    pub fn release(&mut self, tables: Unlinked) {
        for table in tables {
            self.memory.release(table);
        }
    }

    /// Frees all tables. The map must not be used by any CPU any more.
    pub fn destroy(mut self) -> M {
        self.release_all();
        self.memory
    }

    /// Takes all tables back, the root too: the map is of no use afterwards.
    pub fn release_all(&mut self) {
        let unlinked = self.take_unlinked();
        self.release(unlinked);
        self.release_below(self.root, LEVELS - 1);
    }

    /// Sets the entry for `gfn` at `level`, building tables and splitting large pages on the way.
    fn set(&mut self, gfn: u64, level: u32, entry: u64) -> Result<(), MapError> {
        let mut above = None;
        let mut place = self.top(gfn);
        for upper in (level + 1..LEVELS).rev() {
            let old = self.read(place);
            let table = if is_table(old) {
                frame_of(old)
            } else {
                let Some(fresh) = self.fresh_table() else {
                    self.prune(gfn);
                    return Err(MapError::OutOfMemory);
                };
                let mut entries = 0;
                if old != 0 {
                    self.split(old, upper, fresh);
                    entries = ENTRIES;
                }
                self.write(above, place, self.format.table(fresh, entries));
                fresh
            };
            above = Some(place);
            place = Place {
                table,
                slot: slot(gfn, upper - 1),
            };
        }
        let old = self.read(place);
        self.write(above, place, entry);
        if level > 0 && is_table(old) {
            // A CPU that still read them would take whatever comes into their frames for translations.
            self.memory.wait_for_walks();
            self.release_below(frame_of(old), level - 1);
        }
        let is_empty = |place| self.read(place) & COUNT_MASK == 0;
        if entry == 0 && above.is_some_and(is_empty) {
            self.prune(gfn);
        }
        Ok(())
    }

    /// Where the root's entry for `gfn` is.
    fn top(&self, gfn: u64) -> Place {
        Place {
            table: self.root,
            slot: slot(gfn, LEVELS - 1),
        }
    }

    fn read(&self, place: Place) -> u64 {
        self.memory.read(place.table, place.slot)
    }

    /// Writes an entry; `above` is the entry that leads to its table, which counts it. The root has none.
    fn write(&mut self, above: Option<Place>, place: Place, entry: u64) {
        for span in &mut self.recent {
            *span.get_mut() = Span::NONE;
        }
        let was_used = self.read(place) != 0;
        self.memory.write(place.table, place.slot, entry);
        if let Some(above) = above
            && was_used != (entry != 0)
        {
            let counted = self.read(above);
            let counted = if was_used {
                counted - ONE_ENTRY
            } else {
                counted + ONE_ENTRY
            };
            self.memory.write(above.table, above.slot, counted);
        }
    }

    fn fresh_table(&mut self) -> Option<Mfn> {
        if self.tables >= self.most_tables {
            return None;
        }
        let fresh = self.memory.allocate()?;
        self.tables += 1;
        Some(fresh)
    }

    /// Takes the tables on the way to `gfn` out of the map that are empty, the lowest first.
    fn prune(&mut self, gfn: u64) {
        let mut path: ArrayVec<Place, { LEVELS as usize }> = ArrayVec::new();
        let mut place = self.top(gfn);
        for level in (0..LEVELS - 1).rev() {
            let entry = self.read(place);
            if !is_table(entry) {
                break;
            }
            path.push(place);
            place = Place {
                table: frame_of(entry),
                slot: slot(gfn, level),
            };
        }
        while let Some(place) = path.pop() {
            let entry = self.read(place);
            if entry & COUNT_MASK != 0 {
                return;
            }
            self.write(path.last().copied(), place, 0);
            self.tables -= 1;
            if self.unlinked.is_full() {
                self.memory.wait_for_walks();
                let unlinked = self.take_unlinked();
                self.release(unlinked);
            }
            self.unlinked.push(frame_of(entry));
        }
    }

    /// Fills `table` with the parts of a large page of `level`.
    fn split(&mut self, large: u64, level: u32, table: Mfn) {
        let first = frame_of(large);
        let Some(kind) = kind_of(large) else { return };
        for part in 0..ENTRIES {
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
            table = frame_of(entry);
        }
        Some(())
    }

    fn release_below(&mut self, table: Mfn, level: u32) {
        if level > 0 {
            for at in 0..ENTRIES as usize {
                let entry = self.memory.read(table, at);
                if is_table(entry) {
                    self.release_below(frame_of(entry), level - 1);
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

/// Where a frame's span is remembered, if its page is large and if it is small. A guest's page tables and what its calls name are mostly in few
/// large pages, but for the lowest addresses.
const fn recent(gfn: Gfn) -> (usize, usize) {
    let half = RECENT / 2;
    ((gfn.0 >> 9) as usize % half, half + gfn.0 as usize % half)
}

/// Whether an entry above the lowest level leads to a table.
const fn is_table(entry: u64) -> bool {
    entry != 0 && entry & LARGE == 0
}

const fn frame_of(entry: u64) -> Mfn {
    HostPhys(entry & ADDRESS).frame()
}

fn kind_of(entry: u64) -> Option<Kind> {
    let number = ((entry & KIND_MASK) >> KIND_SHIFT) as usize;
    Kind::ALL.get(number.checked_sub(1)?).copied()
}

const fn slot(gfn: u64, level: u32) -> usize {
    (gfn >> (9 * level)) as usize & 511
}

#[cfg(test)]
mod tests;
