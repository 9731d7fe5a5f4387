//! The physical frame allocator: a buddy system whose lists are threaded through eight bytes of state for each frame.
//!
//! Zeroed state means "not managed", so that only frames which are really handed in cost anything at start-up.
//!
//! **Clean frames.** Each free block is known to be clean (zero) throughout, dirty throughout, or clean in part. Buddies join
//! whatever they are, so that nobody fails to get a large block because of it; the frame in the middle of a block that is clean
//! in part keeps what its halves are, for when it is taken apart again. Whoever wants clean frames gets them as long as there
//! are any; whoever does not care gets dirty ones of the smallest block that does. What is given back is dirty, and is cleared
//! by and by, see [`Frames::take_dirty`].

mod info;
mod lists;
#[cfg(test)]
mod model;
mod scrub;
#[cfg(test)]
mod tests;

use crate::address::Mfn;
pub use info::{Clean, FrameInfo, MAX_FRAMES};
use info::{LISTS, NO_LINK, list};

/// Largest block: 2^18 frames, 1 GiB.
pub const MAX_ORDER: u32 = 18;

const ORDERS: usize = MAX_ORDER as usize + 1;

/// Why a block cannot be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The frame is not the first of an allocated block.
    NotAllocated,
    /// The block was allocated with another order.
    WrongOrder,
}

/// What a block is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To be zero: what is not clean, the taker clears.
    Clean,
    /// To be written.
    Any,
}

/// The allocator.
pub struct Frames<'a> {
    info: &'a mut [FrameInfo],
    /// First blocks of the lists.
    heads: [u32; LISTS],
    /// Bits of the levels at which an order has blocks.
    levels: [u32; ORDERS],
    /// Frames in lists, and how many of them are clean.
    free: u64,
    clean: u64,
    /// Frames that are being cleared.
    scrubbing: u64,
    /// Frames that were given back and not cleared since; some may have been allocated again.
    owed: u64,
    total: u64,
}

impl<'a> Frames<'a> {
    /// An allocator for frames below `info.len()`, with none free yet. `info` is all zero.
    pub fn new(info: &'a mut [FrameInfo]) -> Self {
        let managed = info.len().min(MAX_FRAMES);
        Self {
            info: &mut info[..managed],
            heads: [NO_LINK; LISTS],
            levels: [0; ORDERS],
            free: 0,
            clean: 0,
            scrubbing: 0,
            owed: 0,
            total: 0,
        }
    }

    /// Hands in the frames from `first` up to `end`, which are RAM that nobody uses, with whatever they hold. Frames past the
    /// state are ignored.
    pub fn add(&mut self, first: Mfn, end: Mfn) {
        let end = end.0.min(self.info.len() as u64);
        let mut at = first.0;
        while at < end {
            let fits = (end - at).ilog2();
            let order = at.trailing_zeros().min(fits).min(MAX_ORDER);
            self.link(at as u32, order, Clean::NONE);
            self.free += 1 << order;
            self.total += 1 << order;
            at += 1 << order;
        }
    }

    /// Frames free now.
    pub const fn free_frames(&self) -> u64 {
        self.free + self.scrubbing
    }

    /// Frames ever handed in.
    pub const fn total_frames(&self) -> u64 {
        self.total
    }

    /// A block of 2^order frames, aligned to its size, and what of it is clean.
    pub fn allocate(&mut self, order: u32, wanted: Wanted) -> Option<(Mfn, Clean)> {
        let block = self.find(order, wanted)?;
        let taken = match wanted {
            // The least that does, so that large clean blocks last; where none does, what has most.
            Wanted::Clean => self.carve(block, order, |_, [lower, upper], _| {
                if lower.has(order) && upper.has(order) {
                    upper.level < lower.level
                } else {
                    upper.has(order) || !lower.has(order) && upper.frames > lower.frames
                }
            }),
            Wanted::Any => self.carve(block, order, |_, [lower, upper], _| {
                upper.frames < lower.frames
            }),
        };
        Some(self.counted(taken, order))
    }

    /// As [`Frames::allocate`], with every frame below `limit`.
    pub fn allocate_below(&mut self, order: u32, limit: Mfn) -> Option<(Mfn, Clean)> {
        for list in list(order, 0)..LISTS {
            let mut block = self.heads[list];
            while block != NO_LINK {
                if u64::from(block) + (1 << order) <= limit.0 {
                    let taken = self.carve(block, order, |_, _, _| false);
                    return Some(self.counted(taken, order));
                }
                block = self.info[block as usize].next();
            }
        }
        None
    }

    /// Claims the single free frame `frame`, and tells whether it is clean; `None` if it is not free.
    pub fn take(&mut self, frame: Mfn) -> Option<bool> {
        let block = self.find_free_block(frame.0)?;
        let taken = self.carve(block, 0, |_, _, middle| frame.0 >= middle.into());
        Some(self.counted(taken, 0).1.is_all(0))
    }

    /// Claims all free frames in a range, in the largest blocks; calls `each` with every block's first frame and number of
    /// frames. Single frames of them come back with [`Frames::release_part`].
    pub fn take_range_each(&mut self, first: Mfn, end: Mfn, each: &mut dyn FnMut(Mfn, u64)) {
        let mut at = first.0;
        while at < end.0 {
            let Some(block) = self.find_free_block(at) else {
                at += 1;
                continue;
            };
            let fits = (end.0 - at).ilog2();
            let aligned = if at == 0 {
                fits
            } else {
                at.trailing_zeros().min(fits)
            };
            let order = aligned.min(self.info[block as usize].order());
            let taken = self.carve(block, order, |_, _, middle| at >= middle.into());
            self.counted(taken, order);
            // A taken range has no owner block any more: its frames come back one by one.
            self.info[at as usize] = FrameInfo::default();
            each(Mfn(at), 1 << order);
            at += 1 << order;
        }
    }

    /// Gives back a whole block that begins at `first` if it is no larger than `most` frames, or else that one frame, which
    /// leaves the rest of its block allocated; returns how many frames it dealt with. Frames that [`Frames::take_range_each`]
    /// claimed, or that were never handed in, are blocks of one. What is free already stays so.
    pub fn release_part(&mut self, first: Mfn, most: u64) -> u64 {
        if let Some((block, order)) = self.find_allocated_block(first.0) {
            if block == first.0 && 1 << order <= most {
                self.give_dirty(block as u32, order);
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

    /// Gives a block back. It is dirty, and to be scrubbed.
    ///
    /// # Errors
    /// The block is not allocated with this order.
    pub fn free(&mut self, block: Mfn, order: u32) -> Result<(), FreeError> {
        let info = self.info.get(block.0 as usize).copied().unwrap_or_default();
        if !info.is_allocated() {
            return Err(FreeError::NotAllocated);
        }
        if info.order() != order {
            return Err(FreeError::WrongOrder);
        }
        self.give_dirty(block.0 as u32, order);
        Ok(())
    }

    fn give_dirty(&mut self, block: u32, order: u32) {
        self.free += 1 << order;
        self.owed = (self.owed + (1 << order)).min(self.free_frames() - self.clean);
        self.give(block, order, Clean::NONE);
    }

    /// Exactly `count` contiguous frames, and whether they are clean; given back with [`Frames::free_run`].
    pub fn allocate_run(&mut self, count: u64, wanted: Wanted) -> Option<(Mfn, bool)> {
        let order = count.checked_next_power_of_two()?.trailing_zeros();
        if count == 0 || order > MAX_ORDER {
            return None;
        }
        let (block, clean) = self.allocate(order, wanted)?;
        let is_clean = clean.is_all(order);
        // The block is taken apart into the pieces of the run and what is left over.
        let (mut at, mut left, mut order, mut part) = (block.0 as u32, count as u32, order, clean);
        while left < 1 << order {
            let [lower, upper] = self.halves(at, order, part);
            order -= 1;
            let middle = at + (1 << order);
            if left > 1 << order {
                self.info[at as usize] = FrameInfo::allocated(order);
                left -= 1 << order;
                (at, part) = (middle, upper);
            } else {
                self.link(middle, order, upper);
                self.free += 1 << order;
                self.clean += u64::from(upper.frames);
                part = lower;
            }
        }
        self.info[at as usize] = FrameInfo::allocated(order);
        Some((block, is_clean))
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

    /// The first frames from `from` on in an allocated block that are dirty, as [`Frames::allocate`] told of it: where they begin,
    /// and how many they are. Not after a part of the block was given back.
    pub fn dirty_part(
        &self,
        block: Mfn,
        order: u32,
        clean: Clean,
        from: Mfn,
    ) -> Option<(Mfn, u64)> {
        let end = block.0 + (1 << order);
        if clean.is_all(order) || end <= from.0 {
            return None;
        }
        if clean == Clean::NONE {
            let first = block.0.max(from.0);
            return Some((Mfn(first), end - first));
        }
        let [lower, upper] = self.halves(block.0 as u32, order, clean);
        let order = order - 1;
        self.dirty_part(block, order, lower, from)
            .or_else(|| self.dirty_part(block + (1 << order), order, upper, from))
    }
}
