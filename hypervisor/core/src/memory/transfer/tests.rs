//! Copies against plain arrays, and requests with hostile values.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::guest_page::testing::leaked_page;

const PAGE: u64 = PAGE_SIZE as u64;

/// Pages by their number; some may only be read.
#[derive(Default)]
struct Pages(BTreeMap<u64, (GuestPage, bool)>);

impl Pages {
    fn new(numbers: impl IntoIterator<Item = u64>) -> Self {
        let pages = numbers.into_iter();
        Self(
            pages
                .map(|number| (number, (leaked_page(), true)))
                .collect(),
        )
    }

    fn fill(&self, byte: u8) {
        for (page, _) in self.0.values() {
            page.write(0, &[byte; PAGE_SIZE]);
        }
    }

    fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let bytes = (0..length as u64).map(|at| address.wrapping_add(at));
        bytes
            .map(|at| {
                let mut byte = [0];
                self.0[&(at / PAGE)].0.read((at % PAGE) as usize, &mut byte);
                byte[0]
            })
            .collect()
    }
}

impl Space for Pages {
    fn page(&self, address: u64, write: bool) -> Option<(GuestPage, usize)> {
        let (page, writable) = self.0.get(&(address / PAGE))?;
        (*writable || !write).then_some((*page, (address % PAGE) as usize))
    }
}

impl GuestPhysRead for Pages {
    fn read_u64(&self, address: GuestPhys) -> Option<u64> {
        let (page, _) = self.0.get(&(address.0 / PAGE))?;
        let word = page.u64(address.page_offset());
        Some(word.load(core::sync::atomic::Ordering::Relaxed))
    }

    fn read_u32(&self, _: GuestPhys) -> Option<u32> {
        None
    }
}

#[test]
fn a_copy_ends_before_the_first_page_that_is_missing_or_read_only() {
    let (source, mut target) = (Pages::new(0..4), Pages::new(8..12));
    source.fill(7);
    assert_eq!(copy((&source, 100), (&target, 9 * PAGE - 10), 5000), 5000);
    assert_eq!(target.bytes(9 * PAGE - 10, 5000), [7; 5000]);
    // The source ends.
    assert_eq!(
        copy((&source, 3 * PAGE + 96), (&target, 8 * PAGE), 4097),
        4000
    );
    assert_eq!(copy((&source, 4 * PAGE), (&target, 8 * PAGE), 1), 0);
    // The target does.
    assert_eq!(copy((&source, 0), (&target, 12 * PAGE - 3), usize::MAX), 3);
    target.0.insert(10, (leaked_page(), false));
    assert_eq!(
        copy((&source, 0), (&target, 9 * PAGE), 3 * PAGE_SIZE),
        PAGE_SIZE
    );
    // Which is memory to be read all the same.
    assert_eq!(copy((&target, 10 * PAGE), (&source, 0), 8), 8);
    assert_eq!(source.bytes(0, 9), [0, 0, 0, 0, 0, 0, 0, 0, 7]);
}

#[test]
fn addresses_wrap_around() {
    let last = u64::MAX / PAGE;
    let (source, target) = (Pages::new([0, last]), Pages::new([1]));
    source.fill(3);
    assert_eq!(copy((&source, u64::MAX - 1), (&target, PAGE), 10), 10);
    assert_eq!(target.bytes(PAGE, 11), [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0]);
    assert_eq!(
        copy((&target, PAGE), (&source, u64::MAX - 1), usize::MAX),
        PAGE_SIZE
    );
}

proptest! {
    #[test]
    fn every_byte_comes_to_its_place(
        from in 0..3 * PAGE,
        to in 0..3 * PAGE,
        length in 0..6 * PAGE_SIZE,
        factor in any::<u8>(),
    ) {
        let bytes: Vec<u8> = (0..9 * PAGE_SIZE).map(|at| (at / 3) as u8 ^ factor).collect();
        let (source, target) = (Pages::new(0..9), Pages::new(0..9));
        for (number, (page, _)) in &source.0 {
            page.write(0, &bytes[*number as usize * PAGE_SIZE..][..PAGE_SIZE]);
        }
        prop_assert_eq!(copy((&source, from), (&target, to), length), length);
        let mut expected = vec![0; 9 * PAGE_SIZE];
        expected[to as usize..][..length].copy_from_slice(&bytes[from as usize..][..length]);
        prop_assert_eq!(target.bytes(0, 9 * PAGE_SIZE), expected);
    }

    #[test]
    fn what_is_left_of_a_request_is_what_was_not_done(
        bytes in prop::array::uniform32(any::<u8>()),
        done in any::<u32>(),
    ) {
        let mut argument = Argument::<{ abi::SIZE }>::default();
        for (at, byte) in bytes.into_iter().enumerate() {
            argument.set_u8(at, byte);
        }
        let request = Request::of(&argument);
        let done = done.min(request.length);
        let rest = request.rest(done);
        rest.put(&mut argument);
        prop_assert_eq!(Request::of(&argument), rest);
        prop_assert_eq!(rest.length, request.length - done);
        prop_assert_eq!(rest.address.wrapping_sub(request.address), u64::from(done));
        prop_assert_eq!(rest.buffer.wrapping_sub(request.buffer), u64::from(done));
        prop_assert_eq!(rest.to_domain, bytes[abi::WRITE] != 0);
    }
}

#[test]
fn without_paging_a_linear_address_is_a_physical_one() {
    for address in [0, 0x1234, 1 << 32, u64::MAX] {
        let found = translate(&Pages::default(), &Paging::default(), address);
        assert_eq!(found, Some(GuestPhys(address)));
    }
}

#[test]
fn with_paging_tables_decide_and_rights_do_not() {
    const PRESENT: u64 = 1;
    const USER: u64 = 4;
    // Long mode with write protection and SMAP: tables in pages 1 to 4, for address 0x1000 a page that is the user's and read-only.
    let memory = Pages::new(1..5);
    let put = |table: u64, slot: usize, entry: u64| {
        let (page, _) = memory.0[&table];
        page.write(slot * 8, &entry.to_le_bytes());
    };
    for table in 1..4 {
        put(table, 0, ((table + 1) * PAGE) | PRESENT | USER);
    }
    put(4, 1, 0xABC_D000 | PRESENT | USER);
    let paging = Paging {
        cr0: 1 << 31 | 1 << 16 | 1,
        cr3: PAGE,
        cr4: 1 << 5 | 1 << 21,
        efer: 1 << 10,
        rflags: 2,
    };
    assert_eq!(
        translate(&memory, &paging, 0x1234),
        Some(GuestPhys(0xABC_D234))
    );
    assert_eq!(translate(&memory, &paging, 0x2000), None);
    let elsewhere = Paging {
        cr3: 0x7000,
        ..paging
    };
    assert_eq!(translate(&memory, &elsewhere, 0x1234), None);
}
