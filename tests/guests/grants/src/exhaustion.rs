//! A domain that has all memory there is: whatever needs more is refused, and goes again when it has gone.

use oxen_abi::{Errno, domctl, memory};
use oxen_guest_runtime::domain::{self, DEFAULT, domctl, free_pages};
use oxen_guest_runtime::hypercall::{self, SELF};

use crate::calls::{error, exists, free_pages_at_rest, remove_from_physmap};
use crate::memory::{PAGE, window};
use crate::passed;

/// Extents that are tried, by their order, the largest first.
const ORDERS: [u64; 3] = [9, 4, 0];

pub fn run() {
    let free = free_pages();
    let (result, hog) = domain::create(DEFAULT);
    assert!(result == 0, "createdomain: {result}");
    let (result, ..) = domctl(domctl::cmd::MAX_MEM, hog, (1u64 << 30).to_le_bytes());
    assert!(result == 0, "max_mem: {result}");
    let mut next = 0;
    for order in ORDERS {
        next = populate(hog, next, order);
    }
    let left = free_pages();
    assert!(left < 4, "{left} pages are free still");

    let (result, _) = domain::create(DEFAULT);
    assert!(
        result == error(Errno::NoMem),
        "createdomain without memory: {result}"
    );
    // Each place needs a table of its own.
    let mut mapped = 0;
    let place = |index: u64| (window(0) + (1 << 32)) / PAGE + index * 512;
    while map_foreign(hog, mapped, place(mapped)) == 0 {
        mapped += 1;
    }
    assert!(mapped <= left, "{mapped} foreign pages");
    let result = map_foreign(hog, 0, place(mapped));
    assert!(
        result == error(Errno::NoMem),
        "a foreign page without memory: {result}"
    );
    for index in 0..mapped {
        assert!(remove_from_physmap(place(index)) == 0);
    }

    domain::destroy(hog);
    assert!(!exists(hog));
    let now = free_pages_at_rest(free);
    assert!(now == free, "{free} pages were free, {now} are now");
    let (result, again) = domain::create(DEFAULT);
    assert!(result == 0, "createdomain with memory again: {result}");
    domain::destroy(again);
    passed("exhaustion");
}

/// Gives extents from frame `next` on until there are no more; returns the frame behind the last.
fn populate(id: u16, mut next: u64, order: u64) -> u64 {
    loop {
        let mut reservation = [&raw const next as u64, 1, order, id.into()];
        let done = hypercall::memory_op(memory::cmd::POPULATE_PHYSMAP, &mut reservation);
        if done != 1 {
            return next;
        }
        next += 1 << order;
    }
}

/// Maps one page: its result.
fn map_foreign(id: u16, page: u64, place: u64) -> i64 {
    let mut result = 1i32;
    let mut batch = [
        u64::from(SELF)
            | u64::from(memory::space::GMFN_FOREIGN) << 16
            | 1 << 32
            | u64::from(id) << 48,
        &raw const page as u64,
        &raw const place as u64,
        &raw mut result as u64,
    ];
    let called = hypercall::memory_op(memory::cmd::ADD_TO_PHYSMAP_BATCH, &mut batch);
    assert!(called == 0, "add_to_physmap_batch: {called}");
    // SAFETY: a local, which the hypervisor has written.
    unsafe { (&raw const result).read_volatile() }.into()
}
