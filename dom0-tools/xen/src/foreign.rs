//! Memory of other domains, mapped into this process.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::PAGE_SIZE;
use crate::privcmd::Privcmd;
use crate::sys::{self, Pages};

/// `struct privcmd_mmapbatch_v2`.
#[repr(C)]
struct Batch {
    count: u32,
    domain: u16,
    pad: u16,
    address: u64,
    frames: *const u64,
    errors: *mut i32,
}
const IOCTL_MMAPBATCH_V2: u64 = sys::ioctl_number(b'P', 4, 32);
const _: () = assert!(size_of::<Batch>() == 32);

/// `struct privcmd_mmap_resource`.
#[repr(C)]
struct Resource {
    domain: u16,
    pad: u16,
    kind: u32,
    id: u32,
    first_frame: u32,
    frames: u64,
    address: u64,
}
const IOCTL_MMAP_RESOURCE: u64 = sys::ioctl_number(b'P', 7, 32);
const _: () = assert!(size_of::<Resource>() == 32);

/// Pages of another domain; unmapped on drop. While mapped they stay allocated, and the domain's number stays taken, even if
/// it is destroyed.
///
/// The other domain writes to them at any time: access them through the pointer with volatile or atomic operations, never
/// through a reference.
#[derive(Debug)]
pub struct Mapping {
    pages: Pages,
}

impl Mapping {
    /// Maps pages by guest frame number, in that order.
    ///
    /// # Errors
    /// Those of opening `/dev/xen/privcmd`, and of [`Mapping::map_with`].
    pub fn map(domid: u16, gfns: &[u64]) -> io::Result<Self> {
        Self::map_with(&Privcmd::open()?, domid, gfns)
    }

    /// As [`Mapping::map`], through an open device.
    ///
    /// # Errors
    /// The hypervisor's errno for the first page that cannot be mapped, with its number: nothing is mapped then.
    pub fn map_with(xen: &Privcmd, domid: u16, gfns: &[u64]) -> io::Result<Self> {
        let (mapping, errors) = Self::map_some(xen, domid, gfns)?;
        check(domid, gfns, &errors)?;
        Ok(mapping)
    }

    /// Maps those pages that are there, each in its place, and tells which: only these may be read. The rest of the range is not
    /// mapped.
    ///
    /// # Errors
    /// The kernel's, if it cannot map at all.
    pub fn map_present(xen: &Privcmd, domid: u16, gfns: &[u64]) -> io::Result<(Self, Vec<bool>)> {
        let (mapping, errors) = Self::map_some(xen, domid, gfns)?;
        let present = errors.into_iter().map(|error| error == 0).collect();
        Ok((mapping, present))
    }

    /// The mapping, and the errno of each page, negative, or 0.
    fn map_some(xen: &Privcmd, domid: u16, gfns: &[u64]) -> io::Result<(Self, Vec<i32>)> {
        let pages = Pages::of_device(xen.device(), gfns.len())?;
        let mut errors = vec![0_i32; gfns.len()];
        let mut batch = Batch {
            count: u32::try_from(gfns.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            domain: domid,
            pad: 0,
            address: pages.as_ptr() as u64,
            frames: gfns.as_ptr(),
            errors: errors.as_mut_ptr(),
        };
        // SAFETY: a `privcmd_mmapbatch_v2` whose arrays have `count` elements and live through the call; the kernel maps over
        // the pages reserved above.
        let result = unsafe { sys::ioctl(xen.device(), IOCTL_MMAPBATCH_V2, &mut batch) };
        // An error of the whole may only repeat that of a page.
        if errors.iter().all(|error| *error == 0) {
            result?;
        }
        Ok((Self { pages }, errors))
    }

    /// Maps frames `0..frames` of a resource (`XENMEM_acquire_resource`): kind 1 is the grant table.
    ///
    /// # Errors
    /// The hypervisor's errno.
    pub fn of_resource(
        xen: &Privcmd,
        domid: u16,
        kind: u32,
        id: u32,
        frames: usize,
    ) -> io::Result<Self> {
        let pages = Pages::of_device(xen.device(), frames)?;
        let mut resource = Resource {
            domain: domid,
            pad: 0,
            kind,
            id,
            first_frame: 0,
            frames: frames as u64,
            address: pages.as_ptr() as u64,
        };
        // SAFETY: a `privcmd_mmap_resource`; the kernel maps over the pages reserved above.
        unsafe { sys::ioctl(xen.device(), IOCTL_MMAP_RESOURCE, &mut resource)? };
        Ok(Self { pages })
    }

    /// Ordinary zeroed memory in place of another domain's, for tests of what works on a mapping.
    ///
    /// # Errors
    /// Out of memory.
    pub fn stand_in(pages: usize) -> io::Result<Self> {
        Ok(Self {
            pages: Pages::resident(pages)?,
        })
    }

    /// First byte.
    pub const fn as_ptr(&self) -> *mut u8 {
        self.pages.as_ptr()
    }

    /// Bytes.
    pub const fn size(&self) -> usize {
        self.pages.size()
    }

    /// Copies `bytes` in at an offset.
    ///
    /// # Errors
    /// `InvalidInput` if they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(offset, bytes.len())?;
        // SAFETY: inside the mapping, and no reference to it exists. The source is memory of this process.
        unsafe { place.copy_from(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes out from an offset. The other domain may change them meanwhile: judge the copy, never the original.
    ///
    /// # Errors
    /// `InvalidInput` if they are not all inside.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        let place = self.place(offset, bytes.len())?;
        // SAFETY: inside the mapping, and no reference to it exists. The destination is memory of this process.
        unsafe { place.copy_to(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// The address of so many bytes, which are all inside.
    fn place(&self, offset: usize, length: usize) -> io::Result<*mut u8> {
        offset
            .checked_add(length)
            .filter(|&end| end <= self.size())
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: inside the mapping or at its end, checked above.
        Ok(unsafe { self.as_ptr().add(offset) })
    }

    /// Reads an index that the other side writes; what it wrote before is visible then.
    ///
    /// # Panics
    /// If the offset is not a multiple of 4 inside the mapping.
    pub fn load(&self, offset: usize) -> u32 {
        self.index(offset).load(Ordering::Acquire)
    }

    /// Writes an index that the other side reads; what was written before is visible by then, and what the other side did
    /// before its next write is read after.
    ///
    /// # Panics
    /// If the offset is not a multiple of 4 inside the mapping.
    pub fn store(&self, offset: usize, value: u32) {
        self.index(offset).store(value, Ordering::SeqCst);
    }

    fn index(&self, offset: usize) -> &AtomicU32 {
        assert!(
            offset.is_multiple_of(4) && offset < self.size(),
            "no index at {offset}"
        );
        // SAFETY: aligned and inside the mapping, checked above; accessed as an atomic only.
        unsafe { AtomicU32::from_ptr(self.as_ptr().add(offset).cast()) }
    }
}

/// The first page that failed, if any.
fn check(domid: u16, gfns: &[u64], errors: &[i32]) -> io::Result<()> {
    match errors.iter().zip(gfns).find(|(error, _)| **error != 0) {
        None => Ok(()),
        Some((error, gfn)) => {
            let error = io::Error::from_raw_os_error(-error);
            Err(io::Error::new(
                error.kind(),
                format!(
                    "domain {domid}, guest page {:#x}: cannot be mapped: {error}",
                    gfn.saturating_mul(PAGE_SIZE as u64)
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_that_fails_is_named() {
        assert!(check(3, &[1, 2], &[0, 0]).is_ok());
        let error = check(3, &[1, 2], &[0, -libc::ENOENT]).expect_err("a page failed");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("domain 3, guest page 0x2000"));
    }

    #[test]
    fn writes_stay_inside() {
        let mapping = Mapping::stand_in(1).expect("a page");
        mapping.write(4094, &[1, 2]).expect("it fits");
        // SAFETY: the last byte of the page.
        assert_eq!(unsafe { mapping.as_ptr().add(4095).read_volatile() }, 2);
        assert!(mapping.write(4095, &[1, 2]).is_err());
        assert!(mapping.write(usize::MAX, &[1]).is_err());
    }

    #[test]
    fn reads_stay_inside() {
        let mapping = Mapping::stand_in(1).expect("a page");
        mapping.write(4094, &[1, 2]).expect("it fits");
        let mut bytes = [0; 2];
        mapping.read(4094, &mut bytes).expect("it is inside");
        assert_eq!(bytes, [1, 2]);
        assert!(mapping.read(4095, &mut bytes).is_err());
        assert!(mapping.read(usize::MAX, &mut bytes).is_err());
    }
}
