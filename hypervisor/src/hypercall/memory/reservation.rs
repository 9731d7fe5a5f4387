//! How much memory a domain has: populate, decrease, claim.

use oxen_abi::Errno;
use oxen_abi::memory::{
    MAX_ORDER_CONTROL, MAX_ORDER_GUEST, RESERVATION_NARROW, RESERVATION_SIZE, cmd,
};
use oxen_core::address::{Gfn, Mfn};
use oxen_core::hypercall::Caller;
use oxen_core::memory::p2m::{Kind, MapError};
use oxen_core::memory::ranges::RangeSet;

use super::super::arguments::{Argument, read_bytes, target_domain};
use super::super::{Outcome, set_argument};
use crate::domain::Domain;
use crate::memory::frames::{self, Block};
use crate::time::Stretch;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// Largest extents when the control domain gives memory to another: 1 GiB.
const MAX_ORDER_BUILDER: u32 = 18;

/// What is done to an extent.
type Operation = fn(&Domain, Gfn, u32, &Stretch) -> Result<Done, MapError>;

/// Whether an extent is done with, or the call is to be made again for the rest of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    No,
}

/// `XENMEM_decrease_reservation`.
pub fn decrease<H: Vcpu>(vcpu: &mut Running<H>, pointer: u64, start: u64) -> Outcome {
    each_extent(vcpu, pointer, start, cmd::DECREASE_RESERVATION, release)
}

/// `XENMEM_populate_physmap`.
pub fn populate<H: Vcpu>(vcpu: &mut Running<H>, pointer: u64, start: u64) -> Outcome {
    each_extent(vcpu, pointer, start, cmd::POPULATE_PHYSMAP, give)
}

/// `XENMEM_claim_pages`: memory for a domain that is being built, kept from all others until it is populated, the claim is
/// taken back with 0, or the domain is destroyed.
pub fn claim<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<32>::read(vcpu, pointer)?;
    let domain = target_domain(vcpu, argument.u16(24))?;
    let (wanted, order) = (argument.u64(8), argument.u32(16));
    if !vcpu.domain.privileged {
        return Err(Errno::Perm);
    }
    let own = domain.own.lock();
    let is_builders = !domain.privileged && !domain.life.is_dying();
    if order != 0 || !is_builders || wanted > domain.life.max_pages() {
        return Err(Errno::Inval);
    }
    frames::claim(&mut domain.control.claim.lock(), wanted, own.total() >> 12).map(|()| 0)
}

/// Applies an operation to each extent of a reservation; the result is the number done before the first that fails. A long
/// list is worked off in stretches: the call is made again, with the place to go on in its command.
fn each_extent<H: Vcpu>(
    vcpu: &mut Running<H>,
    pointer: u64,
    start: u64,
    command: u64,
    operation: Operation,
) -> Outcome {
    let argument = Argument::<RESERVATION_SIZE>::read_either(vcpu, pointer, RESERVATION_NARROW)?;
    let width = if vcpu.is_64_bit() { 8 } else { 4 };
    let domain = target_domain(vcpu, argument.u16(24))?;
    let (list, count, order) = (argument.u64(0), argument.u64(8), argument.u32(16));
    let largest = match (vcpu.domain.privileged, domain.id == vcpu.domain.id) {
        (true, false) => MAX_ORDER_BUILDER,
        (true, true) => MAX_ORDER_CONTROL,
        (false, _) => MAX_ORDER_GUEST,
    };
    // Where a long list goes on must fit into the command, which has the caller's width.
    let bits = 8 * width as u32 - cmd::SHIFT;
    if order > largest || start > count || count >> bits != 0 {
        return Err(Errno::Inval);
    }
    let stretch = Stretch::begin();
    let mut extent = start;
    while extent < count {
        if extent > start && stretch.is_over() {
            set_argument(vcpu, 0, command | extent << cmd::SHIFT);
            return Err(Errno::Restart);
        }
        let mut bytes = [0; 8];
        let at = list.wrapping_add(extent.wrapping_mul(width as u64));
        if read_bytes(vcpu, at, &mut bytes[..width]).is_err() {
            return Ok(extent);
        }
        match operation(&domain, Gfn(u64::from_le_bytes(bytes)), order, &stretch) {
            Ok(Done::Yes) => extent += 1,
            Ok(Done::No) => {
                set_argument(vcpu, 0, command | extent << cmd::SHIFT);
                return Err(Errno::Restart);
            }
            Err(_) => return Ok(extent),
        }
    }
    Ok(count)
}

/// Takes frames from the domain: a hole stays, and the machine has the frames back. Not those that events are written to,
/// or that others use.
fn release(domain: &Domain, gfn: Gfn, order: u32, _: &Stretch) -> Result<Done, MapError> {
    for frame in gfn.0..gfn.0.saturating_add(1 << order) {
        let event_pages = domain.event_pages.lock();
        let mut own = domain.own.lock();
        let mut p2m = domain.p2m.lock();
        let mapping = p2m
            .lookup(Gfn(frame))
            .filter(|mapping| mapping.kind == Kind::Ram)
            .filter(|mapping| !event_pages.must_keep(mapping.frame))
            .ok_or(MapError::BeyondMap)?;
        own.reserve().map_err(|_| MapError::OutOfMemory)?;
        p2m.unmap(Gfn(frame), 1)?;
        own.remove(Gfn(frame).bytes(1));
        frames::give_back(mapping.frame);
    }
    Ok(Done::Yes)
}

/// Gives frames to the domain, cleared. A large extent is cleared over several calls.
fn give(domain: &Domain, gfn: Gfn, order: u32, stretch: &Stretch) -> Result<Done, MapError> {
    if domain.privileged {
        return give_own(domain, gfn, order);
    }
    let count = 1 << order;
    if gfn.0.checked_add(count).is_none() || !gfn.0.is_multiple_of(count) {
        return Err(MapError::BeyondMap);
    }
    let may_have = |own: &RangeSet| {
        (own.total() >> 12) + count <= domain.life.max_pages() && !domain.life.is_dying()
    };
    if !may_have(&domain.own.lock()) {
        return Err(MapError::OutOfMemory);
    }
    let begun = domain.control.clearing.lock().take();
    let begun = begun.filter(|(place, block)| (*place, block.order()) == (gfn, order));
    let mut block = match begun {
        Some((_, block)) => block,
        None => Block::new(order, &mut domain.control.claim.lock()).ok_or(MapError::OutOfMemory)?,
    };
    if !block.clear(stretch) {
        let other = domain.control.clearing.lock().replace((gfn, block));
        drop(other);
        return Ok(Done::No);
    }
    let mut own = domain.own.lock();
    own.reserve().map_err(|_| MapError::OutOfMemory)?;
    let mut p2m = domain.p2m.lock();
    if !may_have(&own) || !p2m.is_hole(gfn, count) {
        return Err(MapError::BeyondMap);
    }
    if let Err(error) = p2m.map(gfn, block.first(), count, Kind::Ram) {
        // What was mapped before memory for tables ran out goes again; a part that cannot is in use for good.
        if p2m.unmap(gfn, count).is_err() {
            block.give();
        }
        return Err(error);
    }
    own.insert(gfn.bytes(count));
    block.give();
    Ok(Done::Yes)
}

/// The control domain is mapped one to one: it gets the very frames or none.
fn give_own(domain: &Domain, gfn: Gfn, order: u32) -> Result<Done, MapError> {
    for frame in gfn.0..gfn.0.saturating_add(1 << order) {
        let mut own = domain.own.lock();
        let mut p2m = domain.p2m.lock();
        own.reserve().map_err(|_| MapError::OutOfMemory)?;
        if p2m.lookup(Gfn(frame)).is_some() || !frames::take_zeroed(Mfn(frame)) {
            return Err(MapError::OutOfMemory);
        }
        if let Err(error) = p2m.map(Gfn(frame), Mfn(frame), 1, Kind::Ram) {
            frames::give_back(Mfn(frame));
            return Err(error);
        }
        own.insert(Gfn(frame).bytes(1));
    }
    Ok(Done::Yes)
}
