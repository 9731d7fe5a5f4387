//! Grant tables: the frames that a domain lays its grants in (`public/grant_table.h`), version 1.
//!
//! The table grows on demand, up to a limit set when the domain is made, by frames that the caller supplies: they must be
//! zeroed, so that every entry starts out invalid. It never shrinks while the domain lives, as guests keep it mapped.

use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_abi::grant::V1_ENTRIES_PER_FRAME;
use oxen_abi::memory::GRANT_STATUS_INDEX;

/// The only version of entries there is.
const VERSION: u32 = 1;

/// One domain's grant table over frames of type `F`, which own their memory.
#[derive(Debug)]
pub struct GrantTable<F> {
    frames: Vec<F>,
    limit: u32,
}

impl<F> GrantTable<F> {
    /// An empty table that may grow to `limit` frames.
    pub const fn new(limit: u32) -> Self {
        Self {
            frames: Vec::new(),
            limit,
        }
    }

    /// Frames now.
    pub const fn len(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Whether it has no frames yet.
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames at most.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Entries that the table has room for now: grant references below this are valid.
    pub const fn entries(&self) -> u32 {
        self.len().saturating_mul(V1_ENTRIES_PER_FRAME)
    }

    /// A frame that is there.
    pub fn get(&self, index: u32) -> Option<&F> {
        self.frames.get(index as usize)
    }

    /// The frame for `XENMEM_add_to_physmap` with this index. The table grows as far as that takes: Linux maps the
    /// highest frame first. Frames made before one could not be had stay.
    ///
    /// # Errors
    /// `Inval` for status frames, which version 1 does not have, and at or beyond the limit; `NoMem` if `zeroed_frame`
    /// has none.
    pub fn frame_at(
        &mut self,
        index: u64,
        mut zeroed_frame: impl FnMut() -> Option<F>,
    ) -> Result<&F, Errno> {
        if index & GRANT_STATUS_INDEX != 0 || index >= self.limit.into() {
            return Err(Errno::Inval);
        }
        let index = index as usize;
        let missing = (index + 1).saturating_sub(self.frames.len());
        self.frames.try_reserve(missing).map_err(|_| Errno::NoMem)?;
        for _ in 0..missing {
            self.frames.push(zeroed_frame().ok_or(Errno::NoMem)?);
        }
        self.frames.get(index).ok_or(Errno::NoMem)
    }

    /// `GNTTABOP_get_version`.
    pub const fn version(&self) -> u32 {
        VERSION
    }

    /// `GNTTABOP_set_version`: the version that holds from now on.
    ///
    /// # Errors
    /// `Inval` for versions that do not exist, `NoSys` for version 2: guests then keep to version 1.
    pub const fn set_version(&mut self, version: u32) -> Result<u32, Errno> {
        match version {
            VERSION => Ok(VERSION),
            2 => Err(Errno::NoSys),
            _ => Err(Errno::Inval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_frame_brings_those_below_it() {
        let mut table = GrantTable::new(64);
        let mut made = 0;
        let mut make = || {
            made += 1;
            Some(made)
        };
        assert!(table.is_empty() && table.entries() == 0);
        assert_eq!(table.frame_at(3, &mut make), Ok(&4));
        assert_eq!(table.frame_at(0, &mut make), Ok(&1));
        assert_eq!(table.frame_at(3, &mut make), Ok(&4));
        assert_eq!((made, table.len(), table.entries()), (4, 4, 2048));
        assert_eq!((table.get(3), table.get(4)), (Some(&4), None));
    }

    #[test]
    fn it_does_not_grow_past_its_limit() {
        let mut table = GrantTable::new(2);
        for index in [2, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(table.frame_at(index, || Some(())), Err(Errno::Inval));
        }
        assert_eq!(
            table.frame_at(GRANT_STATUS_INDEX, || Some(())),
            Err(Errno::Inval)
        );
        assert!(table.is_empty());
        assert_eq!(table.frame_at(1, || Some(())), Ok(&()));
        assert_eq!(
            GrantTable::new(0).frame_at(0, || Some(())),
            Err(Errno::Inval)
        );
    }

    #[test]
    fn growth_without_memory_keeps_what_it_has_and_can_go_on() {
        let mut table = GrantTable::new(8);
        let mut left = 2;
        let frame = table.frame_at(4, || {
            left -= 1;
            (left >= 0).then_some(left)
        });
        assert_eq!(frame, Err(Errno::NoMem));
        assert_eq!(table.len(), 2);
        assert_eq!(table.frame_at(4, || Some(9)), Ok(&9));
        assert_eq!(table.get(0), Some(&1));
    }

    #[test]
    fn version_2_is_refused_so_that_guests_stay_with_1() {
        let mut table = GrantTable::<()>::new(1);
        assert_eq!(table.set_version(2), Err(Errno::NoSys));
        assert_eq!(table.set_version(3), Err(Errno::Inval));
        assert_eq!(table.set_version(1), Ok(1));
        assert_eq!(table.version(), 1);
    }
}
