//! Physical frames, the guest-physical map, and walks of a guest's own page tables.

pub mod claims;
pub mod foreign;
pub mod frames;
pub mod p2m;
pub mod ranges;
pub mod transfer;
pub mod walk;

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// A list of what there is, with no more memory than it needs.
///
/// # Errors
/// No memory.
pub fn try_collect<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, TryReserveError> {
    let mut list = Vec::new();
    list.try_reserve_exact(items.len())?;
    // A promise of its length that an iterator does not keep must not allocate.
    list.extend(items.take(list.capacity()));
    Ok(list)
}
