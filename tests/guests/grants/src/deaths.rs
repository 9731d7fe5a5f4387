//! Domains that end while their pages are in use, or while they use others', in any order.

use oxen_abi::grant::{Status, cmd, entry, map};
use oxen_guest_runtime::domain::DEFAULT;

use crate::calls::{exists, map_argument, map_grant, status, unmap_grant};
use crate::memory::{PAGE, hole, own, read, write};
use crate::passed;
use crate::peer::Peer;
use crate::table::OWN;

const OKAY: i16 = status(Status::Okay);

/// It ends while this domain has its pages, and while it has this domain's.
pub fn peer_in_use() {
    let peer = Peer::new(0, DEFAULT);
    peer.table().grant(8, 0, peer.gfn(9), 0);
    peer.table().grant(9, 0, peer.gfn(10), 0);
    write(peer.window(9), 0x9009);
    write(peer.window(10), 0xA00A);
    let (first, one) = map_grant(peer.id, 8, hole(0), map::FLAG_HOST);
    let (second, other) = map_grant(peer.id, 9, hole(1), map::FLAG_HOST);
    assert!((first, second) == (OKAY, OKAY));
    OWN.grant(60, peer.id, own(0) / PAGE, 0);
    peer.fill(2, &map_argument(0, 60, 0x80_0000, map::FLAG_HOST));
    assert!(peer.grant_table_op(cmd::MAP_GRANT_REF, 2, 1) == 0);
    assert!(peer.half(2, map::STATUS) == OKAY);
    assert!(OWN.marks(60) == entry::READING | entry::WRITING);
    peer.destroy();
    // Its mapping has gone, ours are there, and so are its pages.
    assert!(OWN.marks(60) == 0 && exists(peer.id));
    write(hole(0) + 4, 0x4004);
    assert!(read(peer.window(9)) == 0x9009 && read(peer.window(9) + 4) == 0x4004);
    // It grants nothing any more.
    let (refused, _) = map_grant(peer.id, 10, hole(2), map::FLAG_HOST);
    assert!(refused != OKAY);
    peer.close_window();
    assert!(exists(peer.id) && read(hole(0)) == 0x9009 && read(hole(1)) == 0xA00A);
    assert!(unmap_grant(one, hole(0)) == OKAY);
    assert!(exists(peer.id) && read(hole(1)) == 0xA00A);
    assert!(unmap_grant(other, hole(1)) == OKAY);
    assert!(!exists(peer.id));
    OWN.revoke(60);
    passed("end of a peer in use");
}

/// Two others: who grants ends first, and who uses does.
pub fn in_both_orders() {
    for granter_first in [true, false] {
        let granter = Peer::new(0, DEFAULT);
        let user = Peer::new(1, DEFAULT);
        granter.table().grant(8, user.id, granter.gfn(9), 0);
        write(granter.window(9), 0xB00B);
        let place = 0x80_0000;
        user.fill(2, &map_argument(granter.id, 8, place, map::FLAG_HOST));
        assert!(user.grant_table_op(cmd::MAP_GRANT_REF, 2, 1) == 0);
        assert!(user.half(2, map::STATUS) == OKAY && user.load(place) == 0xB00B);
        granter.close_window();
        if granter_first {
            granter.destroy();
            assert!(exists(granter.id));
            user.store(place + 4, 0xC00C);
            assert!(user.load(place) == 0xB00B && user.load(place + 4) == 0xC00C);
            user.close_window();
            user.destroy();
        } else {
            user.close_window();
            user.destroy();
            assert!(!exists(user.id) && exists(granter.id));
            granter.destroy();
        }
        assert!(!exists(granter.id) && !exists(user.id));
    }
    passed("ends in both orders");
}
