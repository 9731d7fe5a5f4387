//! The lists of free blocks: found, taken apart, and joined.

use super::info::{NO_LINK, list};
use super::{Clean, FrameInfo, Frames, MAX_ORDER, Wanted};
use crate::address::Mfn;

impl Frames<'_> {
    /// A free block of at least 2^order frames to take such a block from.
    pub(super) fn find(&self, order: u32, wanted: Wanted) -> Option<u32> {
        if order > MAX_ORDER {
            return None;
        }
        if wanted == Wanted::Clean && self.clean >= 1 << order {
            for of in order..=MAX_ORDER {
                let levels = self.levels[of as usize] >> (order + 1);
                if levels != 0 {
                    let level = order + 1 + levels.trailing_zeros();
                    return Some(self.heads[list(of, level)]);
                }
            }
        }
        let of = (order..=MAX_ORDER).find(|&of| self.levels[of as usize] != 0)?;
        let levels = self.levels[of as usize];
        let level = match wanted {
            Wanted::Clean => levels.ilog2(),
            Wanted::Any => levels.trailing_zeros(),
        };
        Some(self.heads[list(of, level)])
    }

    /// The free block that holds `frame`, if any.
    #[inline]
    pub(super) fn find_free_block(&self, frame: u64) -> Option<u32> {
        (0..=MAX_ORDER).find_map(|order| {
            let block = frame & !((1 << order) - 1);
            let info = self.info.get(block as usize)?;
            info.is_free_of(order).then_some(block as u32)
        })
    }

    /// The allocated block that holds `frame`, if any, and its order.
    pub(super) fn find_allocated_block(&self, frame: u64) -> Option<(u64, u32)> {
        (0..=MAX_ORDER).find_map(|order| {
            let block = frame & !((1 << order) - 1);
            let info = self.info.get(block as usize)?;
            (*info == FrameInfo::allocated(order)).then_some((block, order))
        })
    }

    /// Takes 2^wanted frames out of a free block, gives the rest back. Each time that the block is halved, `upper` says which
    /// half to go on with, by the halves' order, what is clean in them, and where the upper one begins.
    pub(super) fn carve(
        &mut self,
        block: u32,
        wanted: u32,
        upper: impl Fn(u32, [Clean; 2], u32) -> bool,
    ) -> (Mfn, Clean) {
        let mut order = self.info[block as usize].order();
        let mut clean = self.unlink(block, order);
        let mut at = block;
        while order > wanted {
            let halves = self.halves(at, order, clean);
            order -= 1;
            let middle = at + (1 << order);
            if upper(order, halves, middle) {
                self.link(at, order, halves[0]);
                (at, clean) = (middle, halves[1]);
            } else {
                self.link(middle, order, halves[1]);
                clean = halves[0];
            }
        }
        self.info[at as usize] = FrameInfo::allocated(wanted);
        (Mfn(at.into()), clean)
    }

    /// Takes frames off the count of free ones that were carved out.
    pub(super) const fn counted(&mut self, taken: (Mfn, Clean), order: u32) -> (Mfn, Clean) {
        self.free -= 1 << order;
        self.clean -= taken.1.frames as u64;
        taken
    }

    /// Puts a block that was allocated into the list, joined with its buddies that are free.
    pub(super) fn give(&mut self, block: u32, order: u32, clean: Clean) {
        self.info[block as usize] = FrameInfo::default();
        let (mut at, mut order, mut clean) = (block, order, clean);
        while order < MAX_ORDER {
            let buddy = at ^ 1 << order;
            let info = self.info.get(buddy as usize).copied().unwrap_or_default();
            if !info.is_free_of(order) {
                break;
            }
            let other = self.unlink(buddy, order);
            clean = if at < buddy {
                self.join(buddy, order, clean, other)
            } else {
                self.join(at, order, other, clean)
            };
            at = at.min(buddy);
            order += 1;
        }
        self.link(at, order, clean);
    }

    /// What is clean of a block whose halves, of this order, are these; the upper one begins at `middle`.
    fn join(&mut self, middle: u32, order: u32, lower: Clean, upper: Clean) -> Clean {
        if lower == upper && (lower == Clean::NONE || lower.is_all(order)) {
            return Clean {
                frames: lower.frames * 2,
                level: lower.level + (lower.level != 0) as u32,
            };
        }
        self.info[middle as usize] = FrameInfo::halves(lower, upper);
        Clean {
            frames: lower.frames + upper.frames,
            level: lower.level.max(upper.level),
        }
    }

    /// What is clean in the halves of a block that has `clean`.
    pub(super) fn halves(&self, block: u32, order: u32, clean: Clean) -> [Clean; 2] {
        if clean == Clean::NONE {
            return [clean; 2];
        }
        let half = order - 1;
        if clean.is_all(order) {
            return [Clean::all(half); 2];
        }
        self.info[(block + (1 << half)) as usize].to_halves()
    }

    pub(super) fn link(&mut self, block: u32, order: u32, clean: Clean) {
        let list = list(order, clean.level);
        let head = self.heads[list];
        self.info[block as usize] = FrameInfo::free(list, head, NO_LINK);
        self.heads[list] = block;
        if head == NO_LINK {
            self.levels[order as usize] |= 1 << clean.level;
        } else {
            self.info[head as usize].set_previous(block);
        }
    }

    /// Takes a block of this order out of its list; returns what of it is clean.
    fn unlink(&mut self, block: u32, order: u32) -> Clean {
        let info = self.info[block as usize];
        let (level, next, previous) = (info.level(), info.next(), info.previous());
        if next != NO_LINK {
            self.info[next as usize].set_previous(previous);
        }
        if previous != NO_LINK {
            self.info[previous as usize].set_next(next);
        } else {
            self.heads[info.list()] = next;
            if next == NO_LINK {
                self.levels[order as usize] &= !(1 << level);
            }
        }
        self.info[block as usize] = FrameInfo::default();
        self.clean_at(block, order, level)
    }

    /// What is clean of a block, by its level.
    pub(super) fn clean_at(&self, block: u32, order: u32, level: u32) -> Clean {
        if level == 0 {
            return Clean::NONE;
        }
        if level == order + 1 {
            return Clean::all(order);
        }
        let [lower, upper] = self.info[(block + (1 << (order - 1))) as usize].to_halves();
        let frames = lower.frames + upper.frames;
        Clean { frames, level }
    }
}
