//! Grants in the caller's guest-physical map.

use oxen_abi::Errno;
use oxen_abi::grant::{Status, map as layout, unmap as unmap_layout};
use oxen_core::address::GuestPhys;
use oxen_core::id::{DomainId, GrantHandle, GrantRef};

use super::super::Outcome;
use super::super::arguments::{Argument, write_bytes};
use super::{Array, Stretch, encode};
use crate::domain::grants::UnmappedList;
use crate::domain::registry;
use crate::vcpu::Running;
use crate::vcpu::counters::GrantWork;
use crate::virt::Vcpu;

/// `GNTTABOP_map_grant_ref`.
pub fn map<H: Vcpu>(vcpu: &mut Running<H>, array: &Array) -> Outcome {
    let stretch = Stretch::begin();
    for index in 0..array.count {
        if index > 0 && stretch.is_over() {
            return array.go_on(vcpu, index, layout::SIZE);
        }
        let mut argument = array.read::<H, { layout::SIZE }>(vcpu, index)?;
        let result = map_one(vcpu, &mut argument);
        if result.is_ok() {
            vcpu.shared().counters.grant(GrantWork::Map);
        }
        argument.set_u16(layout::STATUS, encode(result));
        argument.write(vcpu, array.at(index, layout::SIZE))?;
    }
    Ok(0)
}

fn map_one<H: Vcpu>(
    vcpu: &Running<H>,
    argument: &mut Argument<{ layout::SIZE }>,
) -> Result<(), Status> {
    /// A translated domain sees no machine frames: nothing of its is mapped for devices or by page-table entry.
    const REFUSED: u32 = layout::FLAG_DEVICE | layout::FLAG_APPLICATION | layout::FLAG_CONTAINS_PTE;
    let flags = argument.u32(layout::FLAGS);
    if flags & (layout::FLAG_HOST | layout::FLAG_DEVICE) == 0 {
        return Err(Status::BadGntref);
    }
    if flags & REFUSED != 0 {
        return Err(Status::GeneralError);
    }
    let owner = DomainId(argument.u16(layout::DOMAIN));
    let owner = registry::get(owner).ok_or(Status::BadDomain)?;
    let (handle, frame) = vcpu.domain.map_grant(
        &owner,
        GrantRef(argument.u32(layout::GRANT)),
        GuestPhys(argument.u64(layout::ADDRESS)).frame(),
        flags & layout::FLAG_READ_ONLY == 0,
        flags & !(layout::FLAG_HOST | layout::FLAG_READ_ONLY) != 0,
    )?;
    argument.set_u32(layout::HANDLE, handle.0);
    argument.set_u64(layout::BUS_ADDRESS, frame.address().0);
    Ok(())
}

/// `GNTTABOP_unmap_grant_ref`. What CPUs remember of the mappings is dropped once for many of them.
pub fn unmap<H: Vcpu>(vcpu: &mut Running<H>, array: &Array) -> Outcome {
    let stretch = Stretch::begin();
    let mut list = UnmappedList::new();
    for index in 0..array.count {
        if index > 0 && stretch.is_over() {
            vcpu.domain.finish_unmaps(&mut list);
            return array.go_on(vcpu, index, unmap_layout::SIZE);
        }
        vcpu.shared().counters.grant(GrantWork::Unmap);
        let result = unmap_one(vcpu, array, index, &mut list);
        if list.is_full() || result.is_err() {
            vcpu.domain.finish_unmaps(&mut list);
        }
        result?;
    }
    vcpu.domain.finish_unmaps(&mut list);
    Ok(0)
}

fn unmap_one<H: Vcpu>(
    vcpu: &Running<H>,
    array: &Array,
    index: u32,
    list: &mut UnmappedList,
) -> Result<(), Errno> {
    let argument = array.read::<H, { unmap_layout::SIZE }>(vcpu, index)?;
    let unmapped = vcpu.domain.unmap_grant(
        GrantHandle(argument.u32(unmap_layout::HANDLE)),
        GuestPhys(argument.u64(unmap_layout::ADDRESS)),
    );
    let result = unmapped.map(|unmapped| list.extend(unmapped));
    let status = array
        .at(index, unmap_layout::SIZE)
        .wrapping_add(unmap_layout::STATUS as u64);
    write_bytes(vcpu, status, &encode(result).to_le_bytes())
}
