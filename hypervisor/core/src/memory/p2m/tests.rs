//! The map against a plain one, on tables in ordinary memory.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Default)]
struct Tables {
    pages: HashMap<u64, Box<[u64; 512]>>,
    next: u64,
    /// Times that walks were waited for.
    waits: u32,
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Option<Mfn> {
        self.next += 1;
        self.pages.insert(self.next, Box::new([0; 512]));
        Some(Mfn(self.next))
    }

    fn release(&mut self, table: Mfn) {
        self.pages
            .remove(&table.0)
            .expect("a released table was allocated");
    }

    fn wait_for_walks(&mut self) {
        self.waits += 1;
    }

    fn read(&self, table: Mfn, slot: usize) -> u64 {
        self.pages[&table.0][slot]
    }

    fn write(&mut self, table: Mfn, slot: usize, entry: u64) {
        self.pages
            .get_mut(&table.0)
            .expect("tables are allocated before use")[slot] = entry;
    }
}

fn map(format: Format) -> P2m<Tables> {
    P2m::new(format, Tables::default(), true).expect("tests have memory")
}

#[test]
fn a_gigabyte_takes_one_entry_and_splits_when_a_page_is_cut_out() {
    let mut p2m = map(Format::Ept);
    p2m.map(Gfn(1 << 18), Mfn(1 << 18), 1 << 18, Kind::Ram)
        .expect("in range");
    assert_eq!(p2m.tables(), 2);
    p2m.unmap(Gfn((1 << 18) + 5), 1).expect("in range");
    assert_eq!(p2m.tables(), 4);
    assert_eq!(p2m.lookup(Gfn((1 << 18) + 5)), None);
    assert_eq!(
        p2m.lookup(Gfn((1 << 18) + 6)),
        Some(Mapping {
            frame: Mfn((1 << 18) + 6),
            kind: Kind::Ram
        })
    );
}

#[test]
fn a_large_page_over_small_ones_frees_their_table() {
    let mut p2m = map(Format::Npt);
    p2m.map(Gfn(512), Mfn(7), 1, Kind::Shared)
        .expect("in range");
    assert_eq!(p2m.tables(), 4);
    assert_eq!(p2m.memory.waits, 0);
    p2m.map(Gfn(512), Mfn(1024), 512, Kind::Ram)
        .expect("in range");
    assert_eq!((p2m.tables(), p2m.memory.waits), (3, 1));
    assert_eq!(
        p2m.lookup(Gfn(513)),
        Some(Mapping {
            frame: Mfn(1025),
            kind: Kind::Ram
        })
    );
    assert!(p2m.destroy().pages.is_empty());
}

#[test]
fn a_map_takes_no_more_tables_than_it_may() {
    let mut p2m = map(Format::Ept);
    p2m.limit_tables(5);
    assert_eq!(p2m.map(Gfn(0), Mfn(1), 1, Kind::Grant), Ok(()));
    assert_eq!(p2m.map(Gfn(512), Mfn(1), 1, Kind::Grant), Ok(()));
    let scattered = p2m.map(Gfn(1024), Mfn(1), 1, Kind::Grant);
    assert_eq!((scattered, p2m.tables()), (Err(MapError::OutOfMemory), 5));
    assert_eq!(p2m.map(Gfn(513), Mfn(1), 1, Kind::Grant), Ok(()));
    p2m.limit_tables(6);
    assert_eq!(p2m.map(Gfn(1024), Mfn(1), 1, Kind::Grant), Ok(()));
    assert!(p2m.destroy().pages.is_empty());
}

#[test]
fn read_only_kinds_have_no_write_permission_in_either_format() {
    for format in [Format::Ept, Format::Npt] {
        assert_eq!(format.leaf(Mfn(1), Kind::GrantReadOnly, 0) & 0b10, 0);
        assert_eq!(format.leaf(Mfn(1), Kind::Ram, 0) & 0b10, 0b10);
    }
}

#[test]
fn frames_beyond_the_map_are_refused() {
    let mut p2m = map(Format::Ept);
    assert_eq!(
        p2m.map(Gfn(1 << 36), Mfn(0), 1, Kind::Ram),
        Err(MapError::BeyondMap)
    );
    assert_eq!(
        p2m.map(Gfn(u64::MAX), Mfn(0), 2, Kind::Ram),
        Err(MapError::BeyondMap)
    );
    assert_eq!(p2m.lookup(Gfn(1 << 36)), None);
}

#[test]
fn tables_are_bounded_and_what_was_mapped_stays() {
    let mut p2m = map(Format::Ept);
    p2m.limit_tables(5);
    p2m.map(Gfn(7), Mfn(7), 1, Kind::Shared).expect("in range");
    let far = |n: u64| Gfn(n << 27);
    assert_eq!(p2m.tables(), 4);
    for n in 1..100 {
        assert_eq!(
            p2m.map(far(n), Mfn(7), 1, Kind::Shared),
            Err(MapError::OutOfMemory)
        );
        assert_eq!(p2m.tables(), 4, "those made on the way are gone again");
        assert!(p2m.lookup(Gfn(7)).is_some() && p2m.lookup(far(n)).is_none());
    }
    assert!(p2m.destroy().pages.is_empty());
}

#[test]
fn tables_go_with_their_last_entry_and_may_be_walked_until_a_flush() {
    let mut p2m = map(Format::Npt);
    p2m.map(Gfn(5), Mfn(7), 2, Kind::Grant).expect("in range");
    p2m.map(Gfn(512), Mfn(9), 1, Kind::Grant).expect("in range");
    assert_eq!(p2m.tables(), 5);
    p2m.unmap(Gfn(5), 1).expect("in range");
    assert_eq!(p2m.tables(), 5);
    p2m.unmap(Gfn(6), 1).expect("in range");
    assert_eq!((p2m.tables(), p2m.memory.pages.len()), (4, 5));
    p2m.unmap(Gfn(512), 1).expect("in range");
    assert_eq!((p2m.tables(), p2m.memory.pages.len()), (1, 5));
    // Nothing was waited for: the caller's own flush does for all of them.
    assert_eq!(p2m.memory.waits, 0);
    let unlinked = p2m.take_unlinked();
    assert!(
        unlinked
            .iter()
            .all(|table| p2m.memory.pages[&table.0].iter().all(|&entry| entry == 0)),
        "a walk through them must lead nowhere"
    );
    p2m.release(unlinked);
    assert_eq!(p2m.memory.pages.len(), 1);
}

#[test]
fn more_empty_tables_than_are_kept_wait_for_walks() {
    let mut p2m = map(Format::Ept);
    for n in 0..40 {
        p2m.map(Gfn(n << 18), Mfn(n), 1, Kind::Grant)
            .expect("in range");
    }
    for n in 0..40 {
        p2m.unmap(Gfn(n << 18), 1).expect("in range");
    }
    assert_eq!(p2m.tables(), 1);
    assert!(p2m.memory.waits > 0);
    assert!(p2m.destroy().pages.is_empty());
}

const KINDS: [Kind; 3] = [Kind::Ram, Kind::GrantReadOnly, Kind::Device];

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64, u64, usize),
    Unmap(u64, u64),
    /// Tables from now on, beside those that there are.
    Limit(u64),
}

/// Small ranges at a gigabyte's edges, and whole gigabytes, which large pages map.
fn step() -> impl Strategy<Value = Step> {
    const GIGABYTE: u64 = 1 << 18;
    let small = || {
        (
            prop_oneof![0u64..2048, GIGABYTE - 600..GIGABYTE + 600],
            prop_oneof![4 => 1u64..1100, 1 => Just(512)],
        )
    };
    let large = || (prop::sample::select(vec![0, 512, GIGABYTE]), Just(GIGABYTE));
    let place = || prop_oneof![4 => small(), 1 => large()];
    let frame = prop_oneof![2 => 0u64..2048, 1 => Just(512), 1 => Just(GIGABYTE)];
    prop_oneof![
        5 => (small(), frame, 0..KINDS.len()).prop_map(|((g, n), m, k)| Step::Map(g, m, n, k)),
        2 => (large(), large(), 0..KINDS.len()).prop_map(|((g, n), (m, _), k)| Step::Map(g, m, n, k)),
        3 => place().prop_map(|(g, n)| Step::Unmap(g, n)),
        1 => prop_oneof![Just(u64::MAX / 2), 0u64..4].prop_map(Step::Limit),
    ]
}

/// What is mapped, as ranges: later ones win. `None` is a hole.
type Model = Vec<(std::ops::Range<u64>, Option<(u64, Kind)>)>;

fn expected(model: &Model, gfn: u64) -> Option<Mapping> {
    let (range, to) = model.iter().rev().find(|(range, _)| range.contains(&gfn))?;
    to.map(|(mfn, kind)| Mapping {
        frame: Mfn(mfn + gfn - range.start),
        kind,
    })
}

/// Tables that `table`, one of `level`, leads to, with itself. Each has as many entries as is counted above it, and at
/// least one.
fn counted(p2m: &P2m<Tables>, table: Mfn, level: u32) -> Result<u64, TestCaseError> {
    let mut tables = 1;
    for slot in 0..512 {
        let entry = p2m.memory.read(table, slot);
        if level == 0 || !is_table(entry) {
            continue;
        }
        let below = frame_of(entry);
        let entries = (0..512).filter(|&slot| p2m.memory.read(below, slot) != 0);
        let entries = entries.count() as u64;
        prop_assert!(entries > 0, "an empty table at level {}", level - 1);
        prop_assert_eq!(entries, (entry & COUNT_MASK) >> COUNT_SHIFT);
        tables += counted(p2m, below, level - 1)?;
    }
    Ok(tables)
}

proptest! {
    #[test]
    fn the_map_agrees_with_a_plain_one(
        format in prop::sample::select(vec![Format::Ept, Format::Npt]),
        gigabyte_pages: bool,
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let mut p2m = P2m::new(format, Tables::default(), gigabyte_pages).expect("tests have memory");
        let mut model = Model::new();
        for step in steps {
            let (done, range, to) = match step {
                Step::Map(gfn, mfn, count, kind) => {
                    let kind = KINDS[kind];
                    let done = p2m.map(Gfn(gfn), Mfn(mfn), count, kind);
                    (done, gfn..gfn + count, Some((mfn, kind)))
                }
                Step::Unmap(gfn, count) => (p2m.unmap(Gfn(gfn), count), gfn..gfn + count, None),
                Step::Limit(more) => {
                    p2m.limit_tables(p2m.tables() + more);
                    continue;
                }
            };
            let edges = [range.start, range.end - 1, range.start + (range.end - range.start) / 2];
            if done.is_ok() {
                model.push((range, to));
            } else {
                // Pages are changed in order; those before the one that wanted a table have been.
                prop_assert!(p2m.tables() + u64::from(LEVELS) > p2m.most_tables());
                let new = |gfn| to.map(|(mfn, kind)| Mapping { frame: Mfn(mfn + gfn - range.start), kind });
                let changed = |gfn: &u64| p2m.lookup(Gfn(*gfn)) == new(*gfn);
                let end = range.clone().find(|gfn| !changed(gfn)).unwrap_or(range.end);
                model.push((range.start..end, to));
            }
            for gfn in edges {
                prop_assert_eq!(p2m.lookup(Gfn(gfn)), expected(&model, gfn), "{:#x}", gfn);
            }
        }
        prop_assert_eq!(counted(&p2m, p2m.root, LEVELS - 1)?, p2m.tables());
        for (first, frames) in [(0, 512), (3, 2000), (512, 1024), ((1 << 18) - 300, 400)] {
            let is_hole = (first..first + frames).all(|gfn| expected(&model, gfn).is_none());
            prop_assert_eq!(p2m.is_hole(Gfn(first), frames), is_hole, "{:#x}", first);
        }
        for gfn in (0..3200).chain((1 << 18) - 700..(1 << 18) + 2000).chain([(1 << 19) - 1, 1 << 19]) {
            prop_assert_eq!(p2m.lookup(Gfn(gfn)), expected(&model, gfn), "{:#x}", gfn);
            prop_assert_eq!(p2m.is_hole(Gfn(gfn), 1), expected(&model, gfn).is_none());
            if let Some(span) = p2m.lookup_span(Gfn(gfn)) {
                prop_assert!(span.contains(Gfn(gfn)) && span.rest_from(Gfn(gfn)) >= 1);
                let last = gfn + span.rest_from(Gfn(gfn)) - 1;
                prop_assert_eq!(Some(span.mapping(Gfn(last))), expected(&model, last));
            }
        }
        prop_assert_eq!(p2m.memory.pages.len() as u64, p2m.tables() + p2m.unlinked.len() as u64);
        // Whatever it was: when nothing is mapped any more, the root is all that is left.
        p2m.limit_tables(u64::MAX);
        prop_assert_eq!(p2m.unmap(Gfn(0), 1 << (ADDRESS_BITS - 12)), Ok(()));
        prop_assert_eq!(p2m.tables(), 1);
        prop_assert!(p2m.destroy().pages.is_empty());
    }

    /// Pages that come and go one by one, as those of other domains do in the control domain's map.
    #[test]
    fn pages_mapped_alone_leave_no_table(places in prop::collection::btree_set(0u64..1 << 30, 1..40), order: u64) {
        let mut p2m = P2m::new(Format::Ept, Tables::default(), true).expect("tests have memory");
        for &place in &places {
            prop_assert_eq!(p2m.map(Gfn(place), Mfn(place), 1, Kind::Foreign), Ok(()));
        }
        let mut places: Vec<u64> = places.into_iter().collect();
        places.sort_by_key(|place| place.wrapping_mul(order | 1));
        for place in places {
            prop_assert_eq!(p2m.unmap(Gfn(place), 1), Ok(()));
            let unlinked = p2m.take_unlinked();
            p2m.release(unlinked);
        }
        prop_assert_eq!(p2m.memory.pages.len(), 1);
    }
}
