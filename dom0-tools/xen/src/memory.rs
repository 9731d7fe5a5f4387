//! Memory of domains (memory_op).

use std::io;

use oxen_abi::memory::cmd;

use crate::layout;
use crate::plain::Plain;
use crate::privcmd::Privcmd;

const HYPERCALL_MEMORY_OP: u64 = oxen_abi::numbers::MEMORY_OP;
/// Bytes of an e820 entry: address u64, size u64, type u32, packed.
const E820_ENTRY: usize = 20;

/// `xen_memory_reservation`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Reservation {
    extents: u64,
    count: u64,
    order: u32,
    flags: u32,
    domain: u16,
    pad: [u16; 3],
}
layout!(Reservation, 32, count = 8, order = 16, domain = 24);

/// `xen_foreign_memory_map`.
#[derive(Clone, Copy)]
#[repr(C)]
struct ForeignMap {
    domain: u16,
    pad: [u16; 3],
    entries: u32,
    pad2: u32,
    buffer: u64,
}
layout!(ForeignMap, 24, entries = 8, buffer = 16);

/// `xen_add_to_physmap`.
#[derive(Clone, Copy)]
#[repr(C)]
struct AddToPhysmap {
    domain: u16,
    size: u16,
    space: u32,
    index: u64,
    gfn: u64,
}
layout!(AddToPhysmap, 24, space = 4, index = 8, gfn = 16);

/// `xen_remove_from_physmap`.
#[derive(Clone, Copy)]
#[repr(C)]
struct RemoveFromPhysmap {
    domain: u16,
    pad: [u16; 3],
    gfn: u64,
}
layout!(RemoveFromPhysmap, 16, gfn = 8);

/// `xen_pod_target`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct PodTarget {
    target: u64,
    total: u64,
    cache: u64,
    entries: u64,
    domain: u16,
    pad: [u16; 3],
}
layout!(PodTarget, 40, domain = 32);

/// A range of a guest's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// E820 type: 1 RAM, 2 reserved, 3 ACPI tables.
    pub kind: u32,
}

/// Gives a domain zeroed memory: an extent of 2^`order` pages at each of `gfns`. The number of extents done, which is fewer
/// than asked for if the machine has no more such extents or the domain reached its limit.
///
/// # Errors
/// The hypervisor's errno, if not even one could be tried.
pub fn populate_physmap(xen: &Privcmd, domid: u16, gfns: &[u64], order: u32) -> io::Result<usize> {
    reservation(xen, cmd::POPULATE_PHYSMAP, domid, gfns, order)
}

/// Takes extents away from a domain; the number done.
///
/// # Errors
/// The hypervisor's errno.
pub fn decrease_reservation(
    xen: &Privcmd,
    domid: u16,
    gfns: &[u64],
    order: u32,
) -> io::Result<usize> {
    reservation(xen, cmd::DECREASE_RESERVATION, domid, gfns, order)
}

fn reservation(xen: &Privcmd, cmd: u64, domid: u16, gfns: &[u64], order: u32) -> io::Result<usize> {
    if gfns.is_empty() {
        return Ok(0);
    }
    let extents = xen.buffer_of(gfns)?;
    let done = memory_op(
        xen,
        cmd,
        Reservation {
            extents: extents.address(),
            count: gfns.len() as u64,
            order,
            domain: domid,
            ..Reservation::default()
        },
    )?;
    usize::try_from(done)
        .ok()
        .filter(|&done| done <= gfns.len())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Keeps free memory for a domain that is being built: `pages` in all, those that it has already counted. 0 ends the claim.
///
/// # Errors
/// ENOMEM: there is not so much.
pub fn claim_pages(xen: &Privcmd, domid: u16, pages: u64) -> io::Result<()> {
    let claim = Reservation {
        count: pages,
        domain: domid,
        ..Reservation::default()
    };
    memory_op(xen, cmd::CLAIM_PAGES, claim).map(|_| ())
}

/// Sets the memory map that a domain is told (`XENMEM_memory_map`).
///
/// # Errors
/// E2BIG: too many entries.
pub fn set_memory_map(xen: &Privcmd, domid: u16, map: &[MemoryRange]) -> io::Result<()> {
    let mut buffer = xen.buffer(map.len() * E820_ENTRY)?;
    for (i, range) in map.iter().enumerate() {
        buffer.write(i * E820_ENTRY, [range.address, range.size]);
        buffer.write(i * E820_ENTRY + 16, range.kind);
    }
    let operation = ForeignMap {
        domain: domid,
        pad: [0; 3],
        entries: u32::try_from(map.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        pad2: 0,
        buffer: buffer.address(),
    };
    memory_op(xen, cmd::SET_MEMORY_MAP, operation).map(|_| ())
}

/// Puts a page of `space` ([`oxen_abi::memory::space`]) at `gfn` of a domain.
///
/// # Errors
/// The hypervisor's errno.
pub fn add_to_physmap(
    xen: &Privcmd,
    domid: u16,
    space: u32,
    index: u64,
    gfn: u64,
) -> io::Result<()> {
    let operation = AddToPhysmap {
        domain: domid,
        size: 0,
        space,
        index,
        gfn,
    };
    memory_op(xen, cmd::ADD_TO_PHYSMAP, operation).map(|_| ())
}

/// Takes what is at `gfn` out of a domain's memory.
///
/// # Errors
/// The hypervisor's errno.
pub fn remove_from_physmap(xen: &Privcmd, domid: u16, gfn: u64) -> io::Result<()> {
    let operation = RemoveFromPhysmap {
        domain: domid,
        pad: [0; 3],
        gfn,
    };
    memory_op(xen, cmd::REMOVE_FROM_PHYSMAP, operation).map(|_| ())
}

/// Highest guest page number that a domain has.
///
/// # Errors
/// ESRCH: no such domain.
pub fn maximum_gpfn(xen: &Privcmd, domid: u16) -> io::Result<u64> {
    let result = memory_op(xen, cmd::MAXIMUM_GPFN, u64::from(domid))?;
    u64::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Tells the hypervisor how many pages a domain should come to have; the ballooning itself is between dom0 and the guest.
///
/// # Errors
/// ESRCH: no such domain.
pub fn set_target(xen: &Privcmd, domid: u16, pages: u64) -> io::Result<()> {
    let operation = PodTarget {
        target: pages,
        domain: domid,
        ..PodTarget::default()
    };
    memory_op(xen, cmd::SET_POD_TARGET, operation).map(|_| ())
}

fn memory_op<T: Plain>(xen: &Privcmd, cmd: u64, operation: T) -> io::Result<i64> {
    let argument = xen.buffer_of(&[operation])?;
    xen.hypercall(HYPERCALL_MEMORY_OP, [cmd, argument.address(), 0, 0, 0])
}
