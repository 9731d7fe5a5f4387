//! What is asked for.

use core::fmt;

use arrayvec::ArrayVec;

use crate::{DIRECT_SEGMENTS, INDIRECT_PAGES, SECTOR, SECTORS_PER_PAGE};

/// An operation on sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the disk into the guest's pages.
    Read,
    /// From the guest's pages onto the disk.
    Write,
    /// A write that all earlier requests come before, all later ones come after, and that is on the medium when it is answered.
    Barrier,
    /// All that was answered before is on the medium when this is answered; it may carry a write, which comes after that.
    Flush,
}

impl Kind {
    const NUMBERS: [(Self, u8); 4] = [
        (Self::Read, 0),
        (Self::Write, 1),
        (Self::Barrier, 2),
        (Self::Flush, 3),
    ];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        let found = Self::NUMBERS.iter().find(|(_, known)| *known == number);
        found.map(|(kind, _)| *kind)
    }

    /// The operation's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Barrier => 2,
            Self::Flush => 3,
        }
    }

    /// Whether an indirect request may stand for it: the others have no data or little.
    pub const fn may_be_indirect(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }

    /// Whether it changes the disk's content, if it has data.
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// Sectors of a granted page, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The page's grant.
    pub reference: u32,
    first: u8,
    last: u8,
}

impl Segment {
    /// Sectors `first` to `last` of a page, both included.
    ///
    /// # Errors
    /// They are not in this order, or not in a page.
    pub const fn new(reference: u32, first: u8, last: u8) -> Result<Self, Reason> {
        if first > last || last >= SECTORS_PER_PAGE {
            return Err(Reason::Segment { first, last });
        }
        Ok(Self {
            reference,
            first,
            last,
        })
    }

    /// From the words of a request or of an indirect page.
    ///
    /// # Errors
    /// As for [`Segment::new`].
    pub const fn parse(words: [u32; 2]) -> Result<Self, Reason> {
        let [first, last, _, _] = words[1].to_le_bytes();
        Self::new(words[0], first, last)
    }

    /// As a request or an indirect page has it.
    pub const fn words(self) -> [u32; 2] {
        [
            self.reference,
            u32::from_le_bytes([self.first, self.last, 0, 0]),
        ]
    }

    /// Where in the page it begins, in bytes.
    pub const fn offset(self) -> u16 {
        self.first as u16 * SECTOR as u16
    }

    /// How long it is, in bytes.
    pub const fn bytes(self) -> usize {
        self.sectors() as usize * SECTOR as usize
    }

    /// The same in sectors.
    pub const fn sectors(self) -> u64 {
        (self.last - self.first) as u64 + 1
    }
}

/// Segments from the bytes of an indirect page.
///
/// # Errors
/// The first one that is none.
pub fn segments(page: &[u8]) -> impl Iterator<Item = Result<Segment, Reason>> + '_ {
    let (entries, _) = page.as_chunks::<8>();
    entries.iter().map(|&[a, b, c, d, first, last, _, _]| {
        Segment::new(u32::from_le_bytes([a, b, c, d]), first, last)
    })
}

/// A checked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The guest's name for it, which the response repeats.
    pub id: u64,
    /// Where on the disk it begins.
    pub sector: u64,
    /// What is to be done there.
    pub body: Body,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Data moves to or from these segments, one after the other on the disk.
    Direct {
        /// Which way.
        kind: Kind,
        /// None only for a flush or a barrier.
        segments: ArrayVec<Segment, DIRECT_SEGMENTS>,
    },
    /// The same with more segments, which are in pages of their own.
    Indirect {
        /// Which way.
        kind: Kind,
        /// How many segments.
        count: u16,
        /// Grants of the pages that they are in.
        pages: ArrayVec<u32, INDIRECT_PAGES>,
    },
    /// The content is not needed any more.
    Discard {
        /// How many sectors.
        sectors: u64,
        /// It shall not be recoverable.
        secure: bool,
    },
}

impl Request {
    /// The operation that a response repeats.
    pub fn operation(&self) -> u8 {
        match &self.body {
            Body::Direct { kind, .. } | Body::Indirect { kind, .. } => kind.number(),
            Body::Discard { .. } => 5,
        }
    }
}

/// Why a request cannot be done, with what is needed to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The guest's name for the request.
    pub id: u64,
    /// The operation by number.
    pub operation: u8,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no such operation. A newer front end may ask for it to find that out.
    Operation,
    /// There is no such indirect operation.
    IndirectOperation(u8),
    /// So many segments are not possible.
    SegmentCount(u16),
    /// These sectors are not in a page.
    Segment {
        /// The first.
        first: u8,
        /// The last.
        last: u8,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "request {:#x}: ", self.id)?;
        match self.reason {
            Reason::Operation => write!(out, "operation {} is not known", self.operation),
            Reason::IndirectOperation(number) => {
                write!(out, "operation {number} cannot be indirect")
            }
            Reason::SegmentCount(count) => write!(
                out,
                "operation {} with {count} segments is not possible",
                self.operation
            ),
            Reason::Segment { first, last } => {
                write!(out, "sectors {first} to {last} are not in a page")
            }
        }
    }
}

impl core::error::Error for Wrong {}
