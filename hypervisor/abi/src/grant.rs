//! Grant tables (`public/grant_table.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const MAP_GRANT_REF: u64 = 0;
    pub const UNMAP_GRANT_REF: u64 = 1;
    pub const SETUP_TABLE: u64 = 2;
    pub const COPY: u64 = 5;
    pub const QUERY_SIZE: u64 = 6;
    pub const SET_VERSION: u64 = 8;
    pub const GET_VERSION: u64 = 10;
}

/// `GNTST_okay`.
pub const STATUS_OKAY: i16 = 0;
/// `GNTST_general_error`.
pub const STATUS_GENERAL_ERROR: i16 = -1;
/// `GNTST_bad_domain`.
pub const STATUS_BAD_DOMAIN: i16 = -2;

/// Frames that a table may grow to unless the domain is told otherwise (`gnttab_max_frames`).
pub const DEFAULT_MAX_FRAMES: u32 = 64;
/// Version-1 entries in a frame.
pub const V1_ENTRIES_PER_FRAME: u32 = 512;
