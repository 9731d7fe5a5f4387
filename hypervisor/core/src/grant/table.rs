//! The granting side: a domain's entries, and which of them are in use.
//!
//! The table grows on demand, up to a limit set when the domain is made, by frames that the caller supplies: they must be
//! zeroed, so that every entry starts out invalid. It never shrinks while the domain lives, as guests and the control domain
//! keep it mapped.

use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_abi::grant::{
    STATUSES_PER_FRAME, Status, V1_ENTRIES_PER_FRAME, V2_ENTRIES_PER_FRAME, entry as layout,
};
use oxen_abi::memory::GRANT_STATUS_INDEX;

use super::Limits;
use super::entry::{Body, Entry, used};
use super::pins::{Access, Pins};
use crate::address::{Gfn, Mfn};
use crate::guest_page::GuestPage;
use crate::id::{DomainId, GrantRef};

/// A frame of a table, which owns its memory.
pub trait Frame {
    /// Its content.
    fn page(&self) -> GuestPage;
}

/// What somebody wants of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who.
    pub who: DomainId,
    /// To do what.
    pub access: Access,
    /// For how long.
    pub purpose: Purpose,
}

/// Why a grant is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To have the page in one's own map: whole pages only, and only those of the granting domain.
    Map,
    /// To copy from it or to it.
    Copy,
    /// The same by way of another domain's grant: from there it goes no further.
    CopyVia,
}

/// What an entry in use gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A part of a page.
    Page {
        /// The page's number in its domain.
        gfn: Gfn,
        /// The machine's frame.
        frame: Mfn,
        /// First byte that may be touched.
        offset: u16,
        /// Bytes that may be touched.
        length: u16,
        /// Whether the entry stands for the page as such, so that it can be mapped.
        whole: bool,
    },
    /// What another domain grants to this one.
    Via {
        /// That domain.
        domain: DomainId,
        /// Its grant.
        grant: GrantRef,
    },
}

/// A page that was held for an entry, whose last use has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetGo {
    /// The page's number in its domain.
    pub gfn: Gfn,
    /// The machine's frame.
    pub frame: Mfn,
}

/// An entry in use; or not, with no pins.
#[derive(Clone, Copy, Debug)]
struct Active {
    content: Content,
    pins: Pins,
    grantee: DomainId,
}

impl Active {
    const NONE: Self = Self {
        content: Content::Via {
            domain: DomainId(0),
            grant: GrantRef(0),
        },
        pins: Pins::NONE,
        grantee: DomainId(0),
    };
}

/// Entries whose use is kept in one piece of memory: large enough that it comes in whole frames.
const ACTIVE_CHUNK: usize = 1024;
/// Frames of entries to one of status words.
const FRAMES_PER_STATUS_FRAME: u32 = STATUSES_PER_FRAME / V2_ENTRIES_PER_FRAME;

/// A frame, and where the domain has it mapped.
#[derive(Debug)]
struct Placed<F> {
    frame: F,
    gfn: Option<Gfn>,
}

/// One domain's grant table over frames of type `F`.
#[derive(Debug)]
pub struct GrantTable<F> {
    shared: Vec<Placed<F>>,
    statuses: Vec<Placed<F>>,
    active: Vec<Vec<Active>>,
    pub(super) version: u32,
    pub(super) limits: Limits,
}

impl<F: Frame> GrantTable<F> {
    /// An empty table.
    pub const fn new(limits: Limits) -> Self {
        Self {
            shared: Vec::new(),
            statuses: Vec::new(),
            active: Vec::new(),
            version: 1,
            limits,
        }
    }

    /// Frames of entries now.
    pub const fn frames(&self) -> u32 {
        self.shared.len() as u32
    }

    /// Its limits.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// `GNTTABOP_get_version`.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Entries that the table has room for now: grant references below this are valid.
    pub const fn entries(&self) -> u32 {
        let in_frame = match self.version {
            1 => V1_ENTRIES_PER_FRAME,
            _ => V2_ENTRIES_PER_FRAME,
        };
        self.frames().saturating_mul(in_frame)
    }

    /// Bytes that the table takes, frames and what is known of entries in use.
    pub const fn memory(&self) -> u64 {
        let frames = self.shared.len() + self.statuses.len();
        let chunks = self.active.len() * ACTIVE_CHUNK * size_of::<Active>();
        (frames * crate::address::PAGE_SIZE + chunks) as u64
    }

    /// Entries in use and all their uses.
    pub fn in_use(&self) -> (u32, u32) {
        let used = self.active.iter().flatten();
        used.filter(|active| !active.pins.is_empty())
            .fold((0, 0), |(entries, uses), active| {
                (entries + 1, uses + active.pins.count())
            })
    }

    /// Calls `each` with the entries in use: whose they are, how often in use, whether for writing, and the frame.
    pub fn for_each_in_use(&self, mut each: impl FnMut(GrantRef, DomainId, u32, bool, Content)) {
        for (index, active) in self.active.iter().flatten().enumerate() {
            if !active.pins.is_empty() {
                let Active {
                    content,
                    pins,
                    grantee,
                } = *active;
                each(
                    GrantRef(index as u32),
                    grantee,
                    pins.count(),
                    pins.any_writes(),
                    content,
                );
            }
        }
    }

    /// Frames that `XENMEM_acquire_resource` can give: of entries, and of status words.
    pub const fn resource_frames(&self) -> (u32, u32) {
        let limit = self.limits.frames;
        (limit, limit.div_ceil(FRAMES_PER_STATUS_FRAME))
    }

    /// The frame for `XENMEM_add_to_physmap` with this index. The table grows as far as that takes: Linux maps the
    /// highest frame first. Frames made before one could not be had stay.
    ///
    /// # Errors
    /// `Inval` for status frames in version 1, and at or beyond the limit; `NoMem` if `zeroed_frame` has none.
    pub fn frame_at(
        &mut self,
        index: u64,
        zeroed_frame: impl FnMut() -> Option<F>,
    ) -> Result<&F, Errno> {
        let of_status = index & GRANT_STATUS_INDEX != 0 && self.version != 1;
        let index = if of_status {
            index & !GRANT_STATUS_INDEX
        } else {
            index
        };
        let (most, most_statuses) = self.resource_frames();
        let most = if of_status { most_statuses } else { most };
        let index = u32::try_from(index).map_err(|_| Errno::Inval)?;
        if index >= most {
            return Err(Errno::Inval);
        }
        let needed = if of_status {
            index * FRAMES_PER_STATUS_FRAME + 1
        } else {
            index + 1
        };
        self.grow(needed, zeroed_frame)?;
        let list = if of_status {
            &self.statuses
        } else {
            &self.shared
        };
        let placed = list.get(index as usize).ok_or(Errno::NoMem)?;
        Ok(&placed.frame)
    }

    /// Makes sure that there are at least so many frames of entries, with all that belongs to them.
    ///
    /// # Errors
    /// `Inval` beyond the limit, `NoMem`.
    pub fn grow(
        &mut self,
        frames: u32,
        mut zeroed_frame: impl FnMut() -> Option<F>,
    ) -> Result<(), Errno> {
        if frames > self.limits.frames {
            return Err(Errno::Inval);
        }
        while self.active.len() * ACTIVE_CHUNK < (frames * V1_ENTRIES_PER_FRAME) as usize {
            let mut chunk = Vec::new();
            let room = chunk.try_reserve_exact(ACTIVE_CHUNK);
            room.and_then(|()| self.active.try_reserve(1))
                .map_err(|_| Errno::NoMem)?;
            chunk.resize(ACTIVE_CHUNK, Active::NONE);
            self.active.push(chunk);
        }
        if self.version != 1 {
            let statuses = frames.div_ceil(FRAMES_PER_STATUS_FRAME);
            fill(&mut self.statuses, statuses, &mut zeroed_frame)?;
        }
        fill(&mut self.shared, frames, &mut zeroed_frame)
    }

    /// Status frames for all entries that there are, for the change to version 2.
    pub(super) fn grow_statuses(
        &mut self,
        mut zeroed_frame: impl FnMut() -> Option<F>,
    ) -> Result<(), Errno> {
        let statuses = self.frames().div_ceil(FRAMES_PER_STATUS_FRAME);
        fill(&mut self.statuses, statuses, &mut zeroed_frame)
    }

    /// Clears all entries and all status words.
    pub(super) fn clear(&self) {
        for placed in self.shared.iter().chain(&self.statuses) {
            placed.frame.page().zero();
        }
    }

    /// Notes where the domain has a frame mapped now; where it had it before.
    pub fn place(&mut self, index: u64, gfn: Gfn) -> Option<Gfn> {
        let list = if index & GRANT_STATUS_INDEX != 0 {
            &mut self.statuses
        } else {
            &mut self.shared
        };
        let index = usize::try_from(index & !GRANT_STATUS_INDEX).ok()?;
        list.get_mut(index)?.gfn.replace(gfn)
    }

    /// Where the domain has a frame of entries mapped (`GNTTABOP_setup_table` of a translated domain).
    pub fn placed_at(&self, index: u32) -> Option<Gfn> {
        self.shared.get(index as usize)?.gfn
    }

    /// Takes an entry into use. For the first use `hold` finds the page's frame and makes sure that it stays.
    ///
    /// # Errors
    /// `BadGntref` if there is no such entry; `GeneralError` if it does not permit what is asked, is in use for another
    /// domain, or too often; and what `hold` fails with.
    pub fn pin(
        &mut self,
        grant: GrantRef,
        ask: &Ask,
        hold: impl FnOnce(Gfn) -> Result<Mfn, Status>,
    ) -> Result<Content, Status> {
        let active = self.active_mut(grant).ok_or(Status::BadGntref)?;
        let pinned = !active.pins.is_empty();
        let barred = active.grantee != ask.who
            || active.pins.is_full(ask.access)
            || !allows(ask.purpose, &active.content);
        if pinned && barred {
            return Err(Status::GeneralError);
        }
        let upgrades = ask.access.write && !active.pins.any_writes();
        if pinned && !upgrades {
            active.pins.add(ask.access);
            return Ok(active.content);
        }
        let entry = self.entry(grant).ok_or(Status::BadGntref)?;
        let header = entry.begin(ask, pinned)?;
        let active = self.active_mut(grant).ok_or(Status::BadGntref)?;
        if !pinned {
            match resolve(entry.body(header), ask.purpose, hold) {
                Ok(content) => active.content = content,
                Err(error) => {
                    entry.end(used(ask.access.write));
                    return Err(error);
                }
            }
            active.grantee = ask.who;
        }
        active.pins.add(ask.access);
        Ok(active.content)
    }

    /// Ends one use of an entry. With the last one the page need not stay any more.
    pub fn unpin(&mut self, grant: GrantRef, access: Access) -> Option<LetGo> {
        let active = self.active_mut(grant)?;
        if !active.pins.remove(access) {
            return None;
        }
        let (last, still_written) = (active.pins.is_empty(), active.pins.any_writes());
        let mut marks = 0;
        if last {
            marks |= layout::READING;
        }
        if access.write && !still_written {
            marks |= layout::WRITING;
        }
        let gone = match active.content {
            Content::Page { gfn, frame, .. } if last => Some(LetGo { gfn, frame }),
            _ => None,
        };
        if marks != 0
            && let Some(entry) = self.entry(grant)
        {
            entry.end(marks);
        }
        gone
    }

    /// Whether an entry is in use.
    pub(super) fn is_in_use(&self, grant: GrantRef) -> bool {
        self.active
            .get(grant.index() / ACTIVE_CHUNK)
            .and_then(|chunk| chunk.get(grant.index() % ACTIVE_CHUNK))
            .is_some_and(|active| !active.pins.is_empty())
    }

    /// Whether one of the entries from `first` on is in use.
    pub(super) fn any_in_use_from(&self, first: u32) -> bool {
        let mut used = self.active.iter().flatten().skip(first as usize);
        used.any(|active| !active.pins.is_empty())
    }

    /// Where an entry lies.
    pub(super) fn entry(&self, grant: GrantRef) -> Option<Entry> {
        if grant.0 >= self.entries() {
            return None;
        }
        let index = grant.index();
        let place = |list: &[Placed<F>], in_frame: u32, size: usize| {
            let in_frame = in_frame as usize;
            let page = list.get(index / in_frame)?.frame.page();
            Some((page, index % in_frame * size))
        };
        let (page, at, status) = if self.version == 1 {
            let (page, at) = place(&self.shared, V1_ENTRIES_PER_FRAME, layout::V1_SIZE)?;
            (page, at, None)
        } else {
            let (page, at) = place(&self.shared, V2_ENTRIES_PER_FRAME, layout::V2_SIZE)?;
            let status = place(&self.statuses, STATUSES_PER_FRAME, layout::STATUS_SIZE)?;
            (page, at, Some(status))
        };
        Some(Entry { page, at, status })
    }

    fn active_mut(&mut self, grant: GrantRef) -> Option<&mut Active> {
        self.active
            .get_mut(grant.index() / ACTIVE_CHUNK)?
            .get_mut(grant.index() % ACTIVE_CHUNK)
    }
}

/// Fills a list up with frames.
fn fill<F>(
    list: &mut Vec<Placed<F>>,
    count: u32,
    zeroed_frame: &mut impl FnMut() -> Option<F>,
) -> Result<(), Errno> {
    while list.len() < count as usize {
        list.try_reserve(1).map_err(|_| Errno::NoMem)?;
        let frame = zeroed_frame().ok_or(Errno::NoMem)?;
        list.push(Placed { frame, gfn: None });
    }
    Ok(())
}

/// Whether what an entry gives can be used for that.
const fn allows(purpose: Purpose, content: &Content) -> bool {
    match purpose {
        Purpose::Map => matches!(content, Content::Page { whole: true, .. }),
        Purpose::Copy => true,
        Purpose::CopyVia => matches!(content, Content::Page { .. }),
    }
}

/// What an entry gives, for whose page `hold` is asked. Inlined by force, as [`Entry::body`] is: a copy takes 58 instructions less.
#[inline(always)]
fn resolve(
    body: Body,
    purpose: Purpose,
    hold: impl FnOnce(Gfn) -> Result<Mfn, Status>,
) -> Result<Content, Status> {
    match body {
        Body::Page {
            gfn,
            offset,
            length,
            whole,
        } if whole || purpose != Purpose::Map => Ok(Content::Page {
            gfn,
            frame: hold(gfn)?,
            offset,
            length,
            whole,
        }),
        Body::Via { domain, grant } if purpose == Purpose::Copy => {
            Ok(Content::Via { domain, grant })
        }
        _ => Err(Status::GeneralError),
    }
}
