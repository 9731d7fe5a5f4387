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
        let first = SOME + round * COUNT as u64 * APART;
        assert!(map_from(peer, first) == COUNT);
        unmap_from(peer, first, COUNT);
        let now = free_pages();
        assert!(
            round == 0 || now == free,
            "{free} pages were free, {now} are now"
        );
        free = now;
    }
    // Where few tables may be, the mappings end; what was made in vain for the one that is refused is gone too.
    const FEW: u64 = 30;
    limit_tables(peer, FEW);
    let mapped = map_from(peer, SOME);
    assert!((1..FEW as usize).contains(&mapped), "{mapped} mapped");
    assert!(map_from(peer, SOME + (1 << 40)) == 0);
    unmap_from(peer, SOME, mapped);
    assert!(map_from(peer, SOME + (1 << 40)) > 0);
    unmap_from(peer, SOME + (1 << 40), mapped_of(peer));
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

fn place(first: u64, index: usize) -> u64 {
    first + index as u64 * APART
}

/// Maps one page at each of some places; returns how many before the first that was refused.
fn map_from(peer: &Peer, first: u64) -> usize {
    let arguments: [_; COUNT] =
        core::array::from_fn(|index| map_argument(0, 70, place(first, index), map::FLAG_HOST));
    peer.fill(ARGUMENTS, arguments.as_flattened());
    assert!(peer.grant_table_op(cmd::MAP_GRANT_REF, ARGUMENTS, COUNT as u32) == 0);
    mapped_of(peer)
}

/// How many were mapped before the first that was refused, by the arguments of the last call.
fn mapped_of(peer: &Peer) -> usize {
    let is_mapped = |index: usize| peer.half(ARGUMENTS, index * map::SIZE + map::STATUS);
    let is_mapped = |index: &usize| is_mapped(*index) == status(Status::Okay);
    let mapped = (0..COUNT).take_while(is_mapped).count();
    assert!((mapped..COUNT).all(|index| !is_mapped(&index)));
    mapped
}

/// Unmaps what [`map_from`] has mapped.
fn unmap_from(peer: &Peer, first: u64, mapped: usize) {
    let arguments: [_; COUNT] = core::array::from_fn(|index| {
        let handle = peer.half(ARGUMENTS, index * map::SIZE + map::HANDLE);
        unmap_argument(handle as u32, place(first, index))
    });
    peer.fill(ARGUMENTS, arguments[..mapped].as_flattened());
    assert!(peer.grant_table_op(cmd::UNMAP_GRANT_REF, ARGUMENTS, mapped as u32) == 0);
    for index in 0..mapped {
        let got = peer.half(ARGUMENTS, index * unmap::SIZE + unmap::STATUS);
        assert!(got == status(Status::Okay), "unmap {index}: {got}");
    }
}
