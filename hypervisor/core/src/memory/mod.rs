//! Physical frames, the guest-physical map, and walks of a guest's own page tables.

pub mod claims;
pub mod frames;
pub mod p2m;
pub mod ranges;
pub mod walk;
