//! What the allocator knows of a frame: eight bytes, of which the low one says what the rest means.

use super::{MAX_ORDER, ORDERS};

/// Links hold 28 bits: RAM up to 1 TiB.
const LINK_BITS: u32 = 28;
const LINK_MASK: u64 = (1 << LINK_BITS) - 1;
pub(super) const NO_LINK: u32 = LINK_MASK as u32;
/// Highest frame count that links can express.
pub const MAX_FRAMES: usize = LINK_MASK as usize;

const TAG_BITS: u32 = 8;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
/// Tag of the first frame of an allocated block of order 0; larger ones follow.
const ALLOCATED: u64 = LISTS as u64 + 1;

/// Free blocks are in a list for each order and each [`Clean::level`] that blocks of the order can have.
pub(super) const LISTS: usize = list(MAX_ORDER + 1, 0);

const _: () = assert!(ALLOCATED + ORDERS as u64 <= 1 << TAG_BITS);

/// The list of free blocks of an order and a level.
pub(super) const fn list(order: u32, level: u32) -> usize {
    // Before it are 2, 3, ... order + 1 lists.
    (order * (order + 3) / 2 + level) as usize
}

/// The order of the blocks that a tag is for, free or allocated, and the level of free ones.
static OF_TAG: [(u8, u8); 1 << TAG_BITS] = {
    let mut of_tag = [(0, 0); 1 << TAG_BITS];
    let mut order = 0;
    while order <= MAX_ORDER {
        let mut level = 0;
        while level <= order + 1 {
            of_tag[1 + list(order, level)] = (order as u8, level as u8);
            level += 1;
        }
        of_tag[ALLOCATED as usize + order as usize] = (order as u8, 0);
        order += 1;
    }
    of_tag
};

/// How much of a block is clean, that is, zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clean {
    /// Frames that are.
    pub(super) frames: u32,
    /// One more than the order of the largest block in it that is clean throughout; 0 if no frame is.
    pub(super) level: u32,
}

impl Clean {
    /// Nothing of it.
    pub const NONE: Self = Self {
        frames: 0,
        level: 0,
    };

    /// All of a block of 2^order frames.
    pub const fn all(order: u32) -> Self {
        Self {
            frames: 1 << order,
            level: order + 1,
        }
    }

    /// Whether it is all of a block of 2^order frames.
    pub const fn is_all(self, order: u32) -> bool {
        self.level == order + 1
    }

    /// Whether a block of 2^order frames is clean in it.
    pub(super) const fn has(self, order: u32) -> bool {
        self.level > order
    }
}

/// State of one frame.
///
/// Bits 7:0 say what it is. 0: not RAM of ours, inside of an allocated block, or inside of a free one; the frame in the middle of
/// a free block that is clean in part tells what its halves have of that, in bits 57:8. Then one for each list, which the frame is
/// the first of a free block in: next in 35:8, previous in 63:36. Then one for each order: the first of an allocated block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FrameInfo(u64);

impl FrameInfo {
    pub(super) const fn free(list: usize, next: u32, previous: u32) -> Self {
        let links = (next as u64) << TAG_BITS | (previous as u64) << (TAG_BITS + LINK_BITS);
        Self((list as u64 + 1) | links)
    }

    pub(super) const fn allocated(order: u32) -> Self {
        Self(ALLOCATED + order as u64)
    }

    /// What the halves of a free block have of clean frames.
    pub(super) const fn halves(lower: Clean, upper: Clean) -> Self {
        Self(pack(lower) << TAG_BITS | pack(upper) << (TAG_BITS + PACKED_BITS))
    }

    /// The same again.
    pub(super) const fn to_halves(self) -> [Clean; 2] {
        [
            unpack(self.0 >> TAG_BITS),
            unpack(self.0 >> (TAG_BITS + PACKED_BITS)),
        ]
    }

    const fn tag(self) -> u64 {
        self.0 & TAG_MASK
    }

    pub(super) const fn is_free(self) -> bool {
        self.tag().wrapping_sub(1) < LISTS as u64
    }

    pub(super) fn is_free_of(self, order: u32) -> bool {
        self.is_free() && self.order() == order
    }

    pub(super) const fn is_allocated(self) -> bool {
        self.tag() >= ALLOCATED
    }

    /// Order of the block that it is the first of.
    pub(super) fn order(self) -> u32 {
        OF_TAG[self.tag() as usize].0.into()
    }

    /// Level of the list that a free block is in.
    pub(super) fn level(self) -> u32 {
        OF_TAG[self.tag() as usize].1.into()
    }

    /// The list that a free block is in.
    pub(super) const fn list(self) -> usize {
        self.tag() as usize - 1
    }

    pub(super) const fn next(self) -> u32 {
        (self.0 >> TAG_BITS & LINK_MASK) as u32
    }

    pub(super) const fn previous(self) -> u32 {
        (self.0 >> (TAG_BITS + LINK_BITS)) as u32
    }

    pub(super) const fn set_next(&mut self, next: u32) {
        self.0 = self.0 & !(LINK_MASK << TAG_BITS) | (next as u64) << TAG_BITS;
    }

    pub(super) const fn set_previous(&mut self, previous: u32) {
        let below = TAG_BITS + LINK_BITS;
        self.0 = self.0 & ((1 << below) - 1) | (previous as u64) << below;
    }
}

/// Bits of a half's part: its level, and the frames of at most half the largest block.
const PACKED_BITS: u32 = LEVEL_BITS + MAX_ORDER;
const LEVEL_BITS: u32 = 5;

const fn pack(clean: Clean) -> u64 {
    clean.level as u64 | (clean.frames as u64) << LEVEL_BITS
}

const fn unpack(bits: u64) -> Clean {
    Clean {
        level: bits as u32 & ((1 << LEVEL_BITS) - 1),
        frames: (bits >> LEVEL_BITS) as u32 & ((1 << MAX_ORDER) - 1),
    }
}
