//! The hypervisor's virtual address space.
//!
//! | from | what |
//! | --- | --- |
//! | `0xFFFF_8000_0000_0000` | direct map: all RAM, never executable |
//! | `0xFFFF_A000_0000_0000` | stacks, each between unmapped guard pages |
//! | `0xFFFF_B000_0000_0000` | device registers, uncached |
//! | `0xFFFF_FFFF_8000_0000` | the image, W^X |

use oxen_core::address::{HostPhys, Mfn};

/// Start of the direct map.
pub const DIRECT_MAP: u64 = 0xFFFF_8000_0000_0000;
/// Most RAM that the direct map can hold, in bytes.
pub const DIRECT_MAP_SIZE: u64 = 0x2000_0000_0000;
/// Start of the stacks.
pub const STACKS: u64 = 0xFFFF_A000_0000_0000;
/// Start of the device mappings.
pub const DEVICES: u64 = 0xFFFF_B000_0000_0000;
/// Distance from the image's physical to its virtual addresses.
pub const IMAGE_OFFSET: u64 = 0xFFFF_FFFF_8000_0000;

/// The direct map's view of a physical address. Valid to access only where there is RAM.
pub const fn direct_map(address: HostPhys) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((DIRECT_MAP + address.0) as usize)
}

/// The direct map's view of a frame.
pub const fn direct_map_frame(frame: Mfn) -> *mut u8 {
    direct_map(frame.address())
}

/// The physical address behind a direct-map address.
pub const fn direct_map_to_phys(address: u64) -> Option<HostPhys> {
    match address.checked_sub(DIRECT_MAP) {
        Some(offset) if offset < DIRECT_MAP_SIZE => Some(HostPhys(offset)),
        _ => None,
    }
}

unsafe extern "C" {
    static __image_physical_start: u8;
    static __image_physical_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
}

/// A part of the image with its own page permissions: virtual start and end.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// For the log.
    pub name: &'static str,
    /// First virtual address.
    pub start: u64,
    /// Past the last virtual address.
    pub end: u64,
    /// Whether code runs there.
    pub execute: bool,
    /// Whether data is written there.
    pub write: bool,
}

/// The image's sections as linked.
pub fn image_sections() -> [Section; 3] {
    let of = |name, start: *const u8, end: *const u8, execute, write| Section {
        name,
        start: start as u64,
        end: end as u64,
        execute,
        write,
    };
    [
        of(
            "text",
            &raw const __text_start,
            &raw const __text_end,
            true,
            false,
        ),
        of(
            "rodata",
            &raw const __rodata_start,
            &raw const __rodata_end,
            false,
            false,
        ),
        of(
            "data",
            &raw const __data_start,
            &raw const __data_end,
            false,
            true,
        ),
    ]
}

/// Physical range of the whole image, boot code included.
pub fn image_range() -> core::ops::Range<u64> {
    (&raw const __image_physical_start) as u64..(&raw const __image_physical_end) as u64
}
