//! Small things that the control domain does to a domain: a trigger, its wall clock, its memory target.

use oxen_abi::Errno;
use oxen_abi::domctl::trigger;

use super::Outcome;
use super::arguments::{Argument, target_domain};
use crate::domain::Domain;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// `XEN_DOMCTL_sendtrigger`: an NMI to a vCPU. There are no buttons that PVH guests would see, and no reset line.
///
/// # Errors
/// `Srch` for a vCPU that does not exist, `NoSys` for another trigger.
pub fn send_trigger<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = Argument::<8>::read(vcpu, body)?;
    let target = domain
        .vcpus
        .get(argument.u32(4) as usize)
        .ok_or(Errno::Srch)?;
    match argument.u32(0) {
        trigger::NMI => {
            target.post_nmi();
            Ok(0)
        }
        _ => Err(Errno::NoSys),
    }
}

/// `XEN_DOMCTL_settimeoffset`: seconds by which the domain's wall clock is ahead of UTC.
pub fn set_time_offset<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let seconds = Argument::<8>::read(vcpu, body)?.u64(0).cast_signed();
    domain.control.set_time_offset(seconds);
    domain.publish_wallclock();
    Ok(0)
}

/// `XENMEM_set_pod_target` and `XENMEM_get_pod_target`: no domain is populated on demand, so that a target changes nothing,
/// as in Xen; what the domain has is told.
pub fn pod_target<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    const DOMAIN: usize = 32;
    let mut argument = Argument::<40>::read(vcpu, pointer)?;
    if !vcpu.domain.privileged {
        return Err(Errno::Perm);
    }
    let domain = target_domain(vcpu, argument.u16(DOMAIN))?;
    let pages = domain.own.lock().total() >> 12;
    for (at, value) in [(8, pages), (16, 0), (24, 0)] {
        argument.set_u64(at, value);
    }
    argument.write(vcpu, pointer).map(|()| 0)
}
