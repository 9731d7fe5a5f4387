//! The machine's memory: frames, the hypervisor's own address space, and safe ways to touch guests' pages.

pub mod frames;
pub mod guest;
pub mod heap;
pub mod holds;
pub mod layout;
pub mod paging;
pub mod scrub;

use core::ptr::NonNull;

use oxen_core::address::{Mfn, PAGE_SIZE};
use oxen_core::grant;
use oxen_core::guest_page::GuestPage;
use oxen_core::memory::p2m::Mapping;

/// Contiguous frames that the hypervisor owns; given back when dropped.
pub struct HostPages {
    first: Mfn,
    pages: usize,
}

impl HostPages {
    /// `pages` contiguous zeroed frames, aligned to their number rounded up to a power of two.
    pub fn new_zeroed(pages: usize) -> Option<Self> {
        let first = frames::allocate_run_zeroed(pages as u64)?;
        Some(Self { first, pages })
    }

    /// First frame.
    pub const fn first(&self) -> Mfn {
        self.first
    }

    /// Address in the direct map.
    pub fn pointer(&self) -> NonNull<u8> {
        NonNull::new(layout::direct_map_frame(self.first)).unwrap_or(NonNull::dangling())
    }

    /// The content, for pages that neither a guest nor a device writes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the frames are ours and `self` is borrowed exclusively; callers keep to pages that nobody else writes.
        unsafe {
            core::slice::from_raw_parts_mut(
                layout::direct_map_frame(self.first),
                self.pages * PAGE_SIZE,
            )
        }
    }

    /// The first page as one that a guest or the hardware also writes.
    pub fn shared(&self) -> GuestPage {
        // SAFETY: the page lies in the direct map; whoever takes the view keeps `self` alive, see `leak`.
        unsafe { GuestPage::new(self.pointer()) }
    }

    /// Keeps the frames for good.
    pub fn leak(self) -> Mfn {
        let first = self.first;
        core::mem::forget(self);
        first
    }
}

impl grant::Frame for HostPages {
    fn page(&self) -> GuestPage {
        self.shared()
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        frames::free_run(self.first, self.pages as u64);
    }
}

/// The view of a page that a domain's map leads to, if it is memory.
pub fn mapped_page(mapping: &Mapping) -> Option<GuestPage> {
    if !mapping.kind.is_memory() {
        return None;
    }
    // SAFETY: maps lead to memory only for frames of RAM in the direct map: their own, or ones of ours. As for `guest_page`.
    Some(unsafe { GuestPage::new(NonNull::new(layout::direct_map_frame(mapping.frame))?) })
}

/// The view of a frame of RAM that a guest may write at any time.
pub fn guest_page(frame: Mfn) -> Option<GuestPage> {
    if !frames::is_ram(frame) {
        return None;
    }
    // SAFETY: the frame is RAM in the direct map, which is never unmapped; views of frames that change hands see only
    // bytes, through atomics.
    Some(unsafe { GuestPage::new(NonNull::new(layout::direct_map_frame(frame))?) })
}
