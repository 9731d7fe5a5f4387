//! `memory_op`: the caller's own memory.

use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::memory::{GRANT_STATUS_INDEX, MAX_ORDER_CONTROL, MAX_ORDER_GUEST, cmd, space};
use oxen_core::address::{Gfn, Mfn};
use oxen_core::memory::p2m::{Kind, MapError};

use super::arguments::{Argument, own_domain, read_bytes, write_bytes};
use super::{Arguments, Outcome, grants, unknown_operation};
use crate::domain::Domain;
use crate::memory::frames;
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command.
pub fn memory_op<H: Vcpu>(vcpu: &mut Running<H>, &[command, pointer, ..]: &Arguments) -> Outcome {
    let start = command >> cmd::SHIFT;
    match command & cmd::MASK {
        cmd::ADD_TO_PHYSMAP => add_to_physmap(vcpu, pointer),
        cmd::REMOVE_FROM_PHYSMAP => remove_from_physmap(vcpu, pointer),
        cmd::DECREASE_RESERVATION => each_extent(vcpu, pointer, start, release),
        cmd::POPULATE_PHYSMAP => each_extent(vcpu, pointer, start, populate),
        cmd::MEMORY_MAP => memory_map(vcpu, pointer),
        cmd::CURRENT_RESERVATION | cmd::MAXIMUM_RESERVATION => {
            own_domain(vcpu, Argument::<2>::read(vcpu, pointer)?.u16(0))?;
            Ok(vcpu.domain.own.lock().total() >> 12)
        }
        cmd::MAXIMUM_RAM_PAGE => Ok(frames::usage().1),
        cmd::MAXIMUM_GPFN => {
            own_domain(vcpu, Argument::<2>::read(vcpu, pointer)?.u16(0))?;
            let last = vcpu
                .domain
                .own
                .lock()
                .iter()
                .last()
                .map_or(0, |range| range.end);
            Ok((last >> 12).saturating_sub(1))
        }
        other => unknown_operation(&UNKNOWN, "memory_op", other),
    }
}

fn add_to_physmap<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<24>::read(vcpu, pointer)?;
    own_domain(vcpu, argument.u16(0))?;
    let (index, gfn) = (argument.u64(8), Gfn(argument.u64(16)));
    match argument.u32(4) {
        space::SHARED_INFO if index == 0 => vcpu.domain.map_shared_info(gfn).map_err(errno)?,
        space::GRANT_TABLE if index & GRANT_STATUS_INDEX == 0 => {
            let frame = grants::frame(vcpu, index)?;
            vcpu.domain.map_shared(gfn, frame).map_err(errno)?;
        }
        _ => return Err(Errno::Inval),
    }
    Ok(0)
}

fn remove_from_physmap<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, pointer)?;
    own_domain(vcpu, argument.u16(0))?;
    let gfn = Gfn(argument.u64(8));
    let mut p2m = vcpu.domain.p2m.lock();
    p2m.lookup(gfn).ok_or(Errno::NoEnt)?;
    p2m.unmap(gfn, 1).map_err(errno)?;
    Ok(0)
}

fn memory_map<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    const ENTRY: usize = 20;
    let mut argument = Argument::<16>::read(vcpu, pointer)?;
    let map = vcpu.domain.memory_map.get().ok_or(Errno::NoSys)?;
    let capacity = argument.u32(0) as usize;
    let buffer = argument.u64(8);
    for (index, entry) in map.iter().take(capacity).enumerate() {
        let mut bytes = [0; ENTRY];
        bytes[0..8].copy_from_slice(&entry.range.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&(entry.range.end - entry.range.start).to_le_bytes());
        bytes[16..20].copy_from_slice(&entry.kind.to_le_bytes());
        write_bytes(vcpu, buffer.wrapping_add((index * ENTRY) as u64), &bytes)?;
    }
    argument.set_u32(0, map.len().min(capacity) as u32);
    argument.write(vcpu, pointer).map(|()| 0)
}

/// Applies an operation to each extent of a reservation; the result is the number done before the first that fails.
fn each_extent<H: Vcpu>(
    vcpu: &Running<H>,
    pointer: u64,
    start: u64,
    operation: fn(&Domain, Gfn, u64) -> Result<(), MapError>,
) -> Outcome {
    let argument = Argument::<32>::read(vcpu, pointer)?;
    own_domain(vcpu, argument.u16(24))?;
    let (list, count, order) = (argument.u64(0), argument.u64(8), argument.u32(16));
    let largest = if vcpu.domain.privileged {
        MAX_ORDER_CONTROL
    } else {
        MAX_ORDER_GUEST
    };
    if order > largest || start > count {
        return Err(Errno::Inval);
    }
    for extent in start..count {
        let mut bytes = [0; 8];
        let at = list.wrapping_add(extent.wrapping_mul(8));
        let done = read_bytes(vcpu, at, &mut bytes).is_ok()
            && operation(&vcpu.domain, Gfn(u64::from_le_bytes(bytes)), 1 << order).is_ok();
        if !done {
            return Ok(extent);
        }
    }
    Ok(count)
}

/// Takes frames from the domain: a hole stays, and the machine has the frames back. Not those that events are written to.
fn release(domain: &Domain, gfn: Gfn, count: u64) -> Result<(), MapError> {
    for frame in gfn.0..gfn.0.saturating_add(count) {
        let event_pages = domain.event_pages.lock();
        let mut p2m = domain.p2m.lock();
        let mapping = p2m
            .lookup(Gfn(frame))
            .filter(|mapping| mapping.kind == Kind::Ram)
            .filter(|mapping| !event_pages.contains(mapping.frame))
            .ok_or(MapError::BeyondMap)?;
        p2m.unmap(Gfn(frame), 1)?;
        drop(p2m);
        domain.own.lock().remove(frame << 12..(frame + 1) << 12);
        frames::give_back(mapping.frame);
    }
    Ok(())
}

/// Gives frames to the domain. The control domain is mapped one to one: it gets the very frame or none.
fn populate(domain: &Domain, gfn: Gfn, count: u64) -> Result<(), MapError> {
    for frame in gfn.0..gfn.0.saturating_add(count) {
        if domain.p2m.lock().lookup(Gfn(frame)).is_some() || !frames::take_zeroed(Mfn(frame)) {
            return Err(MapError::OutOfMemory);
        }
        domain
            .p2m
            .lock()
            .map(Gfn(frame), Mfn(frame), 1, Kind::Ram)?;
        domain.own.lock().insert(frame << 12..(frame + 1) << 12);
    }
    Ok(())
}

const fn errno(error: MapError) -> Errno {
    match error {
        MapError::OutOfMemory => Errno::NoMem,
        MapError::BeyondMap => Errno::Inval,
    }
}
