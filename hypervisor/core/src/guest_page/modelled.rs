//! A stand-in for the page: words of loom, made at the first access.
//!
//! A model's first thread makes them all before the others begin. One word is accessed in one width only.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct GuestPage(&'static Words);

/// A zeroed page that lives until the test process ends.
pub fn leaked_page() -> GuestPage {
    GuestPage(Box::leak(Box::default()))
}

#[derive(Debug, Default)]
struct Words {
    u8: Mutex<BTreeMap<usize, &'static AtomicU8>>,
    u16: Mutex<BTreeMap<usize, &'static AtomicU16>>,
    u32: Mutex<BTreeMap<usize, &'static AtomicU32>>,
    u64: Mutex<BTreeMap<usize, &'static AtomicU64>>,
}

macro_rules! accessor {
    ($name:ident, $atomic:ty) => {
        /// The word at `offset`.
        pub fn $name(&self, offset: usize) -> &$atomic {
            let mut words = self.0.$name.lock().expect("no test panics here");
            words
                .entry(offset)
                .or_insert_with(|| Box::leak(Box::new(<$atomic>::new(0))))
        }
    };
}

impl GuestPage {
    /// For identity comparison.
    pub fn as_ptr(&self) -> *mut u8 {
        core::ptr::from_ref(self.0).cast_mut().cast()
    }

    /// Copies bytes of another page.
    pub fn copy_from(&self, offset: usize, from: &Self, from_offset: usize, len: usize) {
        let mut bytes = vec![0; len];
        from.read(from_offset, &mut bytes);
        self.write(offset, &bytes);
    }

    /// So many words.
    pub(super) fn words(&self, offset: usize, count: usize) -> impl Iterator<Item = &AtomicU64> {
        (0..count).map(move |nth| self.u64(offset + 8 * nth))
    }

    accessor!(u8, AtomicU8);
    accessor!(u16, AtomicU16);
    accessor!(u32, AtomicU32);
    accessor!(u64, AtomicU64);
}
