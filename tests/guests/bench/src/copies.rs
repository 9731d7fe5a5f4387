//! Copies by the hypervisor between pages of the guest's own, as back ends ask for them by the page and by the array.

use oxen_abi::grant::{cmd, copy};
use oxen_abi::numbers;
use oxen_guest_runtime::hypercall::{self, SELF};
use oxen_guest_runtime::line;

use crate::measure::{Results, measure};

/// A frame of the guest's that it does not use: 48 MiB. Those behind it are neither.
const FROM: u64 = 48 << 8;
const TO: u64 = FROM + MOST as u64;
/// Pages of the largest copy: what an indirect request of a disk has.
const MOST: usize = 32;
const PAGE: u16 = 4096;

/// Measures both.
pub fn run(results: &mut Results) {
    results.add("grant copy of a page", measure(pages::<1>));
    results.add("grant copy of 32 pages", measure(pages::<MOST>));
}

/// Copies so many whole pages with one call.
fn pages<const COUNT: usize>() {
    let mut elements = [[0_u8; copy::SIZE]; COUNT];
    for (nth, element) in elements.iter_mut().enumerate() {
        for (side, first) in [(copy::SOURCE, FROM), (copy::DESTINATION, TO)] {
            let (page, domain) = (side + copy::SIDE_PAGE, side + copy::SIDE_DOMAIN);
            element[page..page + 8].copy_from_slice(&(first + nth as u64).to_le_bytes());
            element[domain..domain + 2].copy_from_slice(&SELF.to_le_bytes());
        }
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
