//! dom0's way to the hypervisor: hypercalls, foreign memory and event channels through Linux's Xen devices.
//!
//! Every operation takes the [`privcmd::Privcmd`] that it goes through: there is no global state. Operations return the
//! hypervisor's errno as an [`std::io::Error`]; which operation on which domain failed is known to the caller, who says so.
//! Layouts and numbers are those of Xen 4.17 (domctl and sysctl interface version 0x15), checked at compile time.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the hypervisor runs on x86-64 and its control domain is Linux");

mod control;
pub mod cpu_map;
pub mod domain;
pub mod event_channel;
pub mod evtchn;
pub mod file_view;
pub mod foreign;
pub mod gntalloc;
pub mod gntdev;
pub mod grant;
pub mod guest_memory;
pub mod host;
pub mod hvm;
pub mod memory;
pub mod plain;
pub mod privcmd;
pub mod shared_file;
mod sys;

/// Bytes of a page, of guests and of the hypervisor.
pub const PAGE_SIZE: usize = 4096;
/// The caller's own domain (`DOMID_SELF`).
pub const DOMID_SELF: u16 = 0x7FF0;
/// First number that is no domain's (`DOMID_FIRST_RESERVED`).
pub const DOMID_FIRST_RESERVED: u16 = 0x7FF0;

pub use sys::ticks;

/// Checks size and offsets against the tables made from the public headers.
macro_rules! layout {
    ($name:ty, $size:literal $(, $field:ident = $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };
        // SAFETY: `repr(C)` structures of integers, see `Plain`.
        unsafe impl crate::plain::Plain for $name {}
    };
}
pub(crate) use layout;
