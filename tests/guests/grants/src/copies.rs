//! Copies by the hypervisor: between own pages, grants, parts of pages, and grants of grants.

use oxen_abi::Errno;
use oxen_abi::grant::{Status, cmd, copy, entry};
use oxen_guest_runtime::bytes::put;
use oxen_guest_runtime::domain::DEFAULT;

use crate::calls::{SELF, error, exists, grant_table_op, half, map_grant, status, unmap_grant};
use crate::memory::{PAGE, hole, own, read, write};
use crate::passed;
use crate::peer::Peer;
use crate::table::{OWN, set_up_statuses, status_version_2, write_version_2};

const OKAY: i16 = status(Status::Okay);
const ME: u16 = 0;

/// One end: a page or a grant, of a domain, and where in it.
#[derive(Clone, Copy, Debug)]
enum End {
    Page(u64, u16, u16),
    Grant(u32, u16, u16),
}

fn argument(from: End, to: End, length: u16) -> [u8; copy::SIZE] {
    let mut bytes = [0; copy::SIZE];
    let mut flags = 0;
    for (end, side, flag) in [
        (from, copy::SOURCE, copy::FLAG_SOURCE_GRANT),
        (to, copy::DESTINATION, copy::FLAG_DESTINATION_GRANT),
    ] {
        let (number, domain, offset) = match end {
            End::Page(gfn, domain, offset) => (gfn, domain, offset),
            End::Grant(grant, domain, offset) => {
                flags |= flag;
                (grant.into(), domain, offset)
            }
        };
        put(&mut bytes, side + copy::SIDE_PAGE, &number.to_le_bytes());
        put(&mut bytes, side + copy::SIDE_DOMAIN, &domain.to_le_bytes());
        put(&mut bytes, side + copy::SIDE_OFFSET, &offset.to_le_bytes());
    }
    put(&mut bytes, copy::LENGTH, &length.to_le_bytes());
    put(&mut bytes, copy::FLAGS, &flags.to_le_bytes());
    put(&mut bytes, copy::STATUS, &77i16.to_le_bytes());
    bytes
}

fn copied(from: End, to: End, length: u16) -> i16 {
    let mut arguments = [argument(from, to, length)];
    let result = grant_table_op(cmd::COPY, &mut arguments);
    assert!(result == 0, "copy: {result}");
    half(&arguments[0], copy::STATUS)
}

/// A copy that a peer asks for, by its third page. Its code is 32-bit code, and so is its argument.
fn copied_by(peer: &Peer, from: End, to: End, length: u16) -> i16 {
    let wide = argument(from, to, length);
    let mut narrow = [0; copy::SIZE_NARROW];
    for &(to, from, size) in copy::NARROW {
        put(&mut narrow, to, &wide[from..from + size]);
    }
    peer.fill(3, &narrow);
    let result = peer.grant_table_op(cmd::COPY, 3, 1);
    assert!(result == 0, "copy: {result}");
    peer.half(3, copy::STATUS_NARROW)
}

/// All of them, with one peer.
pub fn run() {
    let peer = Peer::new(0, DEFAULT);
    of_pages(&peer);
    of_parts_and_of_others(&peer);
    peer.close_window();
    peer.destroy();
    assert!(!exists(peer.id));
}

/// To and from a peer's pages, and everything that is refused.
fn of_pages(peer: &Peer) {
    let mine = |page: u64, offset| End::Page(own(page) / PAGE, SELF, offset);
    let granted = |grant, offset| End::Grant(grant, peer.id, offset);
    peer.table().grant(8, ME, peer.gfn(4), 0);
    peer.table().grant(9, ME, peer.gfn(5), entry::READ_ONLY);
    peer.table().grant(10, ME, 0x9999, 0);
    write(own(0), 0x0102_0304);
    write(own(0) + 4, 0x0506_0708);
    assert!(copied(mine(0, 0), granted(8, 4088), 8) == OKAY);
    assert!(read(peer.window(4) + 4088) == 0x0102_0304);
    assert!(read(peer.window(4) + 4092) == 0x0506_0708);
    assert!(copied(granted(8, 4089), mine(1, 0), 7) == OKAY);
    assert!(read(own(1)) == 0x0801_0203 && read(own(1) + 4) & 0xFF_FFFF == 0x05_0607);
    // One call, the same page again and again, one bad element among them.
    let mut many: [_; 24] = core::array::from_fn(|index| {
        let grant = if index == 5 { 11 } else { 8 };
        argument(
            mine(0, 0),
            granted(grant, index as u16 * 16),
            if index == 6 { 0 } else { 8 },
        )
    });
    assert!(grant_table_op(cmd::COPY, &mut many) == 0);
    for (index, element) in many.iter().enumerate() {
        let expected = if index == 5 {
            status(Status::GeneralError)
        } else {
            OKAY
        };
        assert!(half(element, copy::STATUS) == expected, "element {index}");
        let arrived = read(peer.window(4) + index as u64 * 16);
        let wanted = if index == 5 || index == 6 {
            0
        } else {
            0x0102_0304
        };
        assert!(arrived == wanted, "element {index}: {arrived:#x}");
    }
    assert!(copied(granted(9, 0), mine(1, 0), 4096) == OKAY);

    for (from, to, length, expected) in [
        (mine(0, 0), granted(8, 4089), 8, Status::BadCopyArg),
        (mine(0, 1), granted(8, 0), 4096, Status::BadCopyArg),
        (mine(0, 0), granted(9, 0), 8, Status::GeneralError),
        (granted(10, 0), mine(0, 0), 8, Status::BadPage),
        (granted(11, 0), mine(0, 0), 8, Status::GeneralError),
        (granted(512, 0), mine(0, 0), 8, Status::BadGntref),
        (End::Grant(8, 999, 0), mine(0, 0), 8, Status::BadDomain),
        (End::Grant(8, ME, 0), mine(0, 0), 8, Status::GeneralError),
        (
            End::Page(1, peer.id, 0),
            mine(0, 0),
            8,
            Status::PermissionDenied,
        ),
        (
            mine(0, 0),
            End::Page(hole(9) / PAGE, SELF, 0),
            8,
            Status::BadPage,
        ),
    ] {
        let got = copied(from, to, length);
        assert!(
            got == status(expected),
            "{from:?} to {to:?}, {length}: {got}, not {expected:?}"
        );
    }
    for grant in 8..12 {
        assert!(peer.table().marks(grant) == 0, "grant {grant} stays in use");
    }
    passed("copies");
}

/// Version 2: parts of pages, and what a domain grants to this one, granted on.
fn of_parts_and_of_others(peer: &Peer) {
    let own_place = |page: u64, offset| End::Page(own(page) / PAGE, SELF, offset);
    let peers = |offset| End::Page(peer.gfn(6), SELF, offset);
    OWN.grant(2, peer.id, own(2) / PAGE, 0);
    set_version(2);
    set_up_statuses();
    // The reserved entry came along.
    write(own(2), 0x1234);
    assert!(copied_by(peer, End::Grant(2, ME, 0), peers(0), 4) == OKAY);
    assert!(read(peer.window(6)) == 0x1234);

    let part = entry::PERMIT_ACCESS | entry::SUB_PAGE;
    let frame = (own(3) / PAGE) as u32;
    write_version_2(8, part, peer.id, 64 | 32 << 16, frame);
    write(own(3) + 64, 0x6464);
    for (offset, length, expected) in [
        (64, 32, Status::Okay),
        (80, 16, Status::Okay),
        (60, 8, Status::GeneralError),
        (80, 17, Status::GeneralError),
    ] {
        let got = copied_by(peer, End::Grant(8, ME, offset), peers(0), length);
        assert!(got == status(expected), "part at {offset}: {got}");
    }
    peer.store(peer.page(6), 0);
    assert!(copied_by(peer, End::Grant(8, ME, 64), peers(0), 4) == OKAY);
    assert!(peer.load(peer.page(6)) == 0x6464 && status_version_2(8) == 0);

    // The peer's page, which this domain may use, which lets the peer use it in turn.
    peer.table().grant(8, ME, peer.gfn(7), entry::READ_ONLY);
    write(peer.window(7), 0x7007);
    write_version_2(9, entry::TRANSITIVE, peer.id, peer.id.into(), 8);
    assert!(copied_by(peer, End::Grant(9, ME, 0), peers(0), 4) == OKAY);
    assert!(peer.load(peer.page(6)) == 0x7007);
    assert!(peer.table().marks(8) == 0 && status_version_2(9) == 0);
    // Not for writing; not by way of two; not to itself; not to nobody.
    let general = status(Status::GeneralError);
    assert!(copied_by(peer, peers(0), End::Grant(9, ME, 0), 4) == general);
    for (domain, grant, expected) in [
        (ME, 8, Status::GeneralError),
        (999, 8, Status::GeneralError),
        (peer.id, 100, Status::GeneralError),
        (peer.id, 512, Status::BadGntref),
    ] {
        write_version_2(9, entry::TRANSITIVE, peer.id, domain.into(), grant);
        let got = copied_by(peer, End::Grant(9, ME, 0), peers(0), 4);
        assert!(got == status(expected), "via {domain} {grant}: {got}");
    }
    // Neither can be mapped.
    write_version_2(8, part, ME, 64 | 32 << 16, frame);
    write_version_2(9, entry::TRANSITIVE, ME, peer.id.into(), 8);
    for grant in [8, 9] {
        assert!(map_grant(ME, grant, hole(0), 2).0 == general);
    }
    // A whole page can, and keeps the version as it is.
    write_version_2(8, entry::PERMIT_ACCESS, ME, 0, frame);
    let (mapped, handle) = map_grant(ME, 8, hole(0), 2);
    assert!(mapped == OKAY && read(hole(0) + 64) == 0x6464);
    assert!(status_version_2(8) == entry::READING | entry::WRITING);
    let mut version = [1u32.to_le_bytes()];
    let result = grant_table_op(cmd::SET_VERSION, &mut version);
    assert!(result == error(Errno::Busy) && version == [2u32.to_le_bytes()]);
    assert!(unmap_grant(handle, hole(0)) == OKAY && status_version_2(8) == 0);
    set_version(1);
    assert!(copied(own_place(0, 0), own_place(1, 0), 8) == OKAY);
    OWN.revoke(2);
    passed("parts and grants of grants");
}

fn set_version(version: u32) {
    let mut argument = [version.to_le_bytes()];
    let result = grant_table_op(cmd::SET_VERSION, &mut argument);
    assert!(result == 0, "set_version {version}: {result}");
}
