//! What the granting domain does with its whole table, or with entries that nobody uses.

use core::sync::atomic::Ordering::Relaxed;

use oxen_abi::Errno;
use oxen_abi::grant::{RESERVED_ENTRIES, Status, entry as layout};

use super::entry::Entry;
use super::table::{Frame, GrantTable};
use crate::id::GrantRef;

/// A reserved entry on its way from one version to another, as version 1 has it.
#[derive(Clone, Copy, Default)]
struct Kept {
    /// With the marks of its uses.
    flags: u16,
    domain: u16,
    frame: u32,
}

const MARKS: u16 = layout::READING | layout::WRITING;

impl<F: Frame> GrantTable<F> {
    /// `GNTTABOP_set_version`: empties the table but for the reserved entries, which toolstacks fill and backends may have
    /// mapped. Status frames stay once there are some, as they may be mapped too.
    ///
    /// # Errors
    /// `Inval` for versions that do not exist, `NoSys` for one that the domain may not have, `Busy` while other entries are
    /// in use, `Range` if a reserved entry has no equal in version 1, `NoMem`.
    pub fn set_version(
        &mut self,
        version: u32,
        zeroed_frame: impl FnMut() -> Option<F>,
    ) -> Result<(), Errno> {
        if !(1..=2).contains(&version) {
            return Err(Errno::Inval);
        }
        if version > self.limits.version {
            return Err(Errno::NoSys);
        }
        if version == self.version {
            return Ok(());
        }
        if self.any_in_use_from(RESERVED_ENTRIES) {
            return Err(Errno::Busy);
        }
        if version == 2 {
            self.grow_statuses(zeroed_frame)?;
        }
        let mut kept = [Kept::default(); RESERVED_ENTRIES as usize];
        for (index, kept) in kept.iter_mut().enumerate() {
            if let Some(entry) = self.entry(GrantRef(index as u32)) {
                *kept = keep(&entry)?;
            }
        }
        self.clear();
        self.version = version;
        for (index, kept) in kept.iter().enumerate() {
            if let Some(entry) = self.entry(GrantRef(index as u32)) {
                put(&entry, kept);
            }
        }
        Ok(())
    }

    /// `GNTTABOP_swap_grant_ref`: two entries change places.
    ///
    /// # Errors
    /// `BadGntref` if there is no such entry, `Again` if one is in use.
    pub fn swap(&mut self, first: GrantRef, second: GrantRef) -> Result<(), Status> {
        let one = self.entry(first).ok_or(Status::BadGntref)?;
        let other = self.entry(second).ok_or(Status::BadGntref)?;
        if first == second {
            return Ok(());
        }
        if self.is_in_use(first) || self.is_in_use(second) {
            return Err(Status::Again);
        }
        let size = match self.version {
            1 => layout::V1_SIZE,
            _ => layout::V2_SIZE,
        };
        for at in (0..size).step_by(size_of::<u64>()) {
            let (left, right) = (one.page.u64(one.at + at), other.page.u64(other.at + at));
            let (was_left, was_right) = (left.load(Relaxed), right.load(Relaxed));
            left.store(was_right, Relaxed);
            right.store(was_left, Relaxed);
        }
        Ok(())
    }
}

fn keep(entry: &Entry) -> Result<Kept, Errno> {
    let header = entry.header();
    let frame = match entry.status {
        None => u64::from(entry.page.u32(entry.at + layout::V1_FRAME).load(Relaxed)),
        Some(_) => entry.page.u64(entry.at + layout::V2_FRAME).load(Relaxed),
    };
    let marks = entry
        .status
        .map_or(0, |(page, at)| page.u16(at).load(Relaxed) & MARKS);
    match (header.flags & layout::TYPE, u32::try_from(frame)) {
        (layout::PERMIT_ACCESS, Ok(frame)) => Ok(Kept {
            flags: header.flags | marks,
            domain: header.grantee.0,
            frame,
        }),
        (layout::PERMIT_ACCESS | layout::TRANSITIVE, _) => Err(Errno::Range),
        _ => Ok(Kept::default()),
    }
}

fn put(entry: &Entry, kept: &Kept) {
    let Kept {
        flags,
        domain,
        frame,
    } = *kept;
    let flags = match entry.status {
        None => {
            entry
                .page
                .u32(entry.at + layout::V1_FRAME)
                .store(frame, Relaxed);
            flags
        }
        Some((page, at)) => {
            let place = entry.page.u64(entry.at + layout::V2_FRAME);
            place.store(frame.into(), Relaxed);
            page.u16(at).store(flags & MARKS, Relaxed);
            flags & !MARKS
        }
    };
    let header = u32::from(flags) | u32::from(domain) << 16;
    entry
        .page
        .u32(entry.at)
        .store(header, core::sync::atomic::Ordering::Release);
}
