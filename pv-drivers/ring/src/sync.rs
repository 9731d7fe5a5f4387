//! Atomics: the CPU's, or with the feature `loom` in tests those of loom, which tries all orders of what threads do.

#[cfg(not(all(test, feature = "loom")))]
pub use core::sync::atomic;

#[cfg(all(test, feature = "loom"))]
pub use loom::sync::atomic;
