//! Memory of this process that its domain grants to itself (`/dev/xen/gntalloc`, `linux/uapi/xen/gntalloc.h`).
//!
//! Copies name it by grants ([`crate::gntdev::CopyBatch`]). What else is copied the kernel has to find and to hold for each copy, page by
//! page.

use std::io;
use std::os::fd::AsFd;

use crate::gntdev::Grants;
use crate::sys::{self, Pages};
use crate::{DOMID_SELF, PAGE_SIZE};

const DEVICE: &str = "/dev/xen/gntalloc";
const IOCTL_ALLOC: u64 = sys::ioctl_number(b'G', 5, 24);
/// `GNTALLOC_FLAG_WRITABLE`.
const WRITABLE: u16 = 1;
/// dom0's number, as which it grants to itself: an entry of a grant table has no word for that.
const DOM0: u16 = 0;
/// Pages at most.
pub const MOST: usize = 128;

/// `struct ioctl_gntalloc_alloc_gref`, with room for all references.
#[repr(C)]
struct AllocGrants {
    domid: u16,
    flags: u16,
    count: u32,
    index: u64,
    references: [u32; MOST],
}

/// The grants that stand for pages of this process.
#[derive(Debug)]
pub struct OwnGrants {
    /// Address of the first page. The others follow.
    start: u64,
    references: Vec<u32>,
}

/// So many zeroed pages, as long as the process lives, and the grants that stand for them.
///
/// The grants are in use from the beginning, by being mapped where nobody looks: the hypervisor holds the pages then, and need not do so for
/// each copy. What is mapped so lies before the pages, so that it goes before them at the end of the process: a grant in use is given up
/// by the kernel some seconds later only.
///
/// # Errors
/// `InvalidInput`: no page or more than [`MOST`]. The module `xen-gntalloc` is not loaded, or its `limit` of all pages is reached; this is not
/// dom0.
pub fn pages(count: usize) -> io::Result<(OwnGrants, &'static mut [u8])> {
    if count == 0 || count > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let device = sys::open_device(DEVICE, 0)?;
    let mut argument = AllocGrants {
        domid: DOM0,
        flags: WRITABLE,
        count: count as u32,
        index: 0,
        references: [0; MOST],
    };
    // SAFETY: an `ioctl_gntalloc_alloc_gref` with room for all references that it asks for.
    unsafe { sys::ioctl(device.as_fd(), IOCTL_ALLOC, &mut argument)? };
    let references = argument.references[..count].to_vec();
    let room = Pages::room(2 * count)?;
    // From here on nothing but the mappings keeps either.
    room.place(count, device.as_fd(), count, argument.index)?;
    Grants::open()?.map_into(&room, DOM0, &references)?;
    // SAFETY: they are memory of the device's, which has been zeroed and is nobody else's. Through the other mapping of the same pages
    // nobody looks, nor does who gets the grants: that is this domain, which uses them for what is copied here.
    let memory = unsafe { room.leak(count) };
    let start = memory.as_ptr() as u64;
    Ok((OwnGrants { start, references }, memory))
}

impl OwnGrants {
    /// Grants that stand for pages from an address on.
    #[cfg(test)]
    pub(crate) const fn of(start: u64, references: Vec<u32>) -> Self {
        Self { start, references }
    }

    /// As a copy names bytes of a page, if these are all of one.
    #[inline]
    pub(crate) fn named(&self, address: u64, length: usize) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let (page, offset) = (at / PAGE_SIZE, at % PAGE_SIZE);
        let reference = *self.references.get(page)?;
        let is_within = offset + length <= PAGE_SIZE;
        is_within.then_some(crate::gntdev::packed(DOMID_SELF, reference, offset as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_header() {
        assert_eq!(IOCTL_ALLOC, 0x0018_4705);
        assert_eq!(std::mem::offset_of!(AllocGrants, references), 16);
    }

    #[test]
    fn bytes_of_one_page_are_named() {
        let own = OwnGrants {
            start: 0x5000,
            references: vec![9, 0x1234_5678],
        };
        assert_eq!(own.named(0x5000, 4096), Some(0x7FF0_0000_0000_0009));
        assert_eq!(own.named(0x6FFE, 2), Some(0x7FF0_0FFE_1234_5678));
        for (address, length) in [(0x4FFF, 1), (0x5FFF, 2), (0x7000, 1), (u64::MAX, 1)] {
            assert_eq!(own.named(address, length), None, "{address:#x}");
        }
    }
}
