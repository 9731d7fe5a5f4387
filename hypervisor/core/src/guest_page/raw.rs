//! The page as it is in memory.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::address::PAGE_SIZE;

/// A 4 KiB page shared with a guest.
///
/// All accessors are atomic of their width, so a guest that writes at the same time can change the value read but
/// never cause undefined behaviour. Offsets out of the page or not aligned to the width panic: callers pass offsets
/// that the hypervisor chose or has already checked.
#[derive(Clone, Copy, Debug)]
pub struct GuestPage(NonNull<AtomicU64>);

// SAFETY: a GuestPage gives nothing but atomic access to memory that `GuestPage::new` was promised stays valid.
unsafe impl Send for GuestPage {}
// SAFETY: as for Send.
unsafe impl Sync for GuestPage {}

macro_rules! accessor {
    ($name:ident, $atomic:ty, $doc:literal) => {
        #[doc = $doc]
        pub fn $name(&self, offset: usize) -> &$atomic {
            assert!(
                offset.is_multiple_of(size_of::<$atomic>())
                    && offset + size_of::<$atomic>() <= PAGE_SIZE
            );
            // SAFETY: the offset is aligned and inside the page, which `new` was promised is valid for atomic access.
            unsafe { self.0.cast::<u8>().add(offset).cast::<$atomic>().as_ref() }
        }
    };
}

impl GuestPage {
    /// Makes the view of the page at `base`.
    ///
    /// # Safety
    /// `base` points to 4 KiB, 4 KiB-aligned, that stay mapped and are not freed for as long as this value or a copy
    /// of it is used, and that no Rust reference other than to atomics covers.
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self(base.cast())
    }

    /// Address of the page in the hypervisor's own address space, for identity comparison and translation only.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.cast().as_ptr()
    }

    /// Copies `len` bytes at `from_offset` of another page, or of this one where the two do not overlap, to `offset`; each byte is
    /// read once and written once.
    pub fn copy_from(&self, offset: usize, from: &Self, from_offset: usize, len: usize) {
        let fits = |offset: usize| offset <= PAGE_SIZE && len <= PAGE_SIZE - offset;
        assert!(fits(offset) && fits(from_offset));
        // SAFETY: both ranges are inside their pages, which `new` was promised are valid. The accesses are the CPU's string
        // instruction's, not Rust's: who writes at the same time changes what is copied and nothing else. The direction flag is
        // clear, as in all Rust code.
        unsafe {
            core::arch::asm!(
                "rep movsq",
                "mov ecx, {rest:e}",
                "rep movsb",
                rest = in(reg) len % 8,
                inout("rcx") len / 8 => _,
                inout("rsi") from.as_ptr().add(from_offset) => _,
                inout("rdi") self.as_ptr().add(offset) => _,
                options(nostack, preserves_flags)
            );
        }
    }

    /// So many words from a multiple of 8 on.
    pub(super) fn words(&self, offset: usize, count: usize) -> impl Iterator<Item = &AtomicU64> {
        assert!(
            offset.is_multiple_of(size_of::<AtomicU64>())
                && offset <= PAGE_SIZE
                && count <= (PAGE_SIZE - offset) / size_of::<AtomicU64>()
        );
        // SAFETY: they are aligned and inside the page, which `new` was promised is valid for atomic access.
        let words = unsafe {
            let first = self.0.cast::<u8>().add(offset).cast::<AtomicU64>();
            core::slice::from_raw_parts(first.as_ptr(), count)
        };
        words.iter()
    }

    accessor!(u8, AtomicU8, "The byte at `offset`.");
    accessor!(u16, AtomicU16, "The 16-bit word at `offset`.");
    accessor!(u32, AtomicU32, "The 32-bit word at `offset`.");
    accessor!(u64, AtomicU64, "The 64-bit word at `offset`.");
}

/// A zeroed page that lives until the test process ends.
#[cfg(test)]
pub fn leaked_page() -> GuestPage {
    use std::alloc::{Layout, alloc_zeroed};

    let layout = Layout::from_size_align(PAGE_SIZE, PAGE_SIZE).expect("a page is a valid layout");
    // SAFETY: the layout has a non-zero size.
    let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("out of memory");
    // SAFETY: the page was just allocated with the right size and alignment and is never freed.
    unsafe { GuestPage::new(base) }
}
