//! In which pieces a guest's memory is asked for: the larger, the fewer calls and nested page tables.

use std::ops::Range;

const ORDER_1G: u32 = 18;
const ORDER_2M: u32 = 9;
/// The first 2 MiB come as single pages: guests put the shared-info page there, and a large page would be broken up at once.
const SINGLE_PAGES: u64 = 512;

/// Extents of one size, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Each has 2^order pages.
    pub order: u32,
    /// First guest frame number.
    pub first: u64,
    /// Number of extents.
    pub count: u64,
}

impl Run {
    /// Frame numbers of the extents.
    pub fn gfns(&self) -> impl Iterator<Item = u64> + use<> {
        let Self {
            order,
            first,
            count,
        } = *self;
        (0..count).map(move |i| first + (i << order))
    }

    /// Takes the first `extents` off.
    pub fn advance(&mut self, extents: u64) {
        self.first += extents << self.order;
        self.count -= extents;
    }

    /// The first extent in pieces of the next smaller size; `None` if it is a single page.
    pub fn split_first(&self) -> Option<Self> {
        let order = match self.order {
            ORDER_1G => ORDER_2M,
            ORDER_2M => 0,
            _ => return None,
        };
        Some(Self {
            order,
            first: self.first,
            count: 1 << (self.order - order),
        })
    }
}

/// Covers `pages` with the largest extents that are aligned and fit.
pub fn cover(pages: Range<u64>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut at = pages.start;
    while at < pages.end {
        let order = [ORDER_1G, ORDER_2M]
            .into_iter()
            .find(|&order| {
                let size = 1_u64 << order;
                at >= SINGLE_PAGES && at.is_multiple_of(size) && pages.end - at >= size
            })
            .unwrap_or(0);
        match runs.last_mut() {
            Some(run) if run.order == order => run.count += 1,
            _ => runs.push(Run {
                order,
                first: at,
                count: 1,
            }),
        }
        at += 1 << order;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(order: u32, first: u64, count: u64) -> Run {
        Run {
            order,
            first,
            count,
        }
    }

    #[test]
    fn two_gib_are_mostly_large_pages() {
        assert_eq!(
            cover(0..524_288),
            [run(0, 0, 512), run(9, 512, 511), run(18, 262_144, 1)]
        );
    }

    #[test]
    fn high_memory_begins_with_the_largest() {
        let start = 1 << 20;
        assert_eq!(
            cover(start..start + 262_144 + 513),
            [
                run(18, start, 1),
                run(9, start + 262_144, 1),
                run(0, start + 262_656, 1)
            ]
        );
        assert!(cover(5..5).is_empty());
    }

    proptest! {
        #[test]
        fn every_page_is_covered_once(start in 0_u64..3_000_000, size in 0_u64..2_000_000) {
            let mut at = start;
            for run in cover(start..start + size) {
                prop_assert_eq!(run.first, at);
                prop_assert!(run.first.is_multiple_of(1 << run.order));
                at += run.count << run.order;
            }
            prop_assert_eq!(at, start + size);
        }

        #[test]
        fn splitting_keeps_the_pages(order in prop::sample::select(vec![9_u32, 18])) {
            let whole = run(order, 1 << 20, 3);
            let part = whole.split_first().expect("a large extent");
            prop_assert_eq!(part.count << part.order, 1 << order);
            let mut rest = whole;
            rest.advance(1);
            prop_assert_eq!(part.first + (part.count << part.order), rest.first);
        }
    }
}
