//! Domains: create, describe, run, stop and destroy them (domctl).

mod info;
mod layouts;
mod policy;
mod vcpu;

use std::io;

pub use info::{DomainFlags, DomainInfo, ShutdownReason, info, list};
pub use policy::{CpuidLeaf, cpu_policy, set_cpu_policy};
pub use vcpu::{
    Affinity, Credit2, VcpuInfo, credit2, get_hvm_context, get_hvm_context_partial, send_trigger,
    set_credit2, set_hvm_context, set_vcpu_affinity, vcpu_affinity, vcpu_context, vcpu_info,
};
pub(crate) use vcpu::{CREDIT2, SCHEDULER_GET, SCHEDULER_PUT};

use crate::control::{domctl, domctl_plain};
use crate::privcmd::Privcmd;
use layouts::{Create, RemoteShutdown};

const CREATE: u32 = 1;
const DESTROY: u32 = 2;
const PAUSE: u32 = 3;
const UNPAUSE: u32 = 4;
const MAX_MEMORY: u32 = 11;
const MAX_VCPUS: u32 = 15;
const SET_UUID: u32 = 17;
const GET_PAGING_MEMORY: u32 = 85;
const PAGING_MEMORY: u32 = 86;
const HYPERCALL_SCHED_OP: u64 = oxen_abi::numbers::SCHED_OP;
const REMOTE_SHUTDOWN: u64 = 4;

/// `XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap`: a PVH guest under nested paging.
const PVH: u32 = 0b11;
/// `XEN_X86_EMU_LAPIC`: all the emulation that a PVH guest gets.
const EMULATE_LAPIC: u32 = 1;

/// What a new PVH domain is, for good. [`Default`] gives the values that Xen's tools use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateDomain {
    /// Number, or `None` for one that is free.
    pub domid: Option<u16>,
    /// UUID.
    pub uuid: [u8; 16],
    /// vCPUs, at least 1; all must then be made by [`set_max_vcpus`] with the same number.
    pub vcpus: u32,
    /// Highest event-channel port, or `None` for no limit but that of the ABI.
    pub max_event_port: Option<u32>,
    /// Grant-table frames (512 version-1 entries each), or `None` for the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Frames of its list of mapped grants, or `None` for the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// Newest grant-table version that it may choose, 1 or 2.
    pub grant_version: u32,
    /// Whether unknown MSRs read as 0 instead of raising #GP.
    pub relaxed_msrs: bool,
}

impl Default for CreateDomain {
    fn default() -> Self {
        Self {
            domid: None,
            uuid: [0; 16],
            vcpus: 1,
            max_event_port: Some(1023),
            max_grant_frames: None,
            max_maptrack_frames: None,
            grant_version: 2,
            relaxed_msrs: false,
        }
    }
}

/// Creates a domain, paused and without memory, and gives its number.
///
/// # Errors
/// EEXIST: the number is taken; ENOMEM; EINVAL: a limit that the hypervisor does not have.
pub fn create(xen: &Privcmd, domain: &CreateDomain) -> io::Result<u16> {
    let frames = |frames: Option<u32>| match frames {
        None => Ok(-1),
        Some(frames) => i32::try_from(frames).map_err(|_| io::ErrorKind::InvalidInput),
    };
    let operation = Create {
        handle: domain.uuid,
        flags: PVH,
        max_vcpus: domain.vcpus,
        max_event_port: domain.max_event_port.unwrap_or(u32::MAX),
        max_grant_frames: frames(domain.max_grant_frames)?,
        max_maptrack_frames: frames(domain.max_maptrack_frames)?,
        grant: domain.grant_version,
        emulation: EMULATE_LAPIC,
        misc: u32::from(domain.relaxed_msrs),
        ..Create::default()
    };
    Ok(domctl(xen, CREATE, domain.domid.unwrap_or(0), operation)?.0)
}

/// Destroys a domain: kills it and gives back all that it has. Its number stays visible as dying while others map its pages.
///
/// # Errors
/// ESRCH: no such domain; EINVAL: the caller itself.
pub fn destroy(xen: &Privcmd, domid: u16) -> io::Result<()> {
    loop {
        match domctl_plain(xen, DESTROY, domid) {
            // A slice of the work is done; the hypervisor lets others run between the slices.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ERESTART)) => {}
            result => return result,
        }
    }
}

/// Stops all its vCPUs. Pauses count: each needs an [`unpause`].
///
/// # Errors
/// ESRCH: no such domain; EINVAL: the caller itself.
pub fn pause(xen: &Privcmd, domid: u16) -> io::Result<()> {
    domctl_plain(xen, PAUSE, domid)
}

/// Takes one pause back; a new domain has one.
///
/// # Errors
/// ESRCH: no such domain; EINVAL: it is not paused by a tool.
pub fn unpause(xen: &Privcmd, domid: u16) -> io::Result<()> {
    domctl_plain(xen, UNPAUSE, domid)
}

/// Gives it another UUID.
///
/// # Errors
/// ESRCH: no such domain.
pub fn set_uuid(xen: &Privcmd, domid: u16, uuid: [u8; 16]) -> io::Result<()> {
    domctl(xen, SET_UUID, domid, uuid).map(|_| ())
}

/// Sets how much memory it may have, in KiB.
///
/// # Errors
/// ESRCH: no such domain; EINVAL: less than it has now.
pub fn set_max_memory(xen: &Privcmd, domid: u16, kib: u64) -> io::Result<()> {
    domctl(xen, MAX_MEMORY, domid, kib).map(|_| ())
}

/// Allocates its vCPUs, as many as [`CreateDomain::vcpus`] said.
///
/// # Errors
/// EINVAL: another number; ENOMEM.
pub fn set_max_vcpus(xen: &Privcmd, domid: u16, vcpus: u32) -> io::Result<()> {
    domctl(xen, MAX_VCPUS, domid, [vcpus, 0]).map(|_| ())
}

/// Sets the memory that the hypervisor may use for its nested page tables, in bytes.
///
/// # Errors
/// The hypervisor's errno.
pub fn set_paging_memory(xen: &Privcmd, domid: u16, bytes: u64) -> io::Result<()> {
    domctl(xen, PAGING_MEMORY, domid, bytes).map(|_| ())
}

/// The memory that the hypervisor may use for its nested page tables, in bytes.
///
/// # Errors
/// ESRCH: no such domain.
pub fn paging_memory(xen: &Privcmd, domid: u16) -> io::Result<u64> {
    domctl(xen, GET_PAGING_MEMORY, domid, 0_u64).map(|(_, bytes)| bytes)
}

/// Marks a domain as shut down for `reason`, as if it had asked for it itself.
///
/// # Errors
/// ESRCH: no such domain.
pub fn shutdown(xen: &Privcmd, domid: u16, reason: ShutdownReason) -> io::Result<()> {
    let argument = xen.buffer_of(&[RemoteShutdown {
        domain: domid,
        pad: 0,
        reason: reason.code(),
    }])?;
    xen.hypercall(
        HYPERCALL_SCHED_OP,
        [REMOTE_SHUTDOWN, argument.address(), 0, 0, 0],
    )
    .map(|_| ())
}
