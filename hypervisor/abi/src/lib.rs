//! The guest-visible contract: Xen's public ABI (4.17) as Rust types and constants. Layouts are checked at compile time.
#![no_std]
#![forbid(unsafe_code)]

pub mod cpuid;
pub mod domctl;
pub mod errno;
pub mod event_channel;
pub mod grant;
pub mod hvm;
pub mod memory;
pub mod numbers;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod shared_info;
pub mod start_info;
pub mod sysctl;
pub mod vcpu;
pub mod version;

pub use errno::Errno;

/// Where a structure's fields are for callers in 32-bit mode, whose pointers and `unsigned long`s have four bytes: offset
/// there, offset in the 64-bit layout, size. In order, and the last one ends the structure.
pub type Narrow = [(usize, usize, usize)];

/// Checks sizes and offsets against the tables generated from the public headers.
macro_rules! layout {
    ($name:ty, $size:literal $(, $field:ident = $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };
    };
}
pub(crate) use layout;
