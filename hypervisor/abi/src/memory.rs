//! `memory_op` (`public/memory.h`).

use crate::Narrow;

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const INCREASE_RESERVATION: u64 = 0;
    pub const DECREASE_RESERVATION: u64 = 1;
    pub const MAXIMUM_RAM_PAGE: u64 = 2;
    pub const CURRENT_RESERVATION: u64 = 3;
    pub const MAXIMUM_RESERVATION: u64 = 4;
    pub const MACHPHYS_MFN_LIST: u64 = 5;
    pub const POPULATE_PHYSMAP: u64 = 6;
    pub const ADD_TO_PHYSMAP: u64 = 7;
    pub const MEMORY_MAP: u64 = 9;
    pub const MACHINE_MEMORY_MAP: u64 = 10;
    pub const EXCHANGE: u64 = 11;
    pub const MACHPHYS_MAPPING: u64 = 12;
    pub const SET_MEMORY_MAP: u64 = 13;
    pub const MAXIMUM_GPFN: u64 = 14;
    pub const REMOVE_FROM_PHYSMAP: u64 = 15;
    pub const SET_POD_TARGET: u64 = 16;
    pub const GET_POD_TARGET: u64 = 17;
    pub const GET_SHARING_FREED_PAGES: u64 = 18;
    pub const GET_SHARING_SHARED_PAGES: u64 = 19;
    pub const ADD_TO_PHYSMAP_BATCH: u64 = 23;
    pub const CLAIM_PAGES: u64 = 24;
    pub const GET_VNUMAINFO: u64 = 26;
    pub const RESERVED_DEVICE_MEMORY_MAP: u64 = 27;
    pub const ACQUIRE_RESOURCE: u64 = 28;
    /// The command; the bits above hold where a continued one goes on.
    pub const MASK: u64 = 0x3F;
    /// Bits of [`MASK`].
    pub const SHIFT: u32 = 6;
}

/// Spaces of `XENMEM_add_to_physmap` and of its batch form.
#[allow(missing_docs)]
pub mod space {
    pub const SHARED_INFO: u32 = 0;
    pub const GRANT_TABLE: u32 = 1;
    pub const GMFN: u32 = 2;
    pub const GMFN_RANGE: u32 = 3;
    pub const GMFN_FOREIGN: u32 = 4;
    pub const DEV_MMIO: u32 = 5;
}

/// Kinds of `XENMEM_acquire_resource`, and what there is of a grant table.
#[allow(missing_docs)]
pub mod resource {
    pub const GRANT_TABLE: u16 = 1;
    pub const GRANT_SHARED: u32 = 0;
    pub const GRANT_STATUS: u32 = 1;
}

/// Set in a grant-table index that means status frames (`XENMAPIDX_grant_table_status`).
pub const GRANT_STATUS_INDEX: u64 = 0x8000_0000;

/// Largest order of an extent that the control domain may ask for on itself.
pub const MAX_ORDER_CONTROL: u32 = 12;
/// Largest order of an extent for other domains.
pub const MAX_ORDER_GUEST: u32 = 9;

/// Bytes of a `xen_memory_reservation`: extents' address u64, their number u64, order u32, flags u32, domain u16.
pub const RESERVATION_SIZE: usize = 32;
/// The same in 32-bit mode, where each extent has four bytes too.
pub const RESERVATION_NARROW: &Narrow = &[(0, 0, 4), (4, 8, 4), (8, 16, 8), (16, 24, 2)];

/// Bytes of a `xen_add_to_physmap`: domain u16, size u16, space u32, index u64, frame u64.
pub const ADD_TO_PHYSMAP_SIZE: usize = 24;
/// The same in 32-bit mode.
pub const ADD_TO_PHYSMAP_NARROW: &Narrow = &[(0, 0, 8), (8, 8, 4), (12, 16, 4)];

/// Bytes of a `xen_remove_from_physmap`: domain u16, padding, frame u64.
pub const REMOVE_FROM_PHYSMAP_SIZE: usize = 16;
/// The same in 32-bit mode.
pub const REMOVE_FROM_PHYSMAP_NARROW: &Narrow = &[(0, 0, 2), (4, 8, 4)];

/// Bytes of a `xen_memory_map`: number of entries u32, padding, their address u64.
pub const MEMORY_MAP_SIZE: usize = 16;
/// The same in 32-bit mode.
pub const MEMORY_MAP_NARROW: &Narrow = &[(0, 0, 4), (4, 8, 4)];
