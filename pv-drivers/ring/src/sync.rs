//! Atomics: the CPU's, or with the feature `loom` in tests those of loom, which tries all orders of what threads do. In tests a word is
//! stored only while whoever stores it lives: see [`life`].

#[cfg(not(test))]
pub use core::sync::atomic;

#[cfg(test)]
pub mod atomic {
    #[cfg(feature = "loom")]
    pub use loom::sync::atomic::{AtomicBool, Ordering, fence};
    #[cfg(not(feature = "loom"))]
    pub use std::sync::atomic::{Ordering, fence};

    pub use super::life::AtomicU32;
}

/// Processes that are killed: from some store on, none of theirs is made.
#[cfg(test)]
pub mod life {
    use std::cell::Cell;

    use super::atomic::Ordering;

    #[cfg(feature = "loom")]
    use loom::sync::atomic::AtomicU32 as Word;
    #[cfg(not(feature = "loom"))]
    use std::sync::atomic::AtomicU32 as Word;

    // Acts that this thread's process may still do.
    #[cfg(feature = "loom")]
    loom::thread_local! {
        static LEFT: Cell<u32> = Cell::new(u32::MAX);
    }
    #[cfg(not(feature = "loom"))]
    thread_local! {
        static LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
    }

    /// Does what a process does that is killed behind so many acts, which are stores and events. True if it has come to its end alive.
    pub fn killed_after(acts: u32, does: impl FnOnce()) -> bool {
        LEFT.with(|left| left.set(acts));
        does();
        LEFT.with(|left| left.replace(u32::MAX)) > 0
    }

    /// Whether the process lives to do another act, which is done with this.
    pub fn acts() -> bool {
        LEFT.with(|left| match left.get() {
            0 => false,
            u32::MAX => true,
            more => {
                left.set(more - 1);
                true
            }
        })
    }

    #[derive(Debug)]
    pub struct AtomicU32(Word);

    impl AtomicU32 {
        pub fn new(value: u32) -> Self {
            Self(Word::new(value))
        }

        pub fn load(&self, ordering: Ordering) -> u32 {
            self.0.load(ordering)
        }

        pub fn store(&self, value: u32, ordering: Ordering) {
            if acts() {
                self.0.store(value, ordering);
            }
        }
    }
}
