//! Copies by the hypervisor, as back ends ask for them by the page and by the array: between pages of the guest's own, and out of pages
//! that it grants to itself.

use oxen_abi::grant::{cmd, copy};
use oxen_abi::numbers;
use oxen_guest_runtime::hypercall::{self, SELF};
use oxen_guest_runtime::{cpu, grants, line};

use crate::measure::{Results, measure};

/// A frame of the guest's that it does not use: 48 MiB. Those behind it are neither.
const FROM: u64 = 48 << 8;
const TO: u64 = FROM + MOST as u64;
/// Pages of the largest copy: what an indirect request of a disk has.
const MOST: usize = 32;
const PAGE: u16 = 4096;

/// Where the guest, whose RAM ends before, has grants mapped.
const USED: u64 = 0x3001_0000;

/// What a side of a copy names: a frame, or a grant, and the domain whose it is. Those behind it follow.
type Side = (u64, u16);

/// Measures all.
pub fn run(results: &mut Results) {
    let own = (FROM, SELF);
    results.add("grant copy of a page", measure(|| pages::<1>(own, 0)));
    results.add("grant copy of 32 pages", measure(|| pages::<MOST>(own, 0)));
    let id = cpu::domain();
    grants::set_up();
    for nth in 0..MOST as u32 {
        grants::grant(grants::FIRST + nth, id, (FROM + u64::from(nth)) * 4096);
    }
    let granted = (grants::FIRST.into(), id);
    let copy = || pages::<MOST>(granted, copy::FLAG_SOURCE_GRANT);
    results.add("grant copy of 32 granted pages", measure(copy));
    let uses = core::array::from_fn::<_, MOST, _>(|nth| {
        let at = USED + nth as u64 * 4096;
        (grants::map(id, grants::FIRST + nth as u32, at), at)
    });
    results.add("grant copy of 32 pages granted and in use", measure(copy));
    for (handle, at) in uses {
        grants::unmap(handle, at);
    }
    (grants::FIRST..).take(MOST).for_each(grants::revoke);
}

/// Copies so many whole pages with one call, to pages of the guest's own.
fn pages<const COUNT: usize>(source: Side, flags: u16) {
    let mut elements = [[0_u8; copy::SIZE]; COUNT];
    for (nth, element) in elements.iter_mut().enumerate() {
        for (at, (first, domain)) in [(copy::SOURCE, source), (copy::DESTINATION, (TO, SELF))] {
            let (page, number) = (at + copy::SIDE_PAGE, at + copy::SIDE_DOMAIN);
            element[page..page + 8].copy_from_slice(&(first + nth as u64).to_le_bytes());
            element[number..number + 2].copy_from_slice(&domain.to_le_bytes());
        }
        element[copy::FLAGS..copy::FLAGS + 2].copy_from_slice(&flags.to_le_bytes());
        element[copy::LENGTH..copy::LENGTH + 2].copy_from_slice(&PAGE.to_le_bytes());
        // What is not overwritten was not done.
        element[copy::STATUS..copy::STATUS + 2].fill(0xFF);
    }
    // SAFETY: the array is as long as it says, and the pages that are written are nobody's.
    let result = unsafe {
        hypercall::call(
            numbers::GRANT_TABLE_OP,
            cmd::COPY,
            elements.as_mut_ptr() as u64,
            COUNT as u64,
        )
    };
    let done = |element: &[u8; copy::SIZE]| element[copy::STATUS..copy::STATUS + 2] == [0, 0];
    if result != 0 || !elements.iter().all(done) {
        line!("bench: error: grant copy {result}");
    }
}
