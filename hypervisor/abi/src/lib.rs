//! The guest-visible contract: Xen's public ABI (4.17) as Rust types and constants. Layouts are checked at compile time.
#![no_std]
#![forbid(unsafe_code)]
