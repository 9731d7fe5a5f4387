//! A domain that maps one page here and there costs tables that stay: there is an end to that, and its own end returns them.

use oxen_abi::grant::{Status, cmd, map, unmap};

use crate::calls::{map_argument, status, unmap_argument};
use crate::memory::{PAGE, own};
use crate::peer::Peer;
use crate::table::OWN;

/// Of the peer's pages, the one with arguments.
const ARGUMENTS: u64 = 4;
const COUNT: u64 = 64;
/// The first place, which has its tables afterwards.
pub const SOME: u64 = 1 << 32;

/// Maps in ever new places until that is refused.
pub fn run(peer: &Peer) {
    const APART: u64 = 2 << 20;
    const ROUNDS: u64 = 20;
    OWN.grant(70, peer.id, own(0) / PAGE, 0);
    let mut refused = false;
    for round in 0..ROUNDS {
        let place = |index: u64| SOME + (round * COUNT + index) * APART;
        let arguments: [_; COUNT as usize] =
            core::array::from_fn(|index| map_argument(0, 70, place(index as u64), map::FLAG_HOST));
        peer.fill(ARGUMENTS, arguments.as_flattened());
        assert!(peer.grant_table_op(cmd::MAP_GRANT_REF, ARGUMENTS, COUNT as u32) == 0);
        let mapped = (0..COUNT as usize)
            .take_while(|index| {
                peer.half(ARGUMENTS, index * map::SIZE + map::STATUS) == status(Status::Okay)
            })
            .count();
        refused = mapped < COUNT as usize;
        let arguments: [_; COUNT as usize] = core::array::from_fn(|index| {
            let handle = peer.half(ARGUMENTS, index * map::SIZE + map::HANDLE);
            unmap_argument(handle as u32, place(index as u64))
        });
        peer.fill(ARGUMENTS, arguments[..mapped].as_flattened());
        assert!(peer.grant_table_op(cmd::UNMAP_GRANT_REF, ARGUMENTS, mapped as u32) == 0);
        for index in 0..mapped {
            let got = peer.half(ARGUMENTS, index * unmap::SIZE + unmap::STATUS);
            assert!(got == status(Status::Okay), "unmap {index}: {got}");
        }
        if refused {
            break;
        }
    }
    assert!(refused && OWN.marks(70) == 0);
    OWN.revoke(70);
}
