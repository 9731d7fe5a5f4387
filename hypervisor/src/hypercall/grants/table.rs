//! The granting side: the table itself.

use oxen_abi::Errno;
use oxen_abi::grant::{Status, setup};
use oxen_core::hypercall::Caller;
use oxen_core::id::{DomainId, GrantRef};

use super::super::Outcome;
use super::super::arguments::{Argument, target_domain, write_bytes};
use super::{Array, encode, table_owner};
use crate::domain::grants::zeroed_frame;
use crate::domain::registry;
use crate::vcpu::Running;
use crate::virt::Vcpu;

impl Array {
    /// For operations that take one element only.
    const fn is_one(&self) -> Result<(), Errno> {
        if self.count == 1 {
            Ok(())
        } else {
            Err(Errno::Inval)
        }
    }
}

/// `GNTTABOP_setup_table`: grows the table, and says where the domain has it mapped: a translated one does that itself.
pub fn set_up<H: Vcpu>(vcpu: &Running<H>, array: &Array) -> Outcome {
    array.is_one()?;
    let argument = Argument::<{ setup::SIZE }>::read_either(vcpu, array.pointer, setup::NARROW)?;
    let (count, list) = (argument.u32(setup::COUNT), argument.u64(setup::LIST));
    let width = if vcpu.is_64_bit() { 8 } else { 4 };
    let result = table_owner(vcpu, argument.u16(setup::DOMAIN)).and_then(|owner| {
        owner
            .grants
            .table()
            .grow(count, zeroed_frame)
            .map_err(|_| Status::GeneralError)?;
        for index in 0..count {
            let place = owner.grants.table().placed_at(index);
            let number = place.map_or(u64::MAX, |gfn| gfn.0).to_le_bytes();
            let at = list.wrapping_add(u64::from(index) * width as u64);
            write_bytes(vcpu, at, &number[..width]).map_err(|_| Status::BadVirtAddr)?;
        }
        Ok(())
    });
    // At the same place in both layouts.
    let status = array.pointer.wrapping_add(setup::STATUS as u64);
    write_bytes(vcpu, status, &encode(result).to_le_bytes()).map(|()| 0)
}

/// `GNTTABOP_query_size`.
pub fn query_size<H: Vcpu>(vcpu: &Running<H>, array: &Array) -> Outcome {
    array.is_one()?;
    let mut argument = array.read::<H, 16>(vcpu, 0)?;
    let result = table_owner(vcpu, argument.u16(0)).map(|owner| {
        let table = owner.grants.table();
        (table.frames(), table.limits().frames)
    });
    if let Ok((frames, limit)) = result {
        argument.set_u32(4, frames);
        argument.set_u32(8, limit);
    }
    argument.set_u16(12, encode(result.map(|_| ())));
    argument.write(vcpu, array.pointer).map(|()| 0)
}

/// `GNTTABOP_set_version`: the caller's own table; says which version holds, whatever came of it.
pub fn set_version<H: Vcpu>(vcpu: &Running<H>, array: &Array) -> Outcome {
    let mut argument = array.read::<H, 4>(vcpu, 0)?;
    let (result, version) = {
        let mut table = vcpu.domain.grants.table();
        let result = table.set_version(argument.u32(0), zeroed_frame);
        (result, table.version())
    };
    argument.set_u32(0, version);
    argument.write(vcpu, array.pointer)?;
    result.map(|()| 0)
}

/// `GNTTABOP_get_version`.
pub fn get_version<H: Vcpu>(vcpu: &Running<H>, array: &Array) -> Outcome {
    let mut argument = array.read::<H, 8>(vcpu, 0)?;
    let number = argument.u16(0);
    if DomainId(number) != DomainId::SELF && registry::get(DomainId(number)).is_none() {
        return Err(Errno::Srch);
    }
    let version = target_domain(vcpu, number)?.grants.table().version();
    argument.set_u32(4, version);
    argument.write(vcpu, array.pointer).map(|()| 0)
}

/// `GNTTABOP_swap_grant_ref`: in the caller's own table.
pub fn swap<H: Vcpu>(vcpu: &mut Running<H>, array: &Array) -> Outcome {
    const SIZE: usize = 12;
    let stretch = super::Stretch::begin();
    for index in 0..array.count {
        if index > 0 && stretch.is_over() {
            return array.go_on(vcpu, index, SIZE);
        }
        let mut argument = array.read::<H, SIZE>(vcpu, index)?;
        let (first, second) = (GrantRef(argument.u32(0)), GrantRef(argument.u32(4)));
        let result = vcpu.domain.grants.table().swap(first, second);
        argument.set_u16(8, encode(result));
        argument.write(vcpu, array.at(index, SIZE))?;
    }
    Ok(0)
}
