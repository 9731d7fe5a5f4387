//! What is mapped where in a domain besides its RAM: shared pages, grant tables, pages of other domains.

use oxen_abi::Errno;
use oxen_abi::memory::{
    ADD_TO_PHYSMAP_NARROW, ADD_TO_PHYSMAP_SIZE, GRANT_STATUS_INDEX, REMOVE_FROM_PHYSMAP_NARROW,
    REMOVE_FROM_PHYSMAP_SIZE, cmd, resource, space,
};
use oxen_core::address::Gfn;
use oxen_core::memory::p2m::Kind;

use super::super::arguments::{Argument, own_domain, read_bytes, target_domain, write_bytes};
use super::super::{Outcome, set_argument};
use crate::time::Stretch;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// `XENMEM_add_to_physmap`.
pub fn add<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument =
        Argument::<ADD_TO_PHYSMAP_SIZE>::read_either(vcpu, pointer, ADD_TO_PHYSMAP_NARROW)?;
    own_domain(vcpu, argument.u16(0))?;
    let (index, gfn) = (argument.u64(8), Gfn(argument.u64(16)));
    match argument.u32(4) {
        space::SHARED_INFO if index == 0 => vcpu.domain.map_shared_info(gfn)?,
        space::GRANT_TABLE => vcpu.domain.map_grant_frame(gfn, index)?,
        _ => return Err(Errno::Inval),
    }
    Ok(0)
}

/// `XENMEM_add_to_physmap_batch`: pages of another domain, each with a result of its own. A long list is worked off in
/// stretches, with the place to go on in the command.
pub fn add_batch<H: Vcpu>(vcpu: &mut Running<H>, pointer: u64, start: u64) -> Outcome {
    let argument = Argument::<32>::read(vcpu, pointer)?;
    own_domain(vcpu, argument.u16(0))?;
    if u32::from(argument.u16(2)) != space::GMFN_FOREIGN {
        return Err(Errno::Inval);
    }
    if !vcpu.domain.privileged {
        return Err(Errno::Perm);
    }
    let owner = target_domain(vcpu, argument.u16(6))?;
    if owner.id == vcpu.domain.id {
        return Err(Errno::Inval);
    }
    let (pages, places, errors) = (argument.u64(8), argument.u64(16), argument.u64(24));
    let stretch = Stretch::begin();
    for index in start..u64::from(argument.u16(4)) {
        if index > start && stretch.is_over() {
            set_argument(vcpu, 0, cmd::ADD_TO_PHYSMAP_BATCH | index << cmd::SHIFT);
            return Err(Errno::Restart);
        }
        let word = |list: u64| -> Result<Gfn, Errno> {
            let mut bytes = [0; 8];
            read_bytes(vcpu, list.wrapping_add(index * 8), &mut bytes)?;
            Ok(Gfn(u64::from_le_bytes(bytes)))
        };
        let result = vcpu
            .domain
            .map_foreign(word(places)?, &owner, word(pages)?)
            .map_or_else(|error| error.encode() as i32, |()| 0);
        let at = errors.wrapping_add(index * 4);
        write_bytes(vcpu, at, &result.to_le_bytes())?;
    }
    Ok(0)
}

/// `XENMEM_remove_from_physmap`.
pub fn remove<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<REMOVE_FROM_PHYSMAP_SIZE>::read_either(
        vcpu,
        pointer,
        REMOVE_FROM_PHYSMAP_NARROW,
    )?;
    own_domain(vcpu, argument.u16(0))?;
    let gfn = Gfn(argument.u64(8));
    let kind = vcpu.domain.p2m.lock().lookup(gfn).ok_or(Errno::NoEnt)?.kind;
    match kind {
        Kind::Foreign => vcpu.domain.unmap_foreign(gfn)?,
        // Grants have an operation of their own.
        Kind::Grant | Kind::GrantReadOnly => return Err(Errno::NoEnt),
        // RAM is given back by decreasing the reservation.
        Kind::Ram | Kind::RamReadOnly => return Err(Errno::Inval),
        _ => {
            let mut p2m = vcpu.domain.p2m.lock();
            p2m.unmap(gfn, 1)?;
        }
    }
    Ok(0)
}

/// `XENMEM_acquire_resource`: frames of another domain's grant table, mapped where the caller says.
pub fn acquire_resource<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<32>::read(vcpu, pointer)?;
    let owner = target_domain(vcpu, argument.u16(0))?;
    if !vcpu.domain.privileged || owner.id == vcpu.domain.id {
        return Err(Errno::Perm);
    }
    if argument.u16(2) != resource::GRANT_TABLE {
        return Err(Errno::OpNotSupp);
    }
    let (of_entries, of_statuses) = owner.grants.table().resource_frames();
    let (space, most) = match argument.u32(4) {
        resource::GRANT_SHARED => (0, of_entries),
        resource::GRANT_STATUS => (GRANT_STATUS_INDEX, of_statuses),
        _ => return Err(Errno::Inval),
    };
    let (count, first, list) = (argument.u32(8), argument.u64(16), argument.u64(24));
    if argument.u32(12) != 0 || most == 0 {
        return Err(Errno::Inval);
    }
    if list == 0 {
        if count != 0 {
            return Err(Errno::Inval);
        }
        argument.set_u32(8, most);
        return argument.write(vcpu, pointer).map(|()| 0);
    }
    let end = first.checked_add(count.into()).ok_or(Errno::Inval)?;
    if count == 0 || end > most.into() {
        return Err(Errno::Inval);
    }
    for index in first..end {
        let frame = owner.grant_frame(space | index)?;
        let mut bytes = [0; 8];
        read_bytes(vcpu, list.wrapping_add((index - first) * 8), &mut bytes)?;
        let place = Gfn(u64::from_le_bytes(bytes));
        vcpu.domain.map_resource(place, &owner, frame)?;
    }
    Ok(0)
}
