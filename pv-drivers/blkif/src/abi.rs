//! The two layouts.

use arrayvec::ArrayVec;

use crate::request::{Body, Kind, Reason, Request, Segment, Wrong};
use crate::{DIRECT_SEGMENTS, INDIRECT_PAGES, Response, Status};

/// Words of a 64-bit guest's request.
pub const REQUEST_WORDS_64: usize = 28;
/// Words of a 64-bit guest's response.
pub const RESPONSE_WORDS_64: usize = 4;
/// Words of a 32-bit guest's request.
pub const REQUEST_WORDS_32: usize = 27;
/// Words of a 32-bit guest's response.
pub const RESPONSE_WORDS_32: usize = 3;

const DISCARD: u8 = 5;
const INDIRECT: u8 = 6;
/// `BLKIF_DISCARD_SECURE`
const SECURE: u8 = 1;

/// How a guest lays requests and responses out (node `protocol` of the front end).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Abi {
    /// `x86_64-abi`, also where nothing is said.
    #[default]
    X86_64,
    /// `x86_32-abi`
    X86_32,
}

impl Abi {
    const NAMES: [(&'static str, Self); 2] =
        [("x86_64-abi", Self::X86_64), ("x86_32-abi", Self::X86_32)];

    /// By the name that a front end writes.
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, abi)| *abi)
    }

    /// The name that a front end writes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-abi",
            Self::X86_32 => "x86_32-abi",
        }
    }

    /// Word of the request's id, from which on the layouts are the same again.
    const fn base(self) -> usize {
        match self {
            Self::X86_64 => 2,
            Self::X86_32 => 1,
        }
    }

    /// What a ring's entry asks for. `most_indirect` is how many segments an indirect request may have.
    ///
    /// # Errors
    /// It asks for nothing that can be done.
    pub fn parse(self, entry: &[u32], most_indirect: u16) -> Result<Request, Wrong> {
        let word = |nth: usize| entry.get(nth).copied().unwrap_or(0);
        let long = |nth: usize| u64::from(word(nth)) | u64::from(word(nth + 1)) << 32;
        let [operation, second, third, fourth] = word(0).to_le_bytes();
        let base = self.base();
        let (id, sector) = (long(base), long(base + 2));
        let wrong = |reason| Wrong {
            id,
            operation,
            reason,
        };
        let body = match operation {
            DISCARD => Body::Discard {
                sectors: long(base + 4),
                secure: second & SECURE != 0,
            },
            INDIRECT => {
                let kind = Kind::from_number(second).filter(|kind| kind.may_be_indirect());
                let kind = kind.ok_or(wrong(Reason::IndirectOperation(second)))?;
                let count = u16::from_le_bytes([third, fourth]);
                if count == 0 || count > most_indirect {
                    return Err(wrong(Reason::SegmentCount(count)));
                }
                let pages = usize::from(count).div_ceil(crate::SEGMENTS_PER_PAGE);
                if pages > INDIRECT_PAGES {
                    return Err(wrong(Reason::SegmentCount(count)));
                }
                let references = (0..pages).map(|nth| word(base + 5 + nth));
                Body::Indirect {
                    kind,
                    count,
                    pages: references.collect(),
                }
            }
            number => {
                let kind = Kind::from_number(number).ok_or(wrong(Reason::Operation))?;
                let count = usize::from(second);
                let may_be_empty = matches!(kind, Kind::Flush | Kind::Barrier);
                if count > DIRECT_SEGMENTS || (count == 0 && !may_be_empty) {
                    return Err(wrong(Reason::SegmentCount(second.into())));
                }
                let mut segments = ArrayVec::new();
                for nth in 0..count {
                    let at = base + 4 + 2 * nth;
                    let segment = Segment::parse([word(at), word(at + 1)]);
                    segments.push(segment.map_err(wrong)?);
                }
                Body::Direct { kind, segments }
            }
        };
        Ok(Request { id, sector, body })
    }

    /// A request as a ring's entry; a 32-bit guest's is a word shorter.
    pub fn entry(self, request: &Request) -> [u32; REQUEST_WORDS_64] {
        let mut entry = [0; REQUEST_WORDS_64];
        let base = self.base();
        let mut long = |nth: usize, value: u64| {
            entry[nth] = value as u32;
            entry[nth + 1] = (value >> 32) as u32;
        };
        long(base, request.id);
        long(base + 2, request.sector);
        match &request.body {
            Body::Discard { sectors, secure } => {
                long(base + 4, *sectors);
                entry[0] = u32::from_le_bytes([DISCARD, u8::from(*secure) * SECURE, 0, 0]);
            }
            Body::Indirect { kind, count, pages } => {
                let [low, high] = count.to_le_bytes();
                entry[0] = u32::from_le_bytes([INDIRECT, kind.number(), low, high]);
                for (place, page) in entry[base + 5..].iter_mut().zip(pages) {
                    *place = *page;
                }
            }
            Body::Direct { kind, segments } => {
                entry[0] = u32::from_le_bytes([kind.number(), segments.len() as u8, 0, 0]);
                let words = segments.iter().flat_map(|segment| segment.words());
                for (place, word) in entry[base + 4..].iter_mut().zip(words) {
                    *place = word;
                }
            }
        }
        entry
    }

    /// A response as a ring's entry; a 32-bit guest's is a word shorter.
    pub fn answer(self, response: &Response) -> [u32; RESPONSE_WORDS_64] {
        let [low, high] = response.status.number().to_le_bytes();
        [
            response.id as u32,
            (response.id >> 32) as u32,
            u32::from_le_bytes([response.operation, 0, low, high]),
            0,
        ]
    }

    /// What a ring's entry answers; `None` where the status is none.
    pub fn parse_answer(self, entry: &[u32]) -> Option<Response> {
        let word = |nth: usize| entry.get(nth).copied().unwrap_or(0);
        let [operation, _, low, high] = word(2).to_le_bytes();
        Some(Response {
            id: u64::from(word(0)) | u64::from(word(1)) << 32,
            operation,
            status: Status::from_number(i16::from_le_bytes([low, high]))?,
        })
    }
}
