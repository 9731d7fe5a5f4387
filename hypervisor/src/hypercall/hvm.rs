//! `hvm_op`: parameters and upcalls.

use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::hvm::{cmd, param};
use oxen_core::event::Notify;
use oxen_core::hvm_params::Asker;

use super::arguments::{Argument, target_domain};
use super::{Arguments, Outcome, page, unknown_operation};
use crate::domain::Domain;
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);
/// Lowest vector that is not an exception.
const LOWEST_VECTOR: u64 = 0x10;

/// Dispatches on the command.
pub fn hvm_op<H: Vcpu>(vcpu: &mut Running<H>, &[command, pointer, ..]: &Arguments) -> Outcome {
    match command {
        cmd::SET_PARAM => set_param(vcpu, pointer),
        cmd::GET_PARAM => get_param(vcpu, pointer),
        cmd::SET_EVTCHN_UPCALL_VECTOR => set_upcall_vector(vcpu, pointer),
        _ => unknown_operation(&UNKNOWN, "hvm_op", command),
    }
}

/// `xen_hvm_param`: its domain, as it stands to the caller.
fn parameter<H: Vcpu>(
    vcpu: &Running<H>,
    argument: &Argument<16>,
) -> Result<(Arc<Domain>, Asker), Errno> {
    if argument.u32(4) >= param::COUNT {
        return Err(Errno::Inval);
    }
    let domain = target_domain(vcpu, argument.u16(0))?;
    let asker = if domain.id == vcpu.domain.id {
        Asker::Own
    } else {
        Asker::Control
    };
    Ok((domain, asker))
}

fn set_param<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, pointer)?;
    let (domain, asker) = parameter(vcpu, &argument)?;
    let index = argument.u32(4);
    domain.params.set(index, argument.u64(8), asker)?;
    if index == param::CALLBACK_IRQ {
        if asker == Asker::Own {
            // Among the first things that a guest does which uses events.
            domain.set_layout(page::layout(vcpu));
        }
        // What is pending already must be announced the new way.
        domain.vcpus.iter().for_each(|vcpu| vcpu.kick());
    }
    Ok(0)
}

fn get_param<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<16>::read(vcpu, pointer)?;
    let (domain, asker) = parameter(vcpu, &argument)?;
    argument.set_u64(8, domain.params.get(argument.u32(4), asker)?);
    argument.write(vcpu, pointer).map(|()| 0)
}

/// `xen_hvm_evtchn_upcall_vector`: events of one vCPU come through its local APIC. CPUID does not offer it, since each of
/// them then costs an end of interrupt; guests that ask get it.
fn set_upcall_vector<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<8>::read(vcpu, pointer)?;
    let vector = argument.u32(4) as u8;
    let target = usize::try_from(argument.u32(0))
        .ok()
        .and_then(|index| vcpu.domain.vcpus.get(index))
        .ok_or(Errno::NoEnt)?;
    if u64::from(vector) < LOWEST_VECTOR {
        return Err(Errno::Inval);
    }
    target.set_upcall_vector(vector);
    if vcpu.domain.events.upcall_pending(target.id) {
        vcpu.domain.notify(target.id);
    }
    Ok(0)
}
