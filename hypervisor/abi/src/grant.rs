//! Grant tables (`public/grant_table.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const MAP_GRANT_REF: u64 = 0;
    pub const UNMAP_GRANT_REF: u64 = 1;
    pub const SETUP_TABLE: u64 = 2;
    pub const DUMP_TABLE: u64 = 3;
    pub const TRANSFER: u64 = 4;
    pub const COPY: u64 = 5;
    pub const QUERY_SIZE: u64 = 6;
    pub const UNMAP_AND_REPLACE: u64 = 7;
    pub const SET_VERSION: u64 = 8;
    pub const GET_STATUS_FRAMES: u64 = 9;
    pub const GET_VERSION: u64 = 10;
    pub const SWAP_GRANT_REF: u64 = 11;
    pub const CACHE_FLUSH: u64 = 12;
}

/// `GNTST_okay`.
pub const STATUS_OKAY: i16 = 0;
/// `GNTST_general_error`.
pub const STATUS_GENERAL_ERROR: i16 = -1;
/// `GNTST_bad_domain`.
pub const STATUS_BAD_DOMAIN: i16 = -2;
/// `GNTST_bad_gntref`.
pub const STATUS_BAD_GNTREF: i16 = -3;
/// `GNTST_bad_handle`.
pub const STATUS_BAD_HANDLE: i16 = -4;
/// `GNTST_bad_virt_addr`.
pub const STATUS_BAD_VIRT_ADDR: i16 = -5;
/// `GNTST_no_device_space`.
pub const STATUS_NO_DEVICE_SPACE: i16 = -7;
/// `GNTST_permission_denied`.
pub const STATUS_PERMISSION_DENIED: i16 = -8;
/// `GNTST_bad_page`.
pub const STATUS_BAD_PAGE: i16 = -9;
/// `GNTST_bad_copy_arg`.
pub const STATUS_BAD_COPY_ARG: i16 = -10;
/// `GNTST_address_too_big`.
pub const STATUS_ADDRESS_TOO_BIG: i16 = -11;
/// `GNTST_eagain`.
pub const STATUS_EAGAIN: i16 = -12;
/// `GNTST_no_space`.
pub const STATUS_NO_SPACE: i16 = -13;

/// Frames that a table may grow to unless the domain is told otherwise (`gnttab_max_frames`).
pub const DEFAULT_MAX_FRAMES: u32 = 64;
/// Version-1 entries in a frame.
pub const V1_ENTRIES_PER_FRAME: u32 = 512;
