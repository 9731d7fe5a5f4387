//! The physical frame allocator: a buddy system whose lists are threaded through eight bytes of state for each frame.
//!
//! Zeroed state means "not managed", so that only frames which are really handed in cost anything at start-up.

use crate::address::Mfn;
use crate::id::DomainId;

/// Largest block: 2^18 frames, 1 GiB.
pub const MAX_ORDER: u32 = 18;

const ORDERS: usize = MAX_ORDER as usize + 1;
/// Links hold 28 bits: RAM up to 1 TiB.
const LINK_BITS: u32 = 28;
const LINK_MASK: u64 = (1 << LINK_BITS) - 1;
const NO_LINK: u64 = LINK_MASK;
/// Highest frame count that links can express.
pub const MAX_FRAMES: usize = LINK_MASK as usize;

/// State of one frame.
///
/// Bits 1:0 say what it is. First of a free block: order in 7:2, next in 35:8, previous in 63:36. First of an allocated
/// block: order in 7:2, owner in 23:8, reference count in 63:32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FrameInfo(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not RAM of ours, or inside a free block.
    None,
    FreeHead,
    Allocated,
}

impl FrameInfo {
    const fn free(order: u32, next: u64, previous: u64) -> Self {
        Self(1 | (order as u64) << 2 | next << 8 | previous << 36)
    }

    const fn allocated(order: u32) -> Self {
        Self(2 | (order as u64) << 2 | (DomainId::HYPERVISOR.0 as u64) << 8)
    }

    const fn state(self) -> State {
        match self.0 & 3 {
            1 => State::FreeHead,
            2 => State::Allocated,
            _ => State::None,
        }
    }

    const fn order(self) -> u32 {
        (self.0 >> 2) as u32 & 0x3F
    }

    const fn next(self) -> u64 {
        self.0 >> 8 & LINK_MASK
    }

    const fn previous(self) -> u64 {
        self.0 >> 36
    }
}

/// Why a block cannot be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The frame is not the first of an allocated block.
    NotAllocated,
    /// The block was allocated with another order.
    WrongOrder,
}

/// The allocator.
pub struct Frames<'a> {
    info: &'a mut [FrameInfo],
    heads: [u64; ORDERS],
    free: u64,
    total: u64,
}

impl<'a> Frames<'a> {
    /// An allocator for frames below `info.len()`, with none free yet. `info` is all zero.
    pub fn new(info: &'a mut [FrameInfo]) -> Self {
        Self {
            info,
            heads: [NO_LINK; ORDERS],
            free: 0,
            total: 0,
        }
    }

    /// Hands in the frames from `first` up to `end`, which are RAM that nobody uses. Frames past the state are ignored.
    pub fn add(&mut self, first: Mfn, end: Mfn) {
        let end = end.0.min(self.info.len() as u64);
        let mut at = first.0;
        while at < end {
            let fits = (end - at).ilog2();
            let order = at.trailing_zeros().min(fits).min(MAX_ORDER);
            self.insert(at, order);
            self.total += 1 << order;
            at += 1 << order;
        }
    }

    /// Frames free now.
    pub const fn free_frames(&self) -> u64 {
        self.free
    }

    /// Frames ever handed in.
    pub const fn total_frames(&self) -> u64 {
        self.total
    }

    /// A block of 2^order frames, aligned to its size; high addresses first, so that low ones last.
    pub fn allocate(&mut self, order: u32) -> Option<Mfn> {
        let found = (order..=MAX_ORDER).find(|&o| self.heads[o as usize] != NO_LINK)?;
        let block = self.heads[found as usize];
        Some(self.carve(block, found, block, order))
    }

    /// As [`Frames::allocate`], with every frame below `limit`.
    pub fn allocate_below(&mut self, order: u32, limit: Mfn) -> Option<Mfn> {
        for found in order..=MAX_ORDER {
            let mut block = self.heads[found as usize];
            while block != NO_LINK {
                if block + (1 << order) <= limit.0 {
                    return Some(self.carve(block, found, block, order));
                }
                block = self.info[block as usize].next();
            }
        }
        None
    }

    /// Claims the single free frame `frame`; false if it is not free.
    pub fn take(&mut self, frame: Mfn) -> bool {
        match self.find_free_block(frame.0) {
            Some((block, order)) => {
                self.carve(block, order, frame.0, 0);
                true
            }
            None => false,
        }
    }

    /// Claims all free frames in a range, in the largest blocks; calls `each` with every block's first frame and number of
    /// frames. Single frames of them come back with [`Frames::release_part`].
    pub fn take_range_each(&mut self, first: Mfn, end: Mfn, each: &mut dyn FnMut(Mfn, u64)) {
        let mut at = first.0;
        while at < end.0 {
            let Some((block, order)) = self.find_free_block(at) else {
                at += 1;
                continue;
            };
            let fits = (end.0 - at).ilog2();
            let aligned = if at == 0 {
                fits
            } else {
                at.trailing_zeros().min(fits)
            };
            let wanted = aligned.min(order);
            self.carve(block, order, at, wanted);
            // A taken range has no owner block any more: its frames come back one by one.
            self.info[at as usize] = FrameInfo::default();
            each(Mfn(at), 1 << wanted);
            at += 1 << wanted;
        }
    }

    /// Gives back a whole block that begins at `first` if it is no larger than `most` frames, or else that one frame, which
    /// leaves the rest of its block allocated; returns how many frames it dealt with. Frames that [`Frames::take_range_each`]
    /// claimed, or that were never handed in, are blocks of one. What is free already stays so.
    pub fn release_part(&mut self, first: Mfn, most: u64) -> u64 {
        if let Some((block, order)) = self.find_allocated_block(first.0) {
            if block == first.0 && 1 << order <= most {
                // It was found allocated with this order.
                let _ = self.free(first, order);
                return 1 << order;
            }
            self.divide(block, order, first.0);
        } else if first.0 < self.info.len() as u64 && self.find_free_block(first.0).is_none() {
            self.info[first.0 as usize] = FrameInfo::allocated(0);
        }
        // One that is free already is refused.
        let _ = self.free(first, 0);
        1
    }

    /// Makes the frame `target` of an allocated block a block of its own, and blocks of the rest.
    fn divide(&mut self, block: u64, order: u32, target: u64) {
        let mut at = block;
        for order in (0..order).rev() {
            let upper = at + (1 << order);
            let (with_target, other) = if target >= upper {
                (upper, at)
            } else {
                (at, upper)
            };
            self.info[other as usize] = FrameInfo::allocated(order);
            at = with_target;
        }
        self.info[target as usize] = FrameInfo::allocated(0);
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// The block is not allocated with this order.
    pub fn free(&mut self, block: Mfn, order: u32) -> Result<(), FreeError> {
        let info = self.info.get(block.0 as usize).copied().unwrap_or_default();
        if info.state() != State::Allocated {
            return Err(FreeError::NotAllocated);
        }
        if info.order() != order {
            return Err(FreeError::WrongOrder);
        }
        self.info[block.0 as usize] = FrameInfo::default();
        let (mut at, mut order) = (block.0, order);
        while order < MAX_ORDER {
            let buddy = at ^ 1 << order;
            let info = self.info.get(buddy as usize).copied().unwrap_or_default();
            if info.state() != State::FreeHead || info.order() != order {
                break;
            }
            self.remove(buddy, order);
            at = at.min(buddy);
            order += 1;
        }
        self.insert(at, order);
        Ok(())
    }

    /// Exactly `count` contiguous frames; given back with [`Frames::free_run`].
    pub fn allocate_run(&mut self, count: u64) -> Option<Mfn> {
        let order = count.checked_next_power_of_two()?.trailing_zeros();
        if count == 0 || order > MAX_ORDER {
            return None;
        }
        let block = self.allocate(order)?;
        // The block is taken apart into the pieces of the run and what is left over.
        self.info[block.0 as usize] = FrameInfo::default();
        let (end, whole) = (block.0 + count, block.0 + (1 << order));
        let mut at = block.0;
        while at < whole {
            let limit = if at < end { end } else { whole };
            let size = (limit - at).ilog2().min(if at == 0 {
                MAX_ORDER
            } else {
                at.trailing_zeros()
            });
            if at < end {
                self.info[at as usize] = FrameInfo::allocated(size);
            } else {
                self.insert(at, size);
            }
            at += 1 << size;
        }
        Some(block)
    }

    /// Gives back what [`Frames::allocate_run`] gave.
    ///
    /// # Errors
    /// A part of the run is not allocated.
    pub fn free_run(&mut self, first: Mfn, count: u64) -> Result<(), FreeError> {
        let mut at = first;
        while at.0 < first.0 + count {
            let info = self.info.get(at.0 as usize).copied().unwrap_or_default();
            let order = info.order();
            self.free(at, order)?;
            at = at + (1 << order);
        }
        Ok(())
    }

    /// Whether the frame belongs to an allocated block of which it is the first.
    pub fn is_allocated(&self, block: Mfn) -> bool {
        self.info
            .get(block.0 as usize)
            .is_some_and(|info| info.state() == State::Allocated)
    }

    /// The free block that holds `frame`, if any, and its order.
    fn find_free_block(&self, frame: u64) -> Option<(u64, u32)> {
        self.find_block(frame, State::FreeHead)
    }

    /// The allocated block that holds `frame`, if any, and its order.
    fn find_allocated_block(&self, frame: u64) -> Option<(u64, u32)> {
        self.find_block(frame, State::Allocated)
    }

    fn find_block(&self, frame: u64, state: State) -> Option<(u64, u32)> {
        (0..=MAX_ORDER).find_map(|order| {
            let block = frame & !((1 << order) - 1);
            let info = self.info.get(block as usize)?;
            (info.state() == state && info.order() == order).then_some((block, order))
        })
    }

    /// Takes 2^wanted frames at `target` out of the free block, gives the rest back.
    fn carve(&mut self, block: u64, order: u32, target: u64, wanted: u32) -> Mfn {
        self.remove(block, order);
        let (mut at, mut order) = (block, order);
        while order > wanted {
            order -= 1;
            let upper = at + (1 << order);
            if target >= upper {
                self.insert(at, order);
                at = upper;
            } else {
                self.insert(upper, order);
            }
        }
        self.info[at as usize] = FrameInfo::allocated(wanted);
        Mfn(at)
    }

    fn insert(&mut self, block: u64, order: u32) {
        let head = self.heads[order as usize];
        self.info[block as usize] = FrameInfo::free(order, head, NO_LINK);
        if head != NO_LINK {
            let old = self.info[head as usize];
            self.info[head as usize] = FrameInfo::free(order, old.next(), block);
        }
        self.heads[order as usize] = block;
        self.free += 1 << order;
    }

    fn remove(&mut self, block: u64, order: u32) {
        let info = self.info[block as usize];
        let (next, previous) = (info.next(), info.previous());
        if previous == NO_LINK {
            self.heads[order as usize] = next;
        } else {
            let before = self.info[previous as usize];
            self.info[previous as usize] = FrameInfo::free(order, next, before.previous());
        }
        if next != NO_LINK {
            let after = self.info[next as usize];
            self.info[next as usize] = FrameInfo::free(order, after.next(), previous);
        }
        self.info[block as usize] = FrameInfo::default();
        self.free -= 1 << order;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn freed_blocks_join_again() {
        let mut info = vec![FrameInfo::default(); 2048];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(512), Mfn(1536));
        let blocks: Vec<_> = (0..1024)
            .map(|_| frames.allocate(0).expect("frames are left"))
            .collect();
        assert_eq!(frames.free_frames(), 0);
        assert_eq!(frames.allocate(0), None);
        for block in blocks {
            frames.free(block, 0).expect("it was allocated");
        }
        assert!(frames.allocate(9).is_some_and(|block| block.is_aligned(9)));
    }

    #[test]
    fn a_double_free_is_an_error() {
        let mut info = vec![FrameInfo::default(); 64];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(0), Mfn(64));
        let block = frames.allocate(2).expect("frames are left");
        assert_eq!(frames.free(block, 1), Err(FreeError::WrongOrder));
        assert_eq!(frames.free(block, 2), Ok(()));
        assert_eq!(frames.free(block, 2), Err(FreeError::NotAllocated));
    }

    #[test]
    fn a_range_is_taken_around_frames_in_use() {
        let mut info = vec![FrameInfo::default(); 64];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(0), Mfn(64));
        assert!(frames.take(Mfn(17)));
        assert!(!frames.take(Mfn(17)));
        let mut taken = 0;
        frames.take_range_each(Mfn(10), Mfn(20), &mut |_, count| taken += count);
        assert_eq!((taken, frames.free_frames()), (9, 54));
        frames.release_part(Mfn(12), 1);
        frames.release_part(Mfn(12), 1);
        assert_eq!(frames.free_frames(), 55);
        assert!(frames.take(Mfn(12)));
        assert!(
            frames
                .allocate_below(3, Mfn(10))
                .is_some_and(|block| block.0 + 8 <= 10)
        );
    }

    #[test]
    fn a_run_takes_no_more_than_it_has_and_comes_back_whole() {
        let mut info = vec![FrameInfo::default(); 256];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(0), Mfn(256));
        let first = frames.allocate_run(67).expect("frames are left");
        assert_eq!(frames.free_frames(), 256 - 67);
        let second = frames.allocate_run(100).expect("frames are left");
        assert_eq!(frames.free_run(first, 67), Ok(()));
        assert_eq!(frames.free_run(first, 67), Err(FreeError::NotAllocated));
        assert_eq!(frames.free_run(second, 100), Ok(()));
        assert_eq!(frames.allocate(8), Some(Mfn(0)));
    }

    #[test]
    fn a_block_comes_back_in_parts() {
        let mut info = vec![FrameInfo::default(); 64];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(0), Mfn(64));
        let block = frames.allocate(5).expect("frames are left");
        // The first frame, which knows of the block, one in the middle, and the rest with one try at what is free.
        assert_eq!(frames.release_part(block, 1), 1);
        assert_eq!(frames.release_part(block + 17, 1), 1);
        assert_eq!(frames.free_frames(), 34);
        assert_eq!(frames.free(block, 5), Err(FreeError::NotAllocated));
        let mut at = block + 1;
        while at.0 < block.0 + 32 {
            at = at + frames.release_part(at, block.0 + 32 - at.0);
        }
        assert_eq!(frames.free_frames(), 64);
        assert!(frames.allocate(6).is_some());
    }

    proptest! {
        #[test]
        fn blocks_given_back_in_any_parts_are_owned_once_and_come_back(
            orders in prop::collection::vec(0u32..6, 1..30),
            parts in prop::collection::vec((0u64..256, 1u64..40), 0..200),
        ) {
            let mut info = vec![FrameInfo::default(); 256];
            let mut frames = Frames::new(&mut info);
            frames.add(Mfn(0), Mfn(256));
            let mut owned = [false; 256];
            let mut orders = orders.into_iter();
            for (first, most) in parts {
                if let Some((order, block)) = orders.next().and_then(|order| Some((order, frames.allocate(order)?))) {
                    for frame in block.0..block.0 + (1 << order) {
                        prop_assert!(!std::mem::replace(&mut owned[frame as usize], true));
                    }
                }
                // As domains give back: only what they own.
                let most = (first..256).take_while(|&frame| owned[frame as usize]).take(most as usize).count() as u64;
                if most > 0 {
                    let done = frames.release_part(Mfn(first), most);
                    prop_assert!((1..=most).contains(&done));
                    owned[first as usize..][..done as usize].fill(false);
                }
                let in_use = owned.iter().filter(|&&owned| owned).count() as u64;
                prop_assert_eq!(frames.free_frames(), 256 - in_use);
            }
        }

        #[test]
        fn blocks_never_overlap_and_all_frames_come_back(orders in prop::collection::vec(0u32..6, 1..100)) {
            let mut info = vec![FrameInfo::default(); 1000];
            let mut frames = Frames::new(&mut info);
            frames.add(Mfn(3), Mfn(997));
            let mut owned = vec![false; 1000];
            let mut blocks = Vec::new();
            for order in orders {
                if let Some(block) = frames.allocate(order) {
                    for frame in block.0..block.0 + (1 << order) {
                        prop_assert!(!std::mem::replace(&mut owned[frame as usize], true));
                    }
                    blocks.push((block, order));
                }
            }
            for (block, order) in blocks {
                prop_assert_eq!(frames.free(block, order), Ok(()));
            }
            prop_assert_eq!(frames.free_frames(), 994);
        }
    }
}
