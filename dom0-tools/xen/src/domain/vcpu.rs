//! vCPUs: state, registers, affinity and share of the CPUs.

use std::io;

use super::layouts::{
    Affinity as RawAffinity, HvmContext, HvmContextPartial, Scheduler, Trigger, Vcpu, VcpuContext,
};
use crate::control::{Bitmap, domctl};
use crate::cpu_map::CpuMap;
use crate::privcmd::{HypercallBuffer, Privcmd};

const SET_AFFINITY: u32 = 9;
const GET_VCPU_CONTEXT: u32 = 13;
const GET_VCPU_INFO: u32 = 14;
const SCHEDULER_OP: u32 = 16;
const GET_AFFINITY: u32 = 25;
const SEND_TRIGGER: u32 = 28;
const GET_HVM_CONTEXT: u32 = 33;
const SET_HVM_CONTEXT: u32 = 34;
const GET_HVM_CONTEXT_PARTIAL: u32 = 55;
/// Bytes of a `vcpu_guest_context`.
const VCPU_CONTEXT_SIZE: usize = 5168;
const AFFINITY_HARD: u32 = 1;
const AFFINITY_SOFT: u32 = 2;
/// `XEN_SCHEDULER_CREDIT2`.
pub(crate) const CREDIT2: u32 = 6;
pub(crate) const SCHEDULER_PUT: u32 = 0;
pub(crate) const SCHEDULER_GET: u32 = 1;
/// A context larger than this is not believed.
const LARGEST_CONTEXT: u32 = 1 << 20;

/// A vCPU as the hypervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuInfo {
    /// Up.
    pub online: bool,
    /// Waits for an event.
    pub blocked: bool,
    /// On a CPU at this moment.
    pub running: bool,
    /// Time it ran, in nanoseconds.
    pub cpu_time_ns: u64,
    /// CPU that it runs on or ran on last.
    pub cpu: u32,
}

/// State of one vCPU.
///
/// # Errors
/// ESRCH: no such domain, or no such vCPU.
pub fn vcpu_info(xen: &Privcmd, domid: u16, vcpu: u32) -> io::Result<VcpuInfo> {
    let operation = Vcpu {
        vcpu,
        ..Vcpu::default()
    };
    let (_, info) = domctl(xen, GET_VCPU_INFO, domid, operation)?;
    Ok(VcpuInfo {
        online: info.online != 0,
        blocked: info.blocked != 0,
        running: info.running != 0,
        cpu_time_ns: info.cpu_time,
        cpu: info.cpu,
    })
}

/// Where a vCPU may run, and where it rather runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// CPUs that it may run on; `None` when setting: leave as it is.
    pub hard: Option<CpuMap>,
    /// CPUs that it prefers; `None` when setting: leave as it is.
    pub soft: Option<CpuMap>,
}

/// Sets where a vCPU may run; what the hypervisor made of it is given back.
///
/// # Errors
/// EINVAL: no CPU of the machine is in the set.
pub fn set_vcpu_affinity(
    xen: &Privcmd,
    domid: u16,
    vcpu: u32,
    affinity: &Affinity,
) -> io::Result<Affinity> {
    let mut operation = RawAffinity {
        vcpu,
        ..RawAffinity::default()
    };
    let hard = bitmap(xen, affinity.hard.as_ref(), &mut operation.hard)?;
    let soft = bitmap(xen, affinity.soft.as_ref(), &mut operation.soft)?;
    operation.flags =
        hard.as_ref().map_or(0, |_| AFFINITY_HARD) | soft.as_ref().map_or(0, |_| AFFINITY_SOFT);
    domctl(xen, SET_AFFINITY, domid, operation)?;
    Ok(Affinity {
        hard: hard.map(|buffer| read_map(&buffer, operation.hard)),
        soft: soft.map(|buffer| read_map(&buffer, operation.soft)),
    })
}

/// Where a vCPU may run and prefers to; `cpus` is how many CPUs there are to tell of ([`crate::host::PhysInfo::max_cpu_id`] + 1).
///
/// # Errors
/// ESRCH: no such domain; EINVAL: no such vCPU.
pub fn vcpu_affinity(xen: &Privcmd, domid: u16, vcpu: u32, cpus: u32) -> io::Result<Affinity> {
    let all = CpuMap::first(cpus);
    let mut operation = RawAffinity {
        vcpu,
        flags: AFFINITY_HARD | AFFINITY_SOFT,
        ..RawAffinity::default()
    };
    let hard = bitmap(xen, Some(&all), &mut operation.hard)?;
    let soft = bitmap(xen, Some(&all), &mut operation.soft)?;
    domctl(xen, GET_AFFINITY, domid, operation)?;
    Ok(Affinity {
        hard: hard.map(|buffer| read_map(&buffer, operation.hard)),
        soft: soft.map(|buffer| read_map(&buffer, operation.soft)),
    })
}

fn bitmap(
    xen: &Privcmd,
    map: Option<&CpuMap>,
    out: &mut Bitmap,
) -> io::Result<Option<HypercallBuffer>> {
    let Some(map) = map else {
        return Ok(None);
    };
    let buffer = xen.buffer_of(map.as_bytes())?;
    *out = Bitmap {
        address: buffer.address(),
        bits: map.bits(),
        pad: 0,
    };
    Ok(Some(buffer))
}

fn read_map(buffer: &HypercallBuffer, bitmap: Bitmap) -> CpuMap {
    CpuMap::from_bytes(&buffer.to_vec(bitmap.bits as usize / 8))
}

/// Share of the CPUs (credit2's parameters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit2 {
    /// Share of each of its vCPUs against other vCPUs, 1–65535; 256 is the default. 0 when setting: leave as it is.
    pub weight: u16,
    /// Most that it gets, in percent of one CPU; 0 means no bound.
    pub cap: u16,
}

/// A domain's share.
///
/// # Errors
/// ESRCH: no such domain.
pub fn credit2(xen: &Privcmd, domid: u16) -> io::Result<Credit2> {
    let (_, operation) = scheduler_op(xen, domid, SCHEDULER_GET, Credit2 { weight: 0, cap: 0 })?;
    Ok(Credit2 {
        weight: operation.weight,
        cap: operation.cap,
    })
}

/// Sets a domain's share.
///
/// # Errors
/// ESRCH: no such domain.
pub fn set_credit2(xen: &Privcmd, domid: u16, share: Credit2) -> io::Result<()> {
    scheduler_op(xen, domid, SCHEDULER_PUT, share).map(|_| ())
}

fn scheduler_op(
    xen: &Privcmd,
    domid: u16,
    cmd: u32,
    share: Credit2,
) -> io::Result<(u16, Scheduler)> {
    let operation = Scheduler {
        scheduler: CREDIT2,
        cmd,
        weight: share.weight,
        cap: share.cap,
        pad: [0; 3],
    };
    domctl(xen, SCHEDULER_OP, domid, operation)
}

/// Sends a trigger to a vCPU: 0 NMI, 1 reset, 2 init, 3 power button, 4 sleep button.
///
/// # Errors
/// ESRCH: no such domain or vCPU; ENOSYS: not a trigger of PVH guests.
pub fn send_trigger(xen: &Privcmd, domid: u16, trigger: u32, vcpu: u32) -> io::Result<()> {
    domctl(xen, SEND_TRIGGER, domid, Trigger { trigger, vcpu }).map(|_| ())
}

/// The save records of a domain that is paused.
///
/// # Errors
/// ESRCH: no such domain.
pub fn get_hvm_context(xen: &Privcmd, domid: u16) -> io::Result<Vec<u8>> {
    // Without a buffer the answer is the size that is needed.
    let (_, needed) = domctl(xen, GET_HVM_CONTEXT, domid, HvmContext::default())?;
    if needed.size > LARGEST_CONTEXT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let buffer = xen.buffer(needed.size as usize)?;
    let operation = HvmContext {
        size: needed.size,
        pad: 0,
        buffer: buffer.address(),
    };
    let (_, filled) = domctl(xen, GET_HVM_CONTEXT, domid, operation)?;
    Ok(buffer.to_vec(filled.size.min(needed.size) as usize))
}

/// Loads save records: all vCPUs go down, and those with a CPU record come up.
///
/// # Errors
/// EINVAL: a record that is malformed or of a vCPU that does not exist.
pub fn set_hvm_context(xen: &Privcmd, domid: u16, bytes: &[u8]) -> io::Result<()> {
    let buffer = xen.buffer_of(bytes)?;
    let operation = HvmContext {
        size: u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        pad: 0,
        buffer: buffer.address(),
    };
    domctl(xen, SET_HVM_CONTEXT, domid, operation).map(|_| ())
}

/// One save record of a vCPU, without its descriptor.
///
/// # Errors
/// EINVAL: no such kind of record. ENOENT: no such vCPU. ENODATA: registers of a vCPU that is down.
pub fn get_hvm_context_partial(
    xen: &Privcmd,
    domid: u16,
    kind: u32,
    vcpu: u32,
) -> io::Result<Vec<u8>> {
    let question = HvmContextPartial {
        kind,
        instance: vcpu,
        ..HvmContextPartial::default()
    };
    let (_, needed) = domctl(xen, GET_HVM_CONTEXT_PARTIAL, domid, question)?;
    let size = u32::try_from(needed.size).map_err(|_| io::ErrorKind::InvalidData)?;
    if size > LARGEST_CONTEXT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let buffer = xen.buffer(size as usize)?;
    let operation = HvmContextPartial {
        size: size.into(),
        buffer: buffer.address(),
        ..question
    };
    domctl(xen, GET_HVM_CONTEXT_PARTIAL, domid, operation)?;
    Ok(buffer.to_vec(size as usize))
}

/// A vCPU's registers as a `vcpu_guest_context`.
///
/// # Errors
/// EINVAL: no such vCPU. ENODATA: it was never started.
pub fn vcpu_context(xen: &Privcmd, domid: u16, vcpu: u32) -> io::Result<Vec<u8>> {
    let buffer = xen.buffer(VCPU_CONTEXT_SIZE)?;
    let operation = VcpuContext {
        vcpu,
        pad: 0,
        buffer: buffer.address(),
    };
    domctl(xen, GET_VCPU_CONTEXT, domid, operation)?;
    Ok(buffer.to_vec(VCPU_CONTEXT_SIZE))
}
