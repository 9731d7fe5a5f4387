//! Pages that other domains grant to dom0: mapped into this process, or copied (`/dev/xen/gntdev`, `linux/uapi/xen/gntdev.h`).

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::gntalloc::OwnGrants;
use crate::sys::{self, Pages};
use crate::{DOMID_SELF, PAGE_SIZE};

const DEVICE: &str = "/dev/xen/gntdev";
const IOCTL_MAP: u64 = sys::ioctl_number(b'G', 0, 24);
const IOCTL_UNMAP: u64 = sys::ioctl_number(b'G', 1, 16);
const IOCTL_COPY: u64 = sys::ioctl_number(b'G', 8, 16);

/// Pages in one mapping of another domain's: as many as the largest ring of the PV protocols has.
const MAP_MAX: usize = 16;

/// `struct ioctl_gntdev_map_grant_ref`, with room for all references.
#[repr(C)]
struct MapGrants<const MOST: usize> {
    count: u32,
    pad: u32,
    index: u64,
    /// Domain and reference of each.
    grants: [[u32; 2]; MOST],
}

/// `struct ioctl_gntdev_unmap_grant_ref`.
#[repr(C)]
struct UnmapGrants {
    index: u64,
    count: u32,
    pad: u32,
}
const _: () = assert!(size_of::<UnmapGrants>() == 16);

/// `struct ioctl_gntdev_grant_copy`.
#[repr(C)]
struct CopyGrants {
    count: u64,
    segments: *mut Segment,
}
const _: () = assert!(size_of::<CopyGrants>() == 16);

/// `struct gntdev_grant_copy_segment`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Segment {
    source: u64,
    destination: u64,
    length: u16,
    flags: u16,
    status: i16,
    pad: u16,
}
const _: () = assert!(size_of::<Segment>() == 24);

/// `GNTCOPY_source_gref`.
const SOURCE_IS_GRANT: u16 = 1;
/// `GNTCOPY_dest_gref`.
const DESTINATION_IS_GRANT: u16 = 2;

/// The device, open. All that is mapped through it is unmapped when it and all mappings are dropped, also by the process's end.
#[derive(Clone, Debug)]
pub struct Grants {
    device: Arc<File>,
}

impl Grants {
    /// Opens the device.
    ///
    /// # Errors
    /// Not dom0, module `xen-gntdev` not loaded, or no permission; the message says which device.
    pub fn open() -> io::Result<Self> {
        let device = Arc::new(sys::open_device(DEVICE, 0)?);
        Ok(Self { device })
    }

    /// Maps pages that `domid` grants, for reading and writing, one after the other.
    ///
    /// # Errors
    /// `InvalidInput`: no page or more than 16; else the kernel's: what is not granted cannot be mapped.
    pub fn map(&self, domid: u16, references: &[u32]) -> io::Result<GrantMapping> {
        let index = self.announce::<MAP_MAX>(domid, references)?;
        // From here on dropping it takes back what was done.
        let mut mapping = GrantMapping {
            pages: None,
            grants: self.clone(),
            index,
            count: references.len() as u32,
        };
        // This is when the kernel asks the hypervisor.
        let pages = Pages::of_device_at(self.device.as_fd(), references.len(), index)?;
        mapping.pages = Some(pages);
        Ok(mapping)
    }

    /// Maps pages at the beginning of `room`, where they stay as long as that.
    ///
    /// # Errors
    /// As for [`Grants::map`], with room for [`gntalloc::MOST`](crate::gntalloc::MOST).
    pub(crate) fn map_into(&self, room: &Pages, domid: u16, references: &[u32]) -> io::Result<()> {
        let index = self.announce::<{ crate::gntalloc::MOST }>(domid, references)?;
        let placed = room.place(0, self.device.as_fd(), references.len(), index);
        self.forget(index, references.len() as u32);
        placed
    }

    /// Tells the kernel of references that are to be mapped. Where the device has them then.
    fn announce<const MOST: usize>(&self, domid: u16, references: &[u32]) -> io::Result<u64> {
        let mut argument = MapGrants {
            count: references.len() as u32,
            pad: 0,
            index: 0,
            grants: [[0; 2]; MOST],
        };
        if references.is_empty() || references.len() > MOST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (grant, &reference) in argument.grants.iter_mut().zip(references) {
            *grant = [domid.into(), reference];
        }
        // SAFETY: an `ioctl_gntdev_map_grant_ref` with `count` references behind it.
        unsafe { sys::ioctl(self.device.as_fd(), IOCTL_MAP, &mut argument)? };
        Ok(argument.index)
    }

    /// Leaves what was announced to its mapping, or takes it back where there is none.
    fn forget(&self, index: u64, count: u32) {
        let mut argument = UnmapGrants {
            index,
            count,
            pad: 0,
        };
        // SAFETY: an `ioctl_gntdev_unmap_grant_ref`. A failure would leave the kernel's note of the references, nothing mapped.
        let _ = unsafe { sys::ioctl(self.device.as_fd(), IOCTL_UNMAP, &mut argument) };
    }

    /// Makes all copies of a batch; each has an outcome of its own.
    ///
    /// # Errors
    /// The kernel's, if it cannot copy at all: a part that leaves its page, for instance.
    pub fn copy(&self, batch: &mut CopyBatch<'_>) -> io::Result<()> {
        if batch.segments.is_empty() {
            return Ok(());
        }
        let mut argument = CopyGrants {
            count: batch.segments.len() as u64,
            segments: batch.segments.as_mut_ptr(),
        };
        // SAFETY: an `ioctl_gntdev_grant_copy` with so many segments. Their addresses are of slices that the batch borrows, those that
        // are written to exclusively, and the lengths are the slices'.
        unsafe { sys::ioctl(self.device.as_fd(), IOCTL_COPY, &mut argument) }.map(|_| ())
    }
}

/// A part of a granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantPart {
    /// The domain that grants it.
    pub domid: u16,
    /// The reference.
    pub reference: u32,
    /// First byte in the page.
    pub offset: u16,
}

impl GrantPart {
    fn packed(self) -> u64 {
        packed(self.domid, self.reference, self.offset)
    }
}

/// As the kernel has a granted page's part in a segment.
pub(crate) fn packed(domid: u16, reference: u32, offset: u16) -> u64 {
    u64::from(reference) | u64::from(offset) << 32 | u64::from(domid) << 48
}

/// Copies from and to granted pages that are made together.
#[derive(Debug, Default)]
pub struct CopyBatch<'a> {
    segments: Vec<Segment>,
    own: Option<Arc<OwnGrants>>,
    buffers: PhantomData<&'a mut [u8]>,
}

impl<'a> CopyBatch<'a> {
    /// An empty batch. Buffers that `own` has are named by their grants.
    pub const fn new(own: Option<Arc<OwnGrants>>) -> Self {
        Self {
            segments: Vec::new(),
            own,
            buffers: PhantomData,
        }
    }

    /// Adds a copy out of a granted page.
    ///
    /// # Panics
    /// If the part leaves its page, which the caller checks.
    #[inline]
    pub fn from_grant(&mut self, from: GrantPart, to: &'a mut [u8]) {
        check(from.offset, to.len());
        let (destination, is_grant) = self.buffer(to.as_mut_ptr() as u64, to.len());
        self.segments.push(Segment {
            source: from.packed(),
            destination,
            length: to.len() as u16,
            flags: SOURCE_IS_GRANT | if is_grant { DESTINATION_IS_GRANT } else { 0 },
            status: 0,
            pad: 0,
        });
    }

    /// Adds a copy into a granted page.
    ///
    /// # Panics
    /// As for [`CopyBatch::from_grant`].
    #[inline]
    pub fn to_grant(&mut self, from: &'a [u8], to: GrantPart) {
        check(to.offset, from.len());
        let (source, is_grant) = self.buffer(from.as_ptr() as u64, from.len());
        self.segments.push(Segment {
            source,
            destination: to.packed(),
            length: from.len() as u16,
            flags: DESTINATION_IS_GRANT | if is_grant { SOURCE_IS_GRANT } else { 0 },
            status: 0,
            pad: 0,
        });
    }

    /// How a buffer is named, and whether that is by a grant.
    #[inline]
    fn buffer(&self, address: u64, length: usize) -> (u64, bool) {
        let own = self.own.as_ref();
        match own.and_then(|own| own.named(address, length)) {
            Some(named) => (named, true),
            None => (address, false),
        }
    }

    /// The same memory, for copies between other buffers.
    pub fn emptied<'b>(mut self) -> CopyBatch<'b> {
        self.segments.clear();
        CopyBatch {
            segments: self.segments,
            own: self.own,
            buffers: PhantomData,
        }
    }

    /// Copies in it.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The first copy that was not made: the other domain's reference and the hypervisor's `GNTST_*`.
    pub fn first_refused(&self) -> Option<(u32, i16)> {
        let refused = self.segments.iter().find(|segment| segment.status != 0)?;
        let theirs = |side: u64| (side >> 48) as u16 != DOMID_SELF;
        let granted = if refused.flags & SOURCE_IS_GRANT != 0 && theirs(refused.source) {
            refused.source
        } else {
            refused.destination
        };
        Some((granted as u32, refused.status))
    }

    /// How each copy ended, in the order in which they were added: 0, or the hypervisor's `GNTST_*`.
    pub fn outcomes(&self) -> impl Iterator<Item = i16> + '_ {
        self.segments.iter().map(|segment| segment.status)
    }
}

#[inline]
fn check(offset: u16, length: usize) {
    assert!(
        usize::from(offset) + length <= PAGE_SIZE,
        "a copy leaves its page"
    );
}

/// Granted pages that are mapped; unmapped on drop.
///
/// The other domain writes to them at any time, so they are seen as atomic words only.
#[derive(Debug)]
pub struct GrantMapping {
    /// `None` only between the two steps of mapping.
    pages: Option<Pages>,
    grants: Grants,
    index: u64,
    count: u32,
}

impl GrantMapping {
    /// Copies bytes out of the pages, from byte `from` on. The other domain may write them meanwhile: each is what it was at some moment.
    ///
    /// # Panics
    /// If they leave the pages, which the caller checks.
    pub fn read(&self, from: usize, to: &mut [u8]) {
        let source = self.part(from, to.len());
        // SAFETY: `part` is mapped for so many bytes, as long as `self`, and is no memory of this process's own, so that `to` is
        // elsewhere. No reference is made to it; whatever bytes another domain puts there are fit for `to`.
        unsafe { std::ptr::copy_nonoverlapping(source, to.as_mut_ptr(), to.len()) }
    }

    /// Copies bytes into the pages, from byte `to` on.
    ///
    /// # Panics
    /// As for [`GrantMapping::read`].
    pub fn write(&self, from: &[u8], to: usize) {
        let destination = self.part(to, from.len());
        // SAFETY: as for `read`. Nothing here relies on what the pages hold.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), destination, from.len()) }
    }

    fn part(&self, offset: usize, length: usize) -> *mut u8 {
        let (start, size) = match &self.pages {
            Some(pages) => (pages.as_ptr(), pages.size()),
            None => (std::ptr::null_mut(), 0),
        };
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= size), "a copy leaves its page");
        start.wrapping_add(offset)
    }
}

impl AsRef<[AtomicU32]> for GrantMapping {
    #[inline]
    fn as_ref(&self) -> &[AtomicU32] {
        let Some(pages) = &self.pages else {
            return &[];
        };
        // SAFETY: mapped, page-aligned, so long, and as long as `self`; this process sees it as atomics only. What another domain does
        // to it is as another thread's access to the same words.
        unsafe { std::slice::from_raw_parts(pages.as_ptr().cast::<AtomicU32>(), pages.size() / 4) }
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        self.pages = None;
        self.grants.forget(self.index, self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_header() {
        assert_eq!(
            [IOCTL_MAP, IOCTL_UNMAP, IOCTL_COPY],
            [0x0018_4700, 0x0010_4701, 0x0010_4708]
        );
        assert_eq!(std::mem::offset_of!(MapGrants<MAP_MAX>, grants), 16);
    }

    #[test]
    fn copies_are_written_as_the_kernel_reads_them() {
        let part = GrantPart {
            domid: 7,
            reference: 0x1234_5678,
            offset: 512,
        };
        let (mut to, from) = ([0; 512], [1; 1024]);
        let (to_address, from_address) = (to.as_ptr() as u64, from.as_ptr() as u64);
        let mut batch = CopyBatch::default();
        batch.from_grant(part, &mut to);
        batch.to_grant(&from, part);
        let [first, second] = batch.segments[..] else {
            panic!("two copies");
        };
        assert_eq!(first.source, 0x0007_0200_1234_5678);
        assert_eq!(
            (first.destination, first.length, first.flags),
            (to_address, 512, 1)
        );
        assert_eq!(
            (second.source, second.length, second.flags),
            (from_address, 1024, 2)
        );
        assert_eq!(second.destination, 0x0007_0200_1234_5678);
        assert_eq!(batch.outcomes().collect::<Vec<_>>(), [0, 0]);
        assert_eq!(batch.first_refused(), None);
        batch.segments[1].status = -3;
        assert_eq!(batch.first_refused(), Some((0x1234_5678, -3)));
    }

    #[test]
    fn own_buffers_are_named_by_their_grants() {
        let mut page = [0; 64];
        let own = OwnGrants::of(page.as_ptr() as u64, vec![9]);
        let mut batch = CopyBatch::new(Some(Arc::new(own)));
        let part = GrantPart {
            domid: 7,
            reference: 5,
            offset: 1,
        };
        let (one, two) = page.split_at_mut(16);
        batch.from_grant(part, one);
        batch.to_grant(two, part);
        let [first, second] = &mut batch.segments[..] else {
            panic!("two copies");
        };
        assert_eq!((first.source, first.flags), (part.packed(), 3));
        assert_eq!(first.destination, packed(DOMID_SELF, 9, 0));
        assert_eq!(
            (second.source, second.flags),
            (packed(DOMID_SELF, 9, 16), 3)
        );
        assert_eq!(second.destination, part.packed());
        (first.status, second.status) = (-1, -1);
        assert_eq!(batch.first_refused(), Some((5, -1)));
        batch.segments.remove(0);
        assert_eq!(batch.first_refused(), Some((5, -1)));
    }

    #[test]
    #[should_panic(expected = "leaves its page")]
    fn no_copy_leaves_its_page() {
        let part = GrantPart {
            domid: 7,
            reference: 1,
            offset: 4000,
        };
        CopyBatch::default().from_grant(part, &mut [0; 100]);
    }
}
