//! Behaviour of tables that the model does not speak of: growth, versions, what lies where.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use oxen_abi::Errno;
use oxen_abi::grant::{Status, entry as layout};
use oxen_abi::memory::GRANT_STATUS_INDEX;

use super::*;
use crate::address::{Gfn, Mfn};
use crate::guest_page::GuestPage;
use crate::guest_page::testing::leaked_page;
use crate::id::{DomainId, GrantRef};

impl Frame for GuestPage {
    fn page(&self) -> GuestPage {
        *self
    }
}

const READER: DomainId = DomainId(5);

fn frame() -> Option<GuestPage> {
    Some(leaked_page())
}

fn table(frames: u32) -> GrantTable<GuestPage> {
    let mut table = GrantTable::new(Limits::default());
    table.grow(frames, frame).expect("tests have memory");
    table
}

fn ask(write: bool, purpose: Purpose) -> Ask {
    Ask {
        who: READER,
        access: Access::host(write),
        purpose,
    }
}

/// Pages lie 100 above their numbers; those from 1000 on are no memory.
fn hold(gfn: Gfn) -> Result<Mfn, Status> {
    (gfn.0 < 1000)
        .then_some(Mfn(gfn.0 + 100))
        .ok_or(Status::BadPage)
}

/// Writes an entry's words.
fn write(table: &GrantTable<GuestPage>, grant: u32, words: [u32; 4]) {
    let entry = table.entry(GrantRef(grant)).expect("the entry is there");
    let count = if entry.status.is_some() { 4 } else { 2 };
    for (index, word) in words.into_iter().take(count).enumerate() {
        entry.page.u32(entry.at + 4 * index).store(word, Relaxed);
    }
}

fn header(flags: u16) -> u32 {
    u32::from(flags) | u32::from(READER.0) << 16
}

fn flags(table: &GrantTable<GuestPage>, grant: u32) -> (u16, Option<u16>) {
    let entry = table.entry(GrantRef(grant)).expect("the entry is there");
    let status = entry.status.map(|(page, at)| page.u16(at).load(Relaxed));
    (entry.header().flags, status)
}

fn whole(gfn: u64) -> Content {
    Content::Page {
        gfn: Gfn(gfn),
        frame: Mfn(gfn + 100),
        offset: 0,
        length: 4096,
        whole: true,
    }
}

#[test]
fn the_highest_frame_brings_those_below_it() {
    let mut table = GrantTable::new(Limits::default());
    assert_eq!((table.frames(), table.entries()), (0, 0));
    let highest = table.frame_at(3, frame).expect("below the limit").as_ptr();
    assert_eq!((table.frames(), table.entries()), (4, 2048));
    assert!(
        table
            .frame_at(0, frame)
            .is_ok_and(|page| page.as_ptr() != highest)
    );
    assert!(
        table
            .frame_at(3, || None)
            .is_ok_and(|page| page.as_ptr() == highest)
    );
    assert_eq!(table.place(3, Gfn(8)), None);
    assert_eq!(table.place(3, Gfn(9)), Some(Gfn(8)));
    assert_eq!(
        (table.placed_at(3), table.placed_at(2)),
        (Some(Gfn(9)), None)
    );
}

#[test]
fn it_does_not_grow_past_its_limit() {
    let limits = Limits::asked(2, 1, 1).expect("within the defaults");
    let mut table = GrantTable::<GuestPage>::new(limits);
    for index in [
        2,
        u64::from(u32::MAX),
        1 << 32,
        u64::MAX,
        GRANT_STATUS_INDEX,
    ] {
        assert_eq!(table.frame_at(index, frame).err(), Some(Errno::Inval));
    }
    assert_eq!(table.frames(), 0);
    assert!(table.frame_at(1, frame).is_ok());
    assert_eq!(table.grow(3, frame), Err(Errno::Inval));
    assert_eq!(table.set_version(2, frame), Err(Errno::NoSys));
    assert_eq!(table.set_version(3, frame), Err(Errno::Inval));
}

#[test]
fn growth_without_memory_keeps_what_it_has_and_can_go_on() {
    let mut table = GrantTable::new(Limits::default());
    let mut left = 2;
    let few = || {
        left -= 1;
        (left >= 0).then(leaked_page)
    };
    assert_eq!(table.frame_at(4, few).err(), Some(Errno::NoMem));
    assert_eq!(table.frames(), 2);
    assert!(table.frame_at(4, frame).is_ok());
    assert_eq!(table.frames(), 5);
}

#[test]
fn status_frames_come_with_version_2_and_follow_the_table() {
    let mut table = table(9);
    assert_eq!(
        table.frame_at(GRANT_STATUS_INDEX, frame).err(),
        Some(Errno::Inval)
    );
    assert_eq!(table.resource_frames(), (64, 8));
    assert_eq!(table.set_version(2, frame), Ok(()));
    assert_eq!((table.version(), table.entries()), (2, 9 * 256));
    assert!(table.frame_at(GRANT_STATUS_INDEX | 1, || None).is_ok());
    assert!(table.frame_at(GRANT_STATUS_INDEX | 7, frame).is_ok());
    assert_eq!(table.frames(), 57);
    assert_eq!(
        table.frame_at(GRANT_STATUS_INDEX | 8, frame).err(),
        Some(Errno::Inval)
    );
    assert_eq!(
        table.pin(GrantRef(57 * 256), &ask(false, Purpose::Copy), hold),
        Err(Status::BadGntref)
    );
}

#[test]
fn reserved_entries_outlive_a_change_of_version_even_in_use() {
    let mut table = table(1);
    write(&table, 1, [header(layout::PERMIT_ACCESS), 77, 0, 0]);
    write(&table, 8, [header(layout::PERMIT_ACCESS), 78, 0, 0]);
    let pin = ask(true, Purpose::Map);
    assert_eq!(table.pin(GrantRef(1), &pin, hold), Ok(whole(77)));
    assert_eq!(table.pin(GrantRef(8), &pin, hold), Ok(whole(78)));
    assert_eq!(table.set_version(2, frame), Err(Errno::Busy));
    assert_eq!(
        table.unpin(GrantRef(8), pin.access),
        Some(LetGo {
            gfn: Gfn(78),
            frame: Mfn(178)
        })
    );
    assert_eq!(table.set_version(2, frame), Ok(()));
    let used = layout::READING | layout::WRITING;
    assert_eq!(flags(&table, 1), (layout::PERMIT_ACCESS, Some(used)));
    assert_eq!(flags(&table, 8), (0, Some(0)));
    assert_eq!(table.set_version(1, frame), Ok(()));
    assert_eq!(flags(&table, 1), (layout::PERMIT_ACCESS | used, None));
    assert!(table.unpin(GrantRef(1), pin.access).is_some());
    assert_eq!(flags(&table, 1), (layout::PERMIT_ACCESS, None));
    assert_eq!(table.unpin(GrantRef(1), pin.access), None);
}

#[test]
fn what_version_1_cannot_say_keeps_version_2() {
    let mut table = table(1);
    assert_eq!(table.set_version(2, frame), Ok(()));
    write(&table, 0, [header(layout::TRANSITIVE), 0, 0, 0]);
    assert_eq!(table.set_version(1, frame), Err(Errno::Range));
    write(&table, 0, [header(layout::PERMIT_ACCESS), 0, 0, 1]);
    assert_eq!(table.set_version(1, frame), Err(Errno::Range));
    write(&table, 0, [header(layout::PERMIT_ACCESS), 0, u32::MAX, 0]);
    assert_eq!((table.set_version(1, frame), table.version()), (Ok(()), 1));
}

#[test]
fn parts_of_pages_and_others_grants_are_for_copying_only() {
    let mut table = table(1);
    assert_eq!(table.set_version(2, frame), Ok(()));
    let part = layout::PERMIT_ACCESS | layout::SUB_PAGE;
    write(&table, 9, [header(part), 16 | 32 << 16, 5, 0]);
    write(&table, 10, [header(layout::TRANSITIVE), 3, 44, 0]);
    for grant in [9, 10] {
        assert_eq!(
            table.pin(GrantRef(grant), &ask(false, Purpose::Map), hold),
            Err(Status::GeneralError)
        );
    }
    let copying = ask(false, Purpose::Copy);
    assert_eq!(
        table.pin(GrantRef(9), &copying, hold),
        Ok(Content::Page {
            gfn: Gfn(5),
            frame: Mfn(105),
            offset: 16,
            length: 32,
            whole: false
        })
    );
    let via = Content::Via {
        domain: DomainId(3),
        grant: GrantRef(44),
    };
    assert_eq!(table.pin(GrantRef(10), &copying, hold), Ok(via));
    // In use, they are still not for mapping, nor for going on from another grant.
    for purpose in [Purpose::Map, Purpose::CopyVia] {
        assert_eq!(
            table.pin(GrantRef(10), &ask(false, purpose), hold),
            Err(Status::GeneralError)
        );
    }
    assert_eq!(table.unpin(GrantRef(10), copying.access), None);
    assert_eq!(
        table.pin(GrantRef(10), &ask(false, Purpose::CopyVia), hold),
        Err(Status::GeneralError)
    );
    assert_eq!(flags(&table, 10), (layout::TRANSITIVE, Some(0)));
    assert_eq!(table.in_use(), (1, 1));
}

#[test]
fn entries_change_places_unless_in_use() {
    let mut table = table(1);
    write(&table, 3, [header(layout::PERMIT_ACCESS), 33, 0, 0]);
    let none = GrantRef(512);
    assert_eq!(table.swap(GrantRef(3), none), Err(Status::BadGntref));
    assert_eq!(table.swap(GrantRef(3), GrantRef(400)), Ok(()));
    let pin = ask(false, Purpose::Map);
    assert_eq!(table.pin(GrantRef(400), &pin, hold), Ok(whole(33)));
    for (one, other) in [(3, 400), (400, 3)] {
        assert_eq!(
            table.swap(GrantRef(one), GrantRef(other)),
            Err(Status::Again)
        );
    }
    assert_eq!(table.swap(GrantRef(400), GrantRef(400)), Ok(()));
}

#[test]
fn the_129th_use_of_a_kind_is_refused() {
    let mut table = table(1);
    write(&table, 3, [header(layout::PERMIT_ACCESS), 33, 0, 0]);
    for write in [false, true] {
        let pin = ask(write, Purpose::Map);
        for _ in 0..128 {
            assert_eq!(table.pin(GrantRef(3), &pin, hold), Ok(whole(33)));
        }
        assert_eq!(
            table.pin(GrantRef(3), &pin, hold),
            Err(Status::GeneralError)
        );
    }
    assert_eq!(table.in_use(), (1, 256));
}

/// A domain takes its grant back and gives it again all the time, as the ABI says how: while it has it back, nobody uses it.
#[test]
fn what_was_taken_back_is_not_in_use() {
    for version in [1, 2] {
        let mut table = table(1);
        assert_eq!(table.set_version(version, frame), Ok(()));
        write(&table, 20, [header(layout::PERMIT_ACCESS), 33, 33, 0]);
        let entry = table.entry(GrantRef(20)).expect("the entry is there");
        let (stop, taken_back) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flags = entry.page.u16(entry.at);
                let free = layout::PERMIT_ACCESS;
                while !stop.load(SeqCst) {
                    let taken = match entry.status {
                        None => flags.compare_exchange(free, 0, SeqCst, SeqCst).is_ok(),
                        Some((page, at)) => {
                            flags.store(0, SeqCst);
                            page.u16(at).load(SeqCst) == 0
                        }
                    };
                    taken_back.store(taken, SeqCst);
                    for _ in 0..50 {
                        std::hint::spin_loop();
                    }
                    taken_back.store(false, SeqCst);
                    if taken || entry.status.is_some() {
                        flags.store(free, SeqCst);
                    }
                }
            });
            let pin = ask(true, Purpose::Map);
            let (mut turns, mut uses) = (0, 0);
            // On a busy machine the owner may not get a CPU for long, with the grant taken back.
            while turns < 100_000 || uses == 0 && turns < 50_000_000 {
                turns += 1;
                if table.pin(GrantRef(20), &pin, hold).is_ok() {
                    let mut during = (0..20).map(|_| taken_back.load(SeqCst));
                    let wrong = during.any(|taken| taken);
                    assert!(table.unpin(GrantRef(20), pin.access).is_some());
                    assert!(
                        !wrong,
                        "in use in version {version} after it was taken back"
                    );
                    uses += 1;
                }
            }
            stop.store(true, SeqCst);
            assert!(uses > 0);
        });
        assert_eq!(table.in_use(), (0, 0));
    }
}
