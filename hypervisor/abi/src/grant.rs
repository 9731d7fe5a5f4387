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

/// How one element of an operation ended (`GNTST_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
#[allow(missing_docs)]
pub enum Status {
    Okay = 0,
    GeneralError = -1,
    BadDomain = -2,
    BadGntref = -3,
    BadHandle = -4,
    BadVirtAddr = -5,
    BadDevAddr = -6,
    NoDeviceSpace = -7,
    PermissionDenied = -8,
    BadPage = -9,
    BadCopyArg = -10,
    AddressTooBig = -11,
    Again = -12,
    NoSpace = -13,
}

impl Status {
    /// The value that goes into the element's field.
    pub const fn encode(self) -> u16 {
        self as i16 as u16
    }
}

/// Flags of an entry (`GTF_*`), and its header's layout: flags in the lower half of the first 32-bit word, the grantee above.
#[allow(missing_docs)]
pub mod entry {
    pub const TYPE: u16 = 3;
    pub const INVALID: u16 = 0;
    pub const PERMIT_ACCESS: u16 = 1;
    pub const ACCEPT_TRANSFER: u16 = 2;
    pub const TRANSITIVE: u16 = 3;
    pub const READ_ONLY: u16 = 1 << 2;
    pub const READING: u16 = 1 << 3;
    pub const WRITING: u16 = 1 << 4;
    pub const SUB_PAGE: u16 = 1 << 8;
    /// Bytes of a version-1 entry, and where its frame is (32 bits).
    pub const V1_SIZE: usize = 8;
    pub const V1_FRAME: usize = 4;
    /// Bytes of a version-2 entry, and where its frame is (64 bits).
    pub const V2_SIZE: usize = 16;
    pub const V2_FRAME: usize = 8;
    /// Part of a page: offset and length, 16 bits each.
    pub const V2_OFFSET: usize = 4;
    pub const V2_LENGTH: usize = 6;
    /// Another domain's grant: its domain (16 bits) and reference (32 bits).
    pub const V2_VIA_DOMAIN: usize = 4;
    pub const V2_VIA_GRANT: usize = 8;
    /// Bytes of a version-2 entry's status word.
    pub const STATUS_SIZE: usize = 2;
}

/// `gnttab_map_grant_ref`: size, offsets and flags (`GNTMAP_*`).
#[allow(missing_docs)]
pub mod map {
    pub const SIZE: usize = 32;
    pub const ADDRESS: usize = 0;
    pub const FLAGS: usize = 8;
    pub const GRANT: usize = 12;
    pub const DOMAIN: usize = 16;
    pub const STATUS: usize = 18;
    pub const HANDLE: usize = 20;
    pub const BUS_ADDRESS: usize = 24;
    pub const FLAG_DEVICE: u32 = 1 << 0;
    pub const FLAG_HOST: u32 = 1 << 1;
    pub const FLAG_READ_ONLY: u32 = 1 << 2;
    pub const FLAG_APPLICATION: u32 = 1 << 3;
    pub const FLAG_CONTAINS_PTE: u32 = 1 << 4;
}

/// `gnttab_unmap_grant_ref`: size and offsets.
#[allow(missing_docs)]
pub mod unmap {
    pub const SIZE: usize = 24;
    pub const ADDRESS: usize = 0;
    pub const BUS_ADDRESS: usize = 8;
    pub const HANDLE: usize = 16;
    pub const STATUS: usize = 20;
}

/// `gnttab_copy`: size, offsets (those of a side count from its beginning) and flags (`GNTCOPY_*`).
#[allow(missing_docs)]
pub mod copy {
    pub const SIZE: usize = 40;
    pub const SOURCE: usize = 0;
    pub const DESTINATION: usize = 16;
    pub const SIDE_PAGE: usize = 0;
    pub const SIDE_DOMAIN: usize = 8;
    pub const SIDE_OFFSET: usize = 10;
    pub const LENGTH: usize = 32;
    pub const FLAGS: usize = 34;
    pub const STATUS: usize = 36;
    /// The same in 32-bit mode: size, where the status is, fields.
    pub const SIZE_NARROW: usize = 24;
    pub const STATUS_NARROW: usize = 20;
    pub const NARROW: &crate::Narrow = &[
        (0, 0, 4),
        (4, 8, 4),
        (8, 16, 4),
        (12, 24, 4),
        (16, 32, 4),
        (20, 36, 4),
    ];
    pub const FLAG_SOURCE_GRANT: u16 = 1 << 0;
    pub const FLAG_DESTINATION_GRANT: u16 = 1 << 1;
}

/// Frames that a table may grow to unless the domain is told otherwise (`gnttab_max_frames`).
pub const DEFAULT_MAX_FRAMES: u32 = 64;
/// Frames of handles that a domain may have unless it is told otherwise (`gnttab_max_maptrack_frames`).
pub const DEFAULT_MAX_MAPTRACK_FRAMES: u32 = 1024;
/// Handles in such a frame.
pub const HANDLES_PER_FRAME: u32 = 256;
/// The newest version of entries.
pub const MAX_VERSION: u32 = 2;
/// Version-1 entries in a frame.
pub const V1_ENTRIES_PER_FRAME: u32 = 512;
/// Version-2 entries in a frame.
pub const V2_ENTRIES_PER_FRAME: u32 = 256;
/// Status words of version 2 in a frame.
pub const STATUSES_PER_FRAME: u32 = 2048;
/// Entries that outlive a change of version (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const RESERVED_ENTRIES: u32 = 8;

/// `gnttab_setup_table`: size and offsets; the list's elements have the caller's width.
#[allow(missing_docs)]
pub mod setup {
    use crate::Narrow;

    pub const SIZE: usize = 24;
    pub const DOMAIN: usize = 0;
    pub const COUNT: usize = 4;
    pub const STATUS: usize = 8;
    pub const LIST: usize = 16;
    /// The same in 32-bit mode.
    pub const NARROW: &Narrow = &[(0, 0, 12), (12, 16, 4)];
}
