//! A domain that maps one page here and there: each costs a table of its map, to which there is an end, and which goes with the
//! page.

use oxen_abi::domctl;
use oxen_abi::grant::{Status, cmd, map, unmap};
use oxen_guest_runtime::domain::{domctl, free_pages};

use crate::calls::{map_argument, status, unmap_argument};
use crate::memory::{PAGE, own};
use crate::peer::Peer;
use crate::table::OWN;

/// Of the peer's pages, the one with arguments.
const ARGUMENTS: u64 = 4;
const COUNT: usize = 64;
/// Bytes that a table of the lowest level maps.
const APART: u64 = 2 << 20;
/// The first place.
pub const SOME: u64 = 1 << 32;
/// Tables that a domain may have where nobody says.
const DEFAULT_TABLES: u64 = 1024;

/// Maps in ever new places, and unmaps again.
pub fn run(peer: &Peer) {
    const ROUNDS: u64 = 20;
    OWN.grant(70, peer.id, own(0) / PAGE, 0);
    // More places than there may be tables; the first round leaves a list of handles.
    let mut free = 0;
    for round in 0..ROUNDS {
        let mapped = Mapped::from(peer, SOME + round * COUNT as u64 * APART);
        assert!(mapped.count == COUNT);
        mapped.end(peer);
        let now = free_pages();
        assert!(
            round == 0 || now == free,
            "{free} pages were free, {now} are now"
        );
        free = now;
    }
    // Where few tables may be, the mappings end; what was made in vain for the one that is refused is gone too.
    const FEW: u64 = 30;
    const FAR: u64 = 1 << 36;
    limit_tables(peer, FEW);
    let first = Mapped::from(peer, SOME);
    assert!((1..FEW as usize).contains(&first.count));
    assert!(Mapped::from(peer, FAR).count == 0);
    first.end(peer);
    let far = Mapped::from(peer, FAR);
    assert!(far.count == first.count);
    far.end(peer);
    limit_tables(peer, DEFAULT_TABLES);
    let now = free_pages();
    assert!(now == free, "{free} pages were free, {now} are in the end");
    assert!(OWN.marks(70) == 0);
    OWN.revoke(70);
}

fn limit_tables(peer: &Peer, tables: u64) {
    let bytes = tables * PAGE;
    let (result, ..) = domctl(
        domctl::cmd::SET_PAGING_MEMPOOL,
        peer.id,
        bytes.to_le_bytes(),
    );
    assert!(result == 0, "set_paging_mempool_size: {result}");
}

/// The same page at places a table's reach apart.
struct Mapped {
    first: u64,
    handles: [u32; COUNT],
    /// Places before the first one that was refused.
    count: usize,
}

impl Mapped {
    fn from(peer: &Peer, first: u64) -> Self {
        let arguments: [_; COUNT] =
            core::array::from_fn(|index| map_argument(0, 70, place(first, index), map::FLAG_HOST));
        peer.fill(ARGUMENTS, arguments.as_flattened());
        assert!(peer.grant_table_op(cmd::MAP_GRANT_REF, ARGUMENTS, COUNT as u32) == 0);
        let at = |index: usize, field| peer.half(ARGUMENTS, index * map::SIZE + field);
        let is_mapped = |index: &usize| at(*index, map::STATUS) == status(Status::Okay);
        let count = (0..COUNT).take_while(is_mapped).count();
        assert!((count..COUNT).all(|index| !is_mapped(&index)));
        Self {
            first,
            handles: core::array::from_fn(|index| at(index, map::HANDLE) as u32),
            count,
        }
    }

    fn end(&self, peer: &Peer) {
        let arguments: [_; COUNT] = core::array::from_fn(|index| {
            unmap_argument(self.handles[index], place(self.first, index))
        });
        peer.fill(ARGUMENTS, arguments[..self.count].as_flattened());
        assert!(peer.grant_table_op(cmd::UNMAP_GRANT_REF, ARGUMENTS, self.count as u32) == 0);
        for index in 0..self.count {
            let got = peer.half(ARGUMENTS, index * unmap::SIZE + unmap::STATUS);
            assert!(got == status(Status::Okay), "unmap {index}: {got}");
        }
    }
}

const fn place(first: u64, index: usize) -> u64 {
    first + index as u64 * APART
}
