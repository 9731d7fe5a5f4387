//! The protocol of PV disks (`public/io/blkif.h`): what requests and responses mean, without any I/O.
//!
//! A request is an entry of a ring (`oxen-ring`), copied out as words. [`Abi::parse`] makes a checked [`Request`] of it, or says what
//! is [`Wrong`]; [`Abi::entry`] is the way back, for front ends. Layouts are those of 64-bit and 32-bit x86 guests, which differ in how
//! 64-bit fields are aligned.
//!
//! Positions and sizes on a disk are in sectors of 512 bytes, whatever the disk's own sector size is.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod abi;
mod request;
#[cfg(test)]
mod tests;

pub use abi::{Abi, REQUEST_WORDS_32, REQUEST_WORDS_64, RESPONSE_WORDS_32, RESPONSE_WORDS_64};
pub use request::{Body, Kind, Reason, Request, Segment, Wrong, segments};

/// Bytes of a sector as the protocol counts.
pub const SECTOR: u64 = 512;
/// Sectors of a page.
pub const SECTORS_PER_PAGE: u8 = 8;
/// Segments in a request itself (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const DIRECT_SEGMENTS: usize = 11;
/// Pages of segments that an indirect request names at most (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
pub const INDIRECT_PAGES: usize = 8;
/// Segments in such a page.
pub const SEGMENTS_PER_PAGE: usize = 512;

/// How a request ended, as a response says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `BLKIF_RSP_OKAY`
    Okay,
    /// `BLKIF_RSP_ERROR`
    Error,
    /// `BLKIF_RSP_EOPNOTSUPP`
    NotSupported,
}

impl Status {
    const NUMBERS: [(Self, i16); 3] =
        [(Self::Okay, 0), (Self::Error, -1), (Self::NotSupported, -2)];

    fn number(self) -> i16 {
        match self {
            Self::Okay => 0,
            Self::Error => -1,
            Self::NotSupported => -2,
        }
    }

    fn from_number(number: i16) -> Option<Self> {
        let found = Self::NUMBERS.iter().find(|(_, known)| *known == number);
        found.map(|(status, _)| *status)
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// The request's operation by number; of an indirect request the one that it stands for: Linux takes another for a fault.
    pub operation: u8,
    /// How it ended.
    pub status: Status,
}

/// Bits of the back end's node `info`.
pub mod info {
    /// The disk is a CD-ROM drive.
    pub const CDROM: u32 = 1;
    /// The disk can be taken out.
    pub const REMOVABLE: u32 = 2;
    /// The disk cannot be written to.
    pub const READ_ONLY: u32 = 4;
}
