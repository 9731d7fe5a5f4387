//! The allocator beside a list of frames with their contents: it never takes a frame for zero that is not, and finds every block
//! that such a list has.

use super::*;
use proptest::prelude::*;

const FRAMES: u64 = 192;
/// Some at either end are not handed in.
const MANAGED: core::ops::Range<u64> = 5..FRAMES - 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Free,
    Scrubbed,
    Owned,
    /// None of ours.
    Foreign,
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u32, bool),
    Run(u64, bool),
    Take(u64),
    /// The nth of what is owned, of which at most so many frames.
    Release(usize, u64),
    /// Takes a piece out to be cleared.
    Scrub(u32),
    /// The nth of those comes back.
    PutBack(usize),
}

struct Model<'a> {
    frames: Frames<'a>,
    uses: Vec<Use>,
    is_zero: Vec<bool>,
    out: Vec<(Mfn, u32)>,
}

impl Model<'_> {
    fn is_free(&self, first: u64, order: u32) -> bool {
        (first..first + (1 << order)).all(|frame| self.uses[frame as usize] == Use::Free)
    }

    /// Blocks of an order that are free, by their first frames.
    fn blocks(&self, order: u32) -> impl Iterator<Item = u64> {
        (0..FRAMES)
            .step_by(1 << order)
            .filter(move |&first| first + (1 << order) <= FRAMES && self.is_free(first, order))
    }

    fn are_zero(&self, first: u64, count: u64) -> bool {
        (first..first + count).all(|frame| self.is_zero[frame as usize])
    }

    fn set(&mut self, first: u64, count: u64, to: Use) {
        self.uses[first as usize..][..count as usize].fill(to);
    }

    /// The owner writes to what it has got.
    fn own(&mut self, first: u64, count: u64) {
        assert!((first..first + count).all(|frame| self.uses[frame as usize] == Use::Free));
        self.set(first, count, Use::Owned);
        self.is_zero[first as usize..][..count as usize].fill(false);
    }

    /// What was told of a block is true: how much of it is clean, and where it is not.
    fn is_told_truly(&self, block: Mfn, order: u32, clean: Clean) -> bool {
        let range = block.0..block.0 + (1 << order);
        let mut dirty = vec![];
        let mut at = block;
        while let Some((first, count)) = self.frames.dirty_part(block, order, clean, at) {
            dirty.extend(first.0..first.0 + count);
            at = first + count;
        }
        let expected: Vec<u64> = range
            .clone()
            .filter(|&frame| !self.is_zero[frame as usize])
            .collect();
        dirty == expected
            && clean.is_all(order) == expected.is_empty()
            && u64::from(clean.frames) == (1 << order) - expected.len() as u64
    }

    fn allocate(&mut self, order: u32, wanted: Wanted) -> bool {
        let there = self.blocks(order).next().is_some();
        let zero = self
            .blocks(order)
            .any(|first| self.are_zero(first, 1 << order));
        let Some((block, clean)) = self.frames.allocate(order, wanted) else {
            return !there;
        };
        let right = block.is_aligned(order)
            && self.is_told_truly(block, order, clean)
            && (wanted == Wanted::Any || clean.is_all(order) == zero);
        self.own(block.0, 1 << order);
        right
    }

    fn allocate_run(&mut self, count: u64, wanted: Wanted) -> bool {
        let order = count.next_power_of_two().trailing_zeros();
        let there = self.blocks(order).next().is_some();
        let Some((first, clean)) = self.frames.allocate_run(count, wanted) else {
            return !there;
        };
        let right = first.is_aligned(order) && (!clean || self.are_zero(first.0, count));
        self.own(first.0, count);
        right
    }

    fn release(&mut self, nth: usize, most: u64) -> bool {
        let owned: Vec<u64> = (0..FRAMES)
            .filter(|&frame| self.uses[frame as usize] == Use::Owned)
            .collect();
        let Some(&first) = owned.get(nth % owned.len().max(1)) else {
            return true;
        };
        let most = (first..FRAMES)
            .take_while(|&frame| self.uses[frame as usize] == Use::Owned)
            .take(most as usize)
            .count() as u64;
        let done = self.frames.release_part(Mfn(first), most);
        self.set(first, done, Use::Free);
        (1..=most).contains(&done)
    }

    fn scrub(&mut self, most: u32) -> bool {
        let due = self.frames.to_scrub() > 0;
        let dirty_there =
            (0..FRAMES as usize).any(|frame| self.uses[frame] == Use::Free && !self.is_zero[frame]);
        let Some((first, order)) = self.frames.take_dirty(most) else {
            return !(due && dirty_there);
        };
        let range = first.0..first.0 + (1 << order);
        let right = due
            && order <= most
            && self.is_free(first.0, order)
            && range.clone().all(|frame| !self.is_zero[frame as usize]);
        self.set(first.0, 1 << order, Use::Scrubbed);
        self.out.push((first, order));
        right
    }

    fn put_back(&mut self, nth: usize) {
        if self.out.is_empty() {
            return;
        }
        let (first, order) = self.out.swap_remove(nth % self.out.len());
        self.frames.put_back(first, order);
        self.set(first.0, 1 << order, Use::Free);
        self.is_zero[first.0 as usize..][..1 << order].fill(true);
    }

    fn step(&mut self, step: &Step) -> bool {
        let wanted = |clean| if clean { Wanted::Clean } else { Wanted::Any };
        match *step {
            Step::Allocate(order, clean) => self.allocate(order, wanted(clean)),
            Step::Run(count, clean) => self.allocate_run(count, wanted(clean)),
            Step::Take(frame) => match self.frames.take(Mfn(frame)) {
                Some(clean) => {
                    let right = clean == self.is_zero[frame as usize];
                    self.own(frame, 1);
                    right
                }
                None => self.uses[frame as usize] != Use::Free,
            },
            Step::Release(nth, most) => self.release(nth, most),
            Step::Scrub(most) => self.scrub(most),
            Step::PutBack(nth) => {
                self.put_back(nth);
                true
            }
        }
    }

    fn counts_are_right(&self) -> bool {
        let count = |wanted: &dyn Fn(usize) -> bool| {
            (0..FRAMES as usize).filter(|&f| wanted(f)).count() as u64
        };
        let free = count(&|f| matches!(self.uses[f], Use::Free | Use::Scrubbed));
        let dirty = count(&|f| {
            self.uses[f] == Use::Scrubbed || self.uses[f] == Use::Free && !self.is_zero[f]
        });
        self.frames.free_frames() == free
            && self.frames.to_scrub() <= dirty
            && self.frames.is_scrubbing() != self.out.is_empty()
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..7, any::<bool>()).prop_map(|(order, clean)| Step::Allocate(order, clean)),
        1 => (1u64..40, any::<bool>()).prop_map(|(count, clean)| Step::Run(count, clean)),
        1 => (0..FRAMES).prop_map(Step::Take),
        4 => (any::<usize>(), 1u64..80).prop_map(|(nth, most)| Step::Release(nth, most)),
        4 => (0u32..4).prop_map(Step::Scrub),
        3 => any::<usize>().prop_map(Step::PutBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn frames_taken_for_zero_are_zero_and_none_is_lost(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut info = vec![FrameInfo::default(); FRAMES as usize];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(MANAGED.start), Mfn(MANAGED.end));
        let uses = (0..FRAMES)
            .map(|frame| if MANAGED.contains(&frame) { Use::Free } else { Use::Foreign })
            .collect();
        let mut model = Model { frames, uses, is_zero: vec![false; FRAMES as usize], out: vec![] };
        for step in &steps {
            prop_assert!(model.step(step), "{step:?}");
            prop_assert!(model.counts_are_right(), "{step:?}");
        }
        // All comes back, is scrubbed, and joins.
        while !model.out.is_empty() {
            model.put_back(0);
        }
        while model.uses.contains(&Use::Owned) {
            prop_assert!(model.release(0, FRAMES));
        }
        while model.frames.to_scrub() > 0 {
            prop_assert!(model.scrub(3));
            model.put_back(0);
        }
        prop_assert!(model.counts_are_right());
        prop_assert!(model.allocate(6, Wanted::Clean));
        prop_assert!(model.frames.free_frames() == MANAGED.end - MANAGED.start - 64);
    }
}
