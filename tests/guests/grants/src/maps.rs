//! Mapping and unmapping: own grants, those of a peer, and the peer's of this domain's.

use oxen_abi::Errno;
use oxen_abi::grant::{Status, cmd, entry, map, unmap};
use oxen_guest_runtime::bytes::word;
use oxen_guest_runtime::domain::DEFAULT;

use crate::calls::{
    SELF, error, exists, grant_table_op, half, map_argument, map_grant, remove_from_physmap,
    status, unmap_argument, unmap_grant,
};
use crate::memory::{PAGE, hole, is_write_refused, own, read, write};
use crate::passed;
use crate::peer::Peer;
use crate::table::OWN;

const OKAY: i16 = status(Status::Okay);
const GENERAL: i16 = status(Status::GeneralError);
const READ_WRITE: u32 = map::FLAG_HOST;
const READ_ONLY: u32 = map::FLAG_HOST | map::FLAG_READ_ONLY;
const BOTH: u16 = entry::READING | entry::WRITING;
/// This domain.
const ME: u16 = 0;

/// A domain may map what it grants to itself.
pub fn of_itself() {
    OWN.grant(8, ME, own(0) / PAGE, 0);
    OWN.grant(9, ME, own(1) / PAGE, entry::READ_ONLY);
    OWN.grant(10, 77, own(1) / PAGE, 0);
    OWN.grant(11, ME, hole(50) / PAGE, 0);
    write(own(0), 0x1111);
    write(own(1), 0x2222);

    let (mapped, handle) = map_grant(ME, 8, hole(0), READ_WRITE);
    assert!(mapped == OKAY && OWN.marks(8) == BOTH, "map: {mapped}");
    assert!(read(hole(0)) == 0x1111);
    write(hole(0), 0x3333);
    assert!(read(own(0)) == 0x3333);
    let (again, second) = map_grant(ME, 8, hole(1) + 0x123, READ_ONLY);
    assert!(again == OKAY && read(hole(1)) == 0x3333, "twice: {again}");
    let (mapped, read_only) = map_grant(ME, 9, hole(2), READ_ONLY);
    assert!(mapped == OKAY && OWN.marks(9) == entry::READING);
    for place in [hole(1), hole(2)] {
        let value = read(place);
        assert!(is_write_refused(place, !value) && read(place) == value);
    }

    for (domain, grant, place, flags, expected) in [
        (ME, 8, hole(3), 0, Status::BadGntref),
        (ME, 8, hole(3), map::FLAG_READ_ONLY, Status::BadGntref),
        (ME, 8, hole(3), map::FLAG_DEVICE, Status::GeneralError),
        (
            ME,
            8,
            hole(3),
            READ_WRITE | map::FLAG_CONTAINS_PTE,
            Status::GeneralError,
        ),
        (ME, 8, hole(3), READ_WRITE | 1 << 16, Status::GeneralError),
        (SELF, 8, hole(3), READ_WRITE, Status::BadDomain),
        (999, 8, hole(3), READ_WRITE, Status::BadDomain),
        (ME, 512, hole(3), READ_WRITE, Status::BadGntref),
        (ME, u32::MAX, hole(3), READ_WRITE, Status::BadGntref),
        // Not granted; read-only; for another; no memory.
        (ME, 12, hole(3), READ_WRITE, Status::GeneralError),
        (ME, 9, hole(3), READ_WRITE, Status::GeneralError),
        (ME, 10, hole(3), READ_WRITE, Status::GeneralError),
        (ME, 11, hole(3), READ_WRITE, Status::BadPage),
        // Something is there: own memory, another grant; or nothing can be.
        (ME, 8, own(3), READ_WRITE, Status::GeneralError),
        (ME, 8, hole(0), READ_WRITE, Status::GeneralError),
        (ME, 8, 1 << 60, READ_WRITE, Status::GeneralError),
    ] {
        let (got, _) = map_grant(domain, grant, place, flags);
        assert!(
            got == status(expected),
            "map {domain} {grant} {place:#x} {flags:#x}: {got}, not {expected:?}"
        );
    }
    // What is mapped goes by its handle only, and from its place only.
    assert!(remove_from_physmap(hole(0) / PAGE) == error(Errno::NoEnt));
    assert!(unmap_grant(handle, hole(1)) == GENERAL);
    assert!(unmap_grant(handle, 0) == OKAY && read(hole(0)) == 0x3333);
    assert!(unmap_grant(handle, hole(0)) == OKAY);
    for bad in [handle, 100_000, u32::MAX] {
        assert!(unmap_grant(bad, hole(0)) == status(Status::BadHandle));
    }
    assert!(OWN.marks(8) == entry::READING && read(hole(1)) == 0x3333);
    assert!(unmap_grant(second, hole(1)) == OKAY && OWN.marks(8) == 0);
    assert!(unmap_grant(read_only, hole(2)) == OKAY && OWN.marks(9) == 0);
    // Their places are free again.
    let (mapped, handle) = map_grant(ME, 8, hole(0), READ_ONLY);
    assert!(mapped == OKAY && unmap_grant(handle, hole(0)) == OKAY);
    for grant in 8..12 {
        OWN.revoke(grant);
    }
    passed("own");
}

/// Pages of another domain, and this domain's in that.
pub fn with_a_peer() {
    let peer = Peer::new(0, DEFAULT);
    of_a_peer(&peer);
    by_a_peer(&peer);
    peer.close_window();
    peer.destroy();
    assert!(!exists(peer.id));
}

/// Many in one call.
fn of_a_peer(peer: &Peer) {
    const COUNT: usize = 40;
    let pages = crate::peer::PAGES as usize;
    for grant in 0..COUNT {
        let page = (2 + grant % (pages - 2)) as u64;
        write(peer.window(page), 0x5000 + page as u32);
        peer.table().grant(8 + grant as u32, ME, peer.gfn(page), 0);
    }
    peer.table().revoke(8 + 7);
    let mut arguments: [_; COUNT] = core::array::from_fn(|index| {
        map_argument(peer.id, 8 + index as u32, hole(index as u64), READ_WRITE)
    });
    let result = grant_table_op(cmd::MAP_GRANT_REF, &mut arguments);
    assert!(result == 0, "map_grant_ref: {result}");
    for (index, argument) in arguments.iter().enumerate() {
        let expected = if index == 7 { GENERAL } else { OKAY };
        let got = half(argument, map::STATUS);
        assert!(got == expected, "element {index}: {got}");
        if index != 7 {
            let value = read(hole(index as u64));
            let page = 2 + index % (pages - 2);
            assert!(value == 0x5000 + page as u32, "grant {index}: {value:#x}");
        }
    }
    write(hole(0) + 4, 0xABCD);
    assert!(peer.load(peer.page(2) + 4) == 0xABCD);
    // The peer cannot give back what is in use; that it is shows in its table.
    assert!(peer.table().marks(8) == BOTH && peer.table().marks(8 + 7) == 0);
    let mut arguments: [_; COUNT] = core::array::from_fn(|index| {
        unmap_argument(word(&arguments[index], map::HANDLE), hole(index as u64))
    });
    let result = grant_table_op(cmd::UNMAP_GRANT_REF, &mut arguments);
    assert!(result == 0, "unmap_grant_ref: {result}");
    for (index, argument) in arguments.iter().enumerate() {
        let got = half(argument, unmap::STATUS);
        // The seventh has no handle; what is in its field by chance is the first one's.
        assert!(index == 7 || got == OKAY, "element {index}: {got}");
        assert!(peer.table().marks(8 + index as u32) == 0);
    }
    passed("of a peer");
}

/// The peer maps this domain's pages, and has no more of them than it is granted.
fn by_a_peer(peer: &Peer) {
    let place = 0x80_0000u64;
    OWN.grant(20, peer.id, own(0) / PAGE, 0);
    OWN.grant(21, ME, own(1) / PAGE, 0);
    write(own(0) + 8, 0x7777);
    let elements = [
        map_argument(ME, 20, place, READ_WRITE),
        map_argument(ME, 21, place + PAGE, READ_WRITE),
        map_argument(ME, 0, place + PAGE, READ_WRITE),
    ];
    peer.fill(2, elements.as_flattened());
    assert!(peer.grant_table_op(cmd::MAP_GRANT_REF, 2, 3) == 0);
    let statuses = [0, 1, 2].map(|index| peer.half(2, index * map::SIZE + map::STATUS));
    assert!(statuses == [OKAY, GENERAL, GENERAL], "{statuses:?}");
    assert!(peer.load(place + 8) == 0x7777 && OWN.marks(20) == BOTH);
    peer.store(place + 12, 0x8888);
    assert!(read(own(0) + 12) == 0x8888);
    let handle = peer.half(2, map::HANDLE) as u16;
    peer.fill(2, &unmap_argument(handle.into(), place));
    assert!(peer.grant_table_op(cmd::UNMAP_GRANT_REF, 2, 1) == 0);
    assert!(peer.half(2, unmap::STATUS) == OKAY && OWN.marks(20) == 0);
    OWN.revoke(20);
    OWN.revoke(21);
    passed("by a peer");
}
