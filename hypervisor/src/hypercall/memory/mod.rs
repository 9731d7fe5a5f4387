//! `memory_op`: a domain's memory, for itself and for the control domain.

mod physmap;
mod reservation;

use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::memory::{MEMORY_MAP_NARROW, MEMORY_MAP_SIZE, cmd};
use oxen_core::memory::ranges::MapEntry;

use super::arguments::{Argument, target_domain, write_bytes};
use super::{Arguments, Outcome, settings, unknown_operation};
use crate::memory::frames;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// Bytes of a memory map's entry (`struct e820entry`; ACPI, 15.1).
const ENTRY: usize = 20;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command.
pub fn memory_op<H: Vcpu>(vcpu: &mut Running<H>, &[command, pointer, ..]: &Arguments) -> Outcome {
    let start = command >> cmd::SHIFT;
    match command & cmd::MASK {
        cmd::ADD_TO_PHYSMAP => physmap::add(vcpu, pointer),
        cmd::ADD_TO_PHYSMAP_BATCH => physmap::add_batch(vcpu, pointer, start),
        cmd::REMOVE_FROM_PHYSMAP => physmap::remove(vcpu, pointer),
        cmd::ACQUIRE_RESOURCE => physmap::acquire_resource(vcpu, pointer),
        cmd::DECREASE_RESERVATION => reservation::decrease(vcpu, pointer, start),
        cmd::POPULATE_PHYSMAP => reservation::populate(vcpu, pointer, start),
        cmd::CLAIM_PAGES => reservation::claim(vcpu, pointer),
        cmd::SET_POD_TARGET | cmd::GET_POD_TARGET => settings::pod_target(vcpu, pointer),
        cmd::MEMORY_MAP => memory_map(vcpu, pointer),
        cmd::SET_MEMORY_MAP => set_memory_map(vcpu, pointer),
        cmd::CURRENT_RESERVATION | cmd::MAXIMUM_RESERVATION => {
            let domain = target_domain(vcpu, Argument::<2>::read(vcpu, pointer)?.u16(0))?;
            Ok(domain.own.lock().total() >> 12)
        }
        // Domains share no pages.
        cmd::GET_SHARING_FREED_PAGES | cmd::GET_SHARING_SHARED_PAGES => Ok(0),
        cmd::MAXIMUM_RAM_PAGE => Ok(frames::end().0),
        cmd::MAXIMUM_GPFN => {
            let domain = target_domain(vcpu, Argument::<2>::read(vcpu, pointer)?.u16(0))?;
            let last = domain.own.lock().iter().last().map_or(0, |range| range.end);
            Ok((last >> 12).saturating_sub(1))
        }
        other => unknown_operation(&UNKNOWN, "memory_op", other),
    }
}

fn memory_map<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<MEMORY_MAP_SIZE>::read_either(vcpu, pointer, MEMORY_MAP_NARROW)?;
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
    let count = map.len().min(capacity) as u32;
    write_bytes(vcpu, pointer, &count.to_le_bytes()).map(|()| 0)
}

/// The map that a domain gets when it asks: set once, before it runs.
fn set_memory_map<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    const MOST: u32 = 128;
    let argument = Argument::<24>::read(vcpu, pointer)?;
    let domain = target_domain(vcpu, argument.u16(0))?;
    let (count, buffer) = (argument.u32(8), argument.u64(16));
    if domain.id == vcpu.domain.id {
        return Err(Errno::Perm);
    }
    if count > MOST {
        return Err(Errno::Inval);
    }
    let mut map = alloc::vec::Vec::new();
    map.try_reserve_exact(count as usize)
        .map_err(|_| Errno::NoMem)?;
    for index in 0..u64::from(count) {
        let entry = Argument::<ENTRY>::read(vcpu, buffer.wrapping_add(index * ENTRY as u64))?;
        let start = entry.u64(0);
        let end = start.checked_add(entry.u64(8)).ok_or(Errno::Inval)?;
        map.push(MapEntry {
            range: start..end,
            kind: entry.u32(16),
        });
    }
    if domain.memory_map.is_completed() {
        return Err(Errno::Exist);
    }
    domain.memory_map.call_once(|| map.into_boxed_slice());
    Ok(0)
}
