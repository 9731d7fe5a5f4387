//! `hvm_op`: parameters and upcalls.

use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::hvm::{CALLBACK_TYPE_VECTOR, cmd, param};
use oxen_core::event::Notify;

use super::arguments::{Argument, target_domain, write_bytes};
use super::{Arguments, Outcome, unknown_operation};
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

fn set_param<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, pointer)?;
    let domain = target_domain(vcpu, argument.u16(0))?;
    let own = domain.id == vcpu.domain.id;
    let (index, value) = (argument.u32(4), argument.u64(8));
    check_index(index)?;
    if own && !param::GUEST_WRITABLE.contains(&index) {
        return Err(Errno::Perm);
    }
    let is_vector = value >> 56 == CALLBACK_TYPE_VECTOR;
    if index == param::CALLBACK_IRQ && is_vector && value & 0xFF < LOWEST_VECTOR {
        return Err(Errno::Inval);
    }
    domain.set_param(index, value);
    if index == param::CALLBACK_IRQ {
        // What is pending already must be announced the new way.
        domain.vcpus.iter().for_each(|vcpu| vcpu.kick());
    }
    Ok(0)
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

fn get_param<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, pointer)?;
    let domain = target_domain(vcpu, argument.u16(0))?;
    let own = domain.id == vcpu.domain.id;
    let index = argument.u32(4);
    check_index(index)?;
    let readable = param::GUEST_WRITABLE.contains(&index) || param::GUEST_READABLE.contains(&index);
    if own && !readable {
        return Err(Errno::Perm);
    }
    write_bytes(
        vcpu,
        pointer.wrapping_add(8),
        &domain.param(index).to_le_bytes(),
    )?;
    Ok(0)
}

fn check_index(index: u32) -> Result<(), Errno> {
    if index >= param::COUNT || param::DEPRECATED.contains(&index) {
        Err(Errno::Inval)
    } else {
        Ok(())
    }
}
