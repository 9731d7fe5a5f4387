//! Event channels of other domains, by hypercall. dom0's own are [`crate::evtchn`]'s.

use std::io;

use crate::layout;
use crate::privcmd::Privcmd;

const HYPERCALL_EVENT_CHANNEL_OP: u64 = oxen_abi::numbers::EVENT_CHANNEL_OP;
const STATUS: u64 = 5;
const ALLOC_UNBOUND: u64 = 6;
const RESET: u64 = 10;

/// `evtchn_alloc_unbound`.
#[derive(Clone, Copy)]
#[repr(C)]
struct AllocUnbound {
    domain: u16,
    remote: u16,
    port: u32,
}
layout!(AllocUnbound, 8, remote = 2, port = 4);

/// `evtchn_status`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Status {
    domain: u16,
    pad: u16,
    port: u32,
    status: u32,
    vcpu: u32,
    details: [u32; 2],
}
layout!(Status, 24, port = 4, status = 8, vcpu = 12, details = 16);

/// What a port of `domid` is (`EVTCHNSTAT_*`).
///
/// # Errors
/// ESRCH: no such domain; EINVAL: no such port.
pub fn status(xen: &Privcmd, domid: u16, port: u32) -> io::Result<u32> {
    let argument = xen.buffer_of(&[Status {
        domain: domid,
        port,
        ..Status::default()
    }])?;
    xen.hypercall(
        HYPERCALL_EVENT_CHANNEL_OP,
        [STATUS, argument.address(), 0, 0, 0],
    )?;
    Ok(argument.read::<Status>(0).status)
}

/// Allocates a port of `domid` that `remote` may bind to.
///
/// # Errors
/// ESRCH: no such domain; ENOSPC: all its ports are in use.
pub fn alloc_unbound(xen: &Privcmd, domid: u16, remote: u16) -> io::Result<u32> {
    let argument = xen.buffer_of(&[AllocUnbound {
        domain: domid,
        remote,
        port: 0,
    }])?;
    xen.hypercall(
        HYPERCALL_EVENT_CHANNEL_OP,
        [ALLOC_UNBOUND, argument.address(), 0, 0, 0],
    )?;
    Ok(argument.read::<AllocUnbound>(0).port)
}

/// Closes all ports of `domid`.
///
/// # Errors
/// ESRCH: no such domain.
pub fn reset(xen: &Privcmd, domid: u16) -> io::Result<()> {
    let argument = xen.buffer_of(&[domid])?;
    xen.hypercall(
        HYPERCALL_EVENT_CHANNEL_OP,
        [RESET, argument.address(), 0, 0, 0],
    )
    .map(|_| ())
}
