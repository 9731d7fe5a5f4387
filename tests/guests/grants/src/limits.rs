//! What a domain is made with, and what tables say of themselves.

use oxen_abi::Errno;
use oxen_abi::grant::{HANDLES_PER_FRAME, Status, cmd, map};
use oxen_guest_runtime::bytes::{long, put, word};
use oxen_guest_runtime::domain::{self, Limits};

use crate::calls::{SELF, error, exists, grant_table_op, half, map_argument, status};
use crate::memory::{PAGE, own};
use crate::passed;
use crate::peer::Peer;
use crate::scatter;
use crate::table::OWN;

const OKAY: i16 = status(Status::Okay);

/// Status, frames, most frames.
fn size_of(domain: u16) -> (i16, u32, u32) {
    let mut arguments = [[0; 16]];
    put(&mut arguments[0], 0, &domain.to_le_bytes());
    let result = grant_table_op(cmd::QUERY_SIZE, &mut arguments);
    assert!(result == 0, "query_size: {result}");
    let [argument] = arguments;
    (half(&argument, 12), word(&argument, 4), word(&argument, 8))
}

/// Status of a table being set up, and where its first frame is.
fn set_up(domain: u16, frames: u32) -> (i16, u64) {
    let list = [0u64; 8];
    let mut arguments = [[0; 24]];
    put(&mut arguments[0], 0, &domain.to_le_bytes());
    put(&mut arguments[0], 4, &frames.to_le_bytes());
    put(&mut arguments[0], 16, &(list.as_ptr() as u64).to_le_bytes());
    let result = grant_table_op(cmd::SETUP_TABLE, &mut arguments);
    assert!(result == 0, "setup_table: {result}");
    // SAFETY: the hypervisor may have written it.
    let first = unsafe { list.as_ptr().read_volatile() };
    (half(&arguments[0], 8), first)
}

/// Limits hold, and are told.
pub fn run() {
    const FEW: Limits = Limits {
        frames: 4,
        maptrack_frames: 1,
        version: 1,
    };
    for bad in [
        Limits { frames: 65, ..FEW },
        Limits {
            maptrack_frames: 1025,
            ..FEW
        },
        Limits { version: 3, ..FEW },
    ] {
        assert!(domain::create(bad).0 == error(Errno::Inval));
    }
    let peer = Peer::new(0, FEW);
    assert!(size_of(peer.id) == (OKAY, 1, 4));
    let (own_status, own_frames, own_most) = size_of(SELF);
    assert!(own_status == OKAY && own_frames >= 1 && own_most == 64);
    assert!(size_of(999).0 == status(Status::BadDomain));
    assert!(set_up(peer.id, 3).0 == OKAY && size_of(peer.id) == (OKAY, 3, 4));
    assert!(set_up(peer.id, 5).0 == status(Status::GeneralError));
    assert!(set_up(999, 1).0 == status(Status::BadDomain));
    // This domain has mapped its table; the peer has not.
    assert!(set_up(SELF, 1) == (OKAY, OWN.0 / PAGE));
    assert!(set_up(peer.id, 1) == (OKAY, u64::MAX));
    let mut two = [[0; 16]; 2];
    assert!(grant_table_op(cmd::QUERY_SIZE, &mut two) == error(Errno::Inval));

    // What the peer may not: another's table, and version 2.
    let mut bytes = [0; 16];
    put(&mut bytes, 0, &0u16.to_le_bytes());
    peer.fill(2, &bytes);
    assert!(peer.grant_table_op(cmd::QUERY_SIZE, 2, 1) == 0);
    assert!(peer.half(2, 12) == status(Status::PermissionDenied));
    peer.fill(2, &2u32.to_le_bytes());
    let refused = peer.grant_table_op(cmd::SET_VERSION, 2, 1);
    assert!(i64::from(refused) == error(Errno::NoSys) && peer.half(2, 0) == 1);
    for (version, expected) in [(3, Errno::Inval), (0, Errno::Inval)] {
        let mut argument = [u32::to_le_bytes(version)];
        assert!(grant_table_op(cmd::SET_VERSION, &mut argument) == error(expected));
    }
    let mut version = [[0; 8]];
    put(&mut version[0], 0, &peer.id.to_le_bytes());
    assert!(grant_table_op(cmd::GET_VERSION, &mut version) == 0);
    assert!(long(&version[0], 0) >> 32 == 1);
    for command in [
        cmd::DUMP_TABLE,
        cmd::TRANSFER,
        cmd::UNMAP_AND_REPLACE,
        cmd::GET_STATUS_FRAMES,
        cmd::CACHE_FLUSH,
        13,
        1 << 12 | cmd::COPY,
    ] {
        assert!(grant_table_op(command, &mut [[0; 64]]) == error(Errno::NoSys));
    }
    swaps(&peer);
    scatter::run(&peer);
    handles(&peer);
    peer.close_window();
    peer.destroy();
    assert!(!exists(peer.id));
    passed("limits");
}

fn swaps(peer: &Peer) {
    OWN.grant(40, peer.id, 0x1234, 0);
    OWN.grant(41, 0, own(0) / PAGE, 0);
    let mut swap = [[0; 12]; 2];
    for (element, other) in swap.iter_mut().zip([41u32, 100_000]) {
        put(element, 0, &40u32.to_le_bytes());
        put(element, 4, &other.to_le_bytes());
    }
    assert!(grant_table_op(cmd::SWAP_GRANT_REF, &mut swap) == 0);
    let statuses = swap.map(|element| half(&element, 8));
    assert!(statuses == [OKAY, status(Status::BadGntref)]);
    let (mapped, handle) = crate::calls::map_grant(0, 40, crate::memory::hole(0), 2);
    assert!(mapped == OKAY);
    assert!(grant_table_op(cmd::SWAP_GRANT_REF, &mut swap) == 0);
    assert!(half(&swap[0], 8) == status(Status::Again));
    assert!(crate::calls::unmap_grant(handle, crate::memory::hole(0)) == OKAY);
    OWN.revoke(40);
    OWN.revoke(41);
}

/// The peer maps as much as it may, and keeps it: its end takes all of it back.
fn handles(peer: &Peer) {
    const IN_PAGE: u32 = PAGE as u32 / map::SIZE as u32;
    for grant in 0..3 {
        OWN.grant(50 + grant, peer.id, own(grant.into()) / PAGE, 0);
    }
    for index in 0..HANDLES_PER_FRAME + 1 {
        let at = (index % IN_PAGE) as usize * map::SIZE;
        if at == 0 {
            peer.fill(4, &[0; PAGE as usize]);
        }
        let place = scatter::SOME + u64::from(index) * PAGE;
        let argument = map_argument(0, 50 + index % 3, place, map::FLAG_HOST);
        for (word_at, part) in argument.chunks_exact(4).enumerate() {
            let value = word(part, 0);
            crate::memory::write(peer.window(4) + (at + word_at * 4) as u64, value);
        }
        let last = index == HANDLES_PER_FRAME;
        if index % IN_PAGE == IN_PAGE - 1 || last {
            let count = index % IN_PAGE + 1;
            assert!(peer.grant_table_op(cmd::MAP_GRANT_REF, 4, count) == 0);
            for element in 0..count as usize {
                let got = peer.half(4, element * map::SIZE + map::STATUS);
                let expected = if last { Status::NoSpace } else { Status::Okay };
                assert!(got == status(expected), "handle {index}: {got}");
            }
        }
    }
}
