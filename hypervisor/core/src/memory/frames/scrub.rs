//! Clearing frames that are free, in pieces, outside of the allocator.
//!
//! What was given back is dirty, and is scrubbed by whoever has nothing else to do. A piece that is being cleared is neither in a
//! list nor in use: it counts as free. Whoever finds no block while one is on its way may ask again when it is back.

use super::{Clean, Frames, MAX_ORDER, list};
use crate::address::Mfn;

impl Frames<'_> {
    /// Free frames that are to be scrubbed: as many as were given back, and have not been cleared since. Frames that were handed in
    /// are not among them.
    pub fn to_scrub(&self) -> u64 {
        self.owed.min(self.free_frames() - self.clean)
    }

    /// Whether a piece is out to be cleared.
    pub const fn is_scrubbing(&self) -> bool {
        self.scrubbing > 0
    }

    /// Takes out a piece of at most 2^order frames to be cleared, all of which is dirty, and which comes back by
    /// [`Frames::put_back`]; returns its order too.
    /// `None` if nothing is to be scrubbed.
    pub fn take_dirty(&mut self, most: u32) -> Option<(Mfn, u32)> {
        if self.to_scrub() == 0 {
            return None;
        }
        // Small blocks first, as they join to larger ones; of equal ones that which is nearly clean.
        let (mut order, level) = (0..=MAX_ORDER).find_map(|order| {
            let dirty = self.levels[order as usize] & !(1 << (order + 1));
            dirty.checked_ilog2().map(|level| (order, level))
        })?;
        let block = self.heads[list(order, level)];
        let (mut at, mut clean) = (block, self.clean_at(block, order, level));
        while order > most || clean != Clean::NONE {
            let [lower, upper] = self.halves(at, order, clean);
            order -= 1;
            if lower.is_all(order) {
                (at, clean) = (at + (1 << order), upper);
            } else {
                clean = lower;
            }
        }
        let taken = self.carve(block, order, |_, _, middle| at >= middle);
        let (first, _) = self.counted(taken, order);
        self.scrubbing += 1 << order;
        Some((first, order))
    }

    /// Gives back what [`Frames::take_dirty`] gave, which is zero now.
    pub fn put_back(&mut self, piece: Mfn, order: u32) {
        self.scrubbing -= 1 << order;
        self.free += 1 << order;
        self.clean += 1 << order;
        self.owed = self.owed.saturating_sub(1 << order);
        self.give(piece.0 as u32, order, Clean::all(order));
    }
}
