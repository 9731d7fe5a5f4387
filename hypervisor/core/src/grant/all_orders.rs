//! A domain that takes a grant back while another one begins to use it, in all orders of what both do.

use loom::thread;
use oxen_abi::grant::entry as layout;

use super::entry::{Entry, used};
use super::{Access, Ask, Purpose};
use crate::guest_page::GuestPage;
use crate::guest_page::testing::leaked_page;
use crate::id::DomainId;
use crate::sync::all_orders::model;
use crate::sync::atomic::{Ordering, fence};

const WHO: DomainId = DomainId(5);

/// An entry that grants a page for writing, of version 1 or, with a status, of version 2.
fn entry(status: Option<(GuestPage, usize)>) -> Entry {
    let page = leaked_page();
    let granted = u32::from(layout::PERMIT_ACCESS) | u32::from(WHO.0) << 16;
    page.u32(0).store(granted, Ordering::Relaxed);
    Entry {
        page,
        at: 0,
        status,
    }
}

/// Whether the use begins.
fn begins(entry: &Entry) -> bool {
    let ask = Ask {
        who: WHO,
        access: Access::host(true),
        purpose: Purpose::Copy,
    };
    entry.begin(&ask, false).is_ok()
}

/// The domain takes the word away unless it is marked. Whether it thinks that nobody uses the grant.
fn taken_back_v1(page: GuestPage) -> bool {
    let word = page.u32(0);
    let seen = word.load(Ordering::Relaxed);
    seen as u16 & used(true) == 0
        && word
            .compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
}

/// The domain clears the entry, then looks at the status.
fn taken_back_v2(page: GuestPage, status: GuestPage) -> bool {
    page.u32(0).store(0, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    status.u16(0).load(Ordering::Acquire) & used(true) == 0
}

#[test]
fn a_version_1_grant_is_used_or_taken_back() {
    model(3, || {
        let entry = entry(None);
        let owner = thread::spawn(move || taken_back_v1(entry.page));
        let used = begins(&entry);
        let taken_back = owner.join().expect("it ends");
        assert!(!(used && taken_back), "used and taken back");
        assert!(used || taken_back, "each made the other give up");
    });
}

#[test]
fn a_version_2_grant_is_never_used_once_it_was_taken_back() {
    model(3, || {
        let status = leaked_page();
        status.u16(0).store(0, Ordering::Relaxed);
        let entry = entry(Some((status, 0)));
        let owner = thread::spawn(move || taken_back_v2(entry.page, status));
        let used = begins(&entry);
        let taken_back = owner.join().expect("it ends");
        assert!(!(used && taken_back), "used and taken back");
        let marked = status.u16(0).load(Ordering::Relaxed) != 0;
        assert_eq!(marked, used, "the mark tells whether it is used");
    });
}
