//! How much memory a domain has: populate, decrease, claim.

use oxen_abi::Errno;
use oxen_abi::memory::{MAX_ORDER_CONTROL, MAX_ORDER_GUEST, cmd};
use oxen_core::address::{Gfn, Mfn};
use oxen_core::memory::p2m::{Kind, MapError};

use super::super::arguments::{Argument, read_bytes, target_domain};
use super::super::{Outcome, set_argument};
use crate::domain::Domain;
use crate::memory::frames;
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// Largest extents when the control domain gives memory to another: 1 GiB.
const MAX_ORDER_BUILDER: u32 = 18;
/// How long a call may go on before others have a turn, in microseconds.
const STRETCH: u64 = 500;

type Operation = fn(&Domain, Gfn, u32) -> Result<(), MapError>;

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
    let argument = Argument::<32>::read(vcpu, pointer)?;
    let domain = target_domain(vcpu, argument.u16(24))?;
    let (list, count, order) = (argument.u64(0), argument.u64(8), argument.u32(16));
    let largest = match (vcpu.domain.privileged, domain.id == vcpu.domain.id) {
        (true, false) => MAX_ORDER_BUILDER,
        (true, true) => MAX_ORDER_CONTROL,
        (false, _) => MAX_ORDER_GUEST,
    };
    if order > largest || start > count || count >> (64 - cmd::SHIFT) != 0 {
        return Err(Errno::Inval);
    }
    let end = time::ticks() + time::khz() * STRETCH / 1000;
    for extent in start..count {
        if extent > start && time::ticks() > end {
            set_argument(vcpu, 0, command | extent << cmd::SHIFT);
            return Err(Errno::Restart);
        }
        let mut bytes = [0; 8];
        let at = list.wrapping_add(extent.wrapping_mul(8));
        let done = read_bytes(vcpu, at, &mut bytes).is_ok()
            && operation(&domain, Gfn(u64::from_le_bytes(bytes)), order).is_ok();
        if !done {
            return Ok(extent);
        }
    }
    Ok(count)
}

/// Takes frames from the domain: a hole stays, and the machine has the frames back. Not those that events are written to,
/// or that others use.
fn release(domain: &Domain, gfn: Gfn, order: u32) -> Result<(), MapError> {
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
    Ok(())
}

/// Gives frames to the domain, cleared.
fn give(domain: &Domain, gfn: Gfn, order: u32) -> Result<(), MapError> {
    if domain.privileged {
        return give_own(domain, gfn, order);
    }
    let count = 1 << order;
    let mut own = domain.own.lock();
    let within_limit = (own.total() >> 12) + count <= domain.life.max_pages();
    let range = gfn.0..gfn.0.checked_add(count).ok_or(MapError::BeyondMap)?;
    if !within_limit || domain.life.is_dying() || !range.start.is_multiple_of(count) {
        return Err(MapError::OutOfMemory);
    }
    own.reserve().map_err(|_| MapError::OutOfMemory)?;
    let mut p2m = domain.p2m.lock();
    if range.clone().any(|frame| p2m.lookup(Gfn(frame)).is_some()) {
        return Err(MapError::BeyondMap);
    }
    let first = frames::allocate_block_zeroed(order, &mut domain.control.claim.lock())
        .ok_or(MapError::OutOfMemory)?;
    if let Err(error) = p2m.map(gfn, first, count, Kind::Ram) {
        // What was mapped before memory for tables ran out goes again.
        let undone = p2m.unmap(gfn, count);
        if undone.is_ok() {
            frames::free(first, order);
        }
        return Err(error);
    }
    own.insert(gfn.bytes(count));
    Ok(())
}

/// The control domain is mapped one to one: it gets the very frames or none.
fn give_own(domain: &Domain, gfn: Gfn, order: u32) -> Result<(), MapError> {
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
    Ok(())
}
