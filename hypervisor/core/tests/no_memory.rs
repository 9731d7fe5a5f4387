//! When memory runs out: every list that grows by what a guest or the control domain does says so, stays as it was, and goes
//! on when there is memory again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;

use oxen_abi::Errno;
use oxen_abi::grant::Status;
use oxen_core::address::{Gfn, Mfn, PAGE_SIZE};
use oxen_core::cpu_policy::{Index, Policy};
use oxen_core::event::{EventChannels, Notify};
use oxen_core::grant::{Frame, GrantTable, Limits, Mapping, Maptrack};
use oxen_core::guest_page::GuestPage;
use oxen_core::id::{DomainId, GrantHandle, GrantRef, VcpuId};
use oxen_core::memory::foreign::ForeignList;
use oxen_core::memory::p2m::{Format, Kind, MapError, P2m, TableMemory};
use oxen_core::memory::ranges::RangeSet;
use oxen_core::memory::try_collect;
use oxen_core::time::Timers;

/// The host's memory, which runs out for a thread when that says so.
struct Bounded;

thread_local! {
    /// Blocks that the thread may still have, if that is bounded.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

// SAFETY: blocks are the system's, or there is none.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let left = LEFT.get();
        if left == Some(0) {
            return std::ptr::null_mut();
        }
        LEFT.set(left.map(|left| left - 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; all blocks are the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static MEMORY: Bounded = Bounded;

/// Does something with at most so many blocks of memory.
fn with_blocks<R>(blocks: usize, act: impl FnOnce() -> R) -> R {
    LEFT.set(Some(blocks));
    let result = act();
    LEFT.set(None);
    result
}

/// Does something with no memory, with one block, and so on until that is enough. Each time before it is, the subject is
/// as it was, by its `face`, and the very same works once there is memory. At least one block is needed.
fn at_every_shortage<S, R, F: PartialEq + Debug>(
    make: impl Fn() -> S,
    act: impl Fn(&mut S) -> Result<R, Errno>,
    face: impl Fn(&S) -> F,
) {
    for blocks in 0..100 {
        let mut subject = make();
        let before = face(&subject);
        match with_blocks(blocks, || act(&mut subject)) {
            Ok(_) => {
                assert!(blocks > 0, "it needs no memory");
                assert_ne!(face(&subject), before, "nothing was done");
                return;
            }
            Err(error) => assert_eq!(error, Errno::NoMem),
        }
        assert_eq!(face(&subject), before, "changed with {blocks} blocks");
        assert!(act(&mut subject).is_ok(), "it does not go on");
    }
    panic!("no memory is enough");
}

fn leaked_page() -> GuestPage {
    let pages = Box::leak(vec![0u8; 2 * PAGE_SIZE].into_boxed_slice());
    let start = pages.as_ptr().align_offset(PAGE_SIZE);
    let page = std::ptr::NonNull::from(&mut pages[start..start + PAGE_SIZE]);
    // SAFETY: the page is leaked, so that it lives as long as any view of it.
    unsafe { GuestPage::new(page.cast()) }
}

struct Nobody;

impl Notify for Nobody {
    fn notify(&self, _: VcpuId) {}
}

#[test]
fn ram_that_a_domain_owns() {
    let make = || RangeSet::from_iter([0..100, 200..300]);
    let ranges = |set: &RangeSet| set.iter().collect::<Vec<_>>();
    // As many as there is room for: the change that is announced then needs none.
    let full = || {
        let mut set = make();
        let mut at = 1000;
        while with_blocks(0, || set.reserve()).is_ok() {
            set.insert(at..at + 1);
            at += 2;
        }
        set
    };
    at_every_shortage(
        full,
        |set| {
            set.reserve()
                .map(|()| with_blocks(0, || set.insert(120..130)))
        },
        ranges,
    );
    at_every_shortage(
        full,
        |set| {
            set.reserve()
                .map(|()| with_blocks(0, || set.remove(20..30)))
        },
        ranges,
    );
}

#[test]
fn pages_mapped_of_others() {
    let full = || {
        let mut list = ForeignList::new();
        for place in 0.. {
            if with_blocks(0, || list.reserve()).is_err() && place > 0 {
                break;
            }
            list.reserve().expect("memory");
            list.insert(Gfn(place), place);
        }
        list
    };
    at_every_shortage(
        full,
        |list| {
            list.reserve()?;
            with_blocks(0, || list.insert(Gfn(1 << 20), 7));
            Ok(())
        },
        |list| (list.len(), list.contains(Gfn(1 << 20))),
    );
}

#[test]
fn grants_that_a_domain_has_mapped() {
    let mapping = || Mapping {
        owner: (),
        grant: GrantRef(1),
        place: Gfn(2),
        frame: Mfn(3),
        write: true,
    };
    // Without memory it is as at the limit, by the ABI.
    let act = |list: &mut Maptrack<()>| match list.reserve() {
        Ok(handle) => {
            list.set(handle, mapping());
            Ok(handle)
        }
        Err(status) => {
            assert_eq!(status, Status::NoSpace);
            Err(Errno::NoMem)
        }
    };
    let face = |list: &Maptrack<()>| list.used();
    at_every_shortage(|| Maptrack::new(5000), act, face);
    let used_up = || {
        let mut list = Maptrack::new(5000);
        act(&mut list).expect("memory");
        while with_blocks(0, || act(&mut list)).is_ok() {}
        list
    };
    at_every_shortage(used_up, act, face);
    let mut list = used_up();
    assert!(list.take(GrantHandle(0)).is_ok());
}

#[derive(Debug)]
struct Shared(GuestPage);

impl Frame for Shared {
    fn page(&self) -> GuestPage {
        self.0
    }
}

#[test]
fn entries_of_a_grant_table() {
    let page = leaked_page();
    at_every_shortage(
        || GrantTable::new(Limits::default()),
        |table| table.grow(3, || Some(Shared(page))),
        // What was made before memory ran out may stay; it has no entries before all is there.
        |table| table.entries() / 3 * 3,
    );
    let mut table: GrantTable<Shared> = GrantTable::new(Limits::default());
    assert_eq!(table.grow(1, || None), Err(Errno::NoMem));
}

#[test]
fn ports() {
    let shared = leaked_page();
    at_every_shortage(
        || None,
        |place| {
            *place = Some(EventChannels::new(DomainId(1), shared, 3, 1024)?);
            Ok(())
        },
        Option::is_some,
    );
    let make = || EventChannels::new(DomainId(1), shared, 3, 1024).expect("memory");
    let open = |events: &EventChannels| {
        let mut open = 0;
        events.for_each(|_, _, _, _| open += 1);
        open
    };
    at_every_shortage(
        make,
        |events| events.alloc_unbound(DomainId(0)).map(drop),
        open,
    );
    // The change to the other ABI happens as a whole or not at all.
    let events = make();
    let port = events.alloc_unbound(DomainId(0)).expect("memory");
    let (control, words) = (leaked_page(), leaked_page());
    let mut blocks = 0;
    while let Err(error) = with_blocks(blocks, || {
        events.init_control(VcpuId(0), control, 0, &Nobody)
    }) {
        assert_eq!(error, Errno::NoMem);
        assert_eq!(
            events.expand_array(words, &Nobody),
            Err(Errno::OpNotSupp),
            "changed with {blocks} blocks"
        );
        blocks += 1;
    }
    assert!(blocks > 0);
    let none = with_blocks(0, || events.expand_array(words, &Nobody));
    assert_eq!(none, Err(Errno::NoMem));
    assert_eq!(events.expand_array(words, &Nobody), Ok(()));
    assert!(events.close(port).is_ok());
}

/// Tables of a map, as many as there are.
struct Tables {
    pages: Vec<Box<[u64; 512]>>,
    used: usize,
    released: usize,
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Option<Mfn> {
        let table = Mfn(self.used as u64);
        self.pages.get(self.used)?;
        self.used += 1;
        Some(table)
    }

    fn release(&mut self, _: Mfn) {
        self.released += 1;
    }

    fn wait_for_walks(&mut self) {}

    fn read(&self, table: Mfn, slot: usize) -> u64 {
        self.pages[table.0 as usize][slot]
    }

    fn write(&mut self, table: Mfn, slot: usize, entry: u64) {
        self.pages[table.0 as usize][slot] = entry;
    }
}

#[test]
fn tables_of_a_map() {
    for tables in 0..5 {
        let memory = Tables {
            pages: (0..tables).map(|_| Box::new([0; 512])).collect(),
            used: 0,
            released: 0,
        };
        // The map needs nothing of the heap.
        let (map, done) = with_blocks(0, || {
            let mut map = P2m::new(Format::Ept, memory, true);
            let done = map
                .as_mut()
                .map(|map| map.map(Gfn(5), Mfn(9), 1, Kind::Grant));
            (map, done)
        });
        let Some(map) = map else {
            assert_eq!(tables, 0);
            continue;
        };
        let mapped = tables >= 4;
        let expected = if mapped {
            Ok(())
        } else {
            Err(MapError::OutOfMemory)
        };
        assert_eq!(done, Some(expected));
        assert_eq!(map.lookup(Gfn(5)).is_some(), mapped);
        assert_eq!(map.tables(), if mapped { 4 } else { 1 });
        let memory = map.destroy();
        assert_eq!(memory.released, memory.used);
    }
}

#[test]
fn timers() {
    let full = || {
        let mut timers = Timers::new();
        timers.reserve(3).expect("memory");
        for key in 0..3 {
            timers.set(key, key, ());
        }
        timers
    };
    let no_memory = |_| Errno::NoMem;
    at_every_shortage(
        full,
        |timers| {
            timers.reserve(20).map_err(no_memory)?;
            with_blocks(0, || (3..20).for_each(|key| timers.set(key, key, ())));
            Ok(())
        },
        |timers| format!("{timers:?}"),
    );
}

#[test]
fn leaves_of_a_cpu_policy() {
    at_every_shortage(
        Policy::default,
        |policy| {
            policy
                .set(Index::plain(1), [0; 4], [0; 4])
                .map_err(|_| Errno::NoMem)
        },
        Policy::clone,
    );
}

#[test]
fn lists_that_never_grow() {
    at_every_shortage(
        Vec::new,
        |list| {
            *list = try_collect(1..40).map_err(|_| Errno::NoMem)?;
            Ok(())
        },
        Vec::len,
    );
}
