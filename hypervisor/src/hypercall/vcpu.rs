//! `vcpu_op`, and the small calls about the calling vCPU: `set_timer_op`, `vm_assist`.

use core::sync::atomic::AtomicU64;

use oxen_abi::vcpu::{
    AREA_SIZE, RUNSTATE_SIZE, RUNSTATE_SIZE_NARROW, SINGLE_SHOT_NARROW, SINGLE_SHOT_SIZE, cmd,
    context,
};
use oxen_abi::{Errno, numbers};
use oxen_core::address::{Gfn, GuestLinear, PAGE_SIZE};
use oxen_core::hypercall::Caller;
use oxen_core::id::VcpuId;
use oxen_core::memory::walk::Access;
use oxen_core::start::StartRegisters;

use super::arguments::{Argument, write_bytes};
use super::{Arguments, Outcome, unknown_operation};
use crate::domain::RunstateArea;
use crate::memory::{guest, heap};
use crate::time;
use crate::vcpu::Running;
use crate::vcpu::shared::Switch;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command.
pub fn vcpu_op<H: Vcpu>(
    vcpu: &mut Running<H>,
    &[command, target, pointer, ..]: &Arguments,
) -> Outcome {
    let index = usize::try_from(target).map_err(|_| Errno::NoEnt)?;
    let shared = vcpu.domain.vcpus.get(index).ok_or(Errno::NoEnt)?;
    let own = index == vcpu.index;
    match command {
        cmd::SET_SINGLESHOT_TIMER if own => {
            let argument =
                Argument::<SINGLE_SHOT_SIZE>::read_either(vcpu, pointer, SINGLE_SHOT_NARROW)?;
            shared.timer.set(argument.u64(0));
            Ok(0)
        }
        cmd::STOP_SINGLESHOT_TIMER if own => {
            shared.timer.clear();
            Ok(0)
        }
        cmd::SET_SINGLESHOT_TIMER | cmd::STOP_SINGLESHOT_TIMER => Err(Errno::Inval),
        // There are no periodic timers.
        cmd::STOP_PERIODIC_TIMER => Ok(0),
        cmd::REGISTER_VCPU_INFO => register_vcpu_info(vcpu, index, pointer),
        cmd::REGISTER_RUNSTATE_AREA => register_runstate(vcpu, index, pointer),
        cmd::REGISTER_VCPU_TIME_AREA => register_time(vcpu, pointer),
        cmd::GET_RUNSTATE_INFO => {
            let runstate = shared.runstate.lock().until(time::nanos());
            if vcpu.is_64_bit() {
                write_bytes(vcpu, pointer, &runstate.to_bytes())?;
            } else {
                write_bytes(vcpu, pointer, &runstate.to_narrow_bytes())?;
            }
            Ok(0)
        }
        cmd::IS_UP => Ok(shared.is_up().into()),
        cmd::INITIALISE => {
            let context = Argument::<{ context::SIZE }>::read(vcpu, pointer)?;
            let start = StartRegisters::from_context(context.bytes())?;
            if shared.set_context(heap::try_box(start)?) {
                Ok(0)
            } else {
                Err(Errno::Exist)
            }
        }
        cmd::UP if !shared.is_initialised() => Err(Errno::Inval),
        cmd::UP => {
            shared.post_switch(Switch::On);
            Ok(0)
        }
        cmd::DOWN => {
            shared.post_switch(Switch::Off);
            Ok(0)
        }
        cmd::SEND_NMI => {
            shared.post_nmi();
            Ok(0)
        }
        _ => unknown_operation(&UNKNOWN, "vcpu_op", command),
    }
}

/// `set_timer_op`: the calling vCPU's timer, 0 to stop it.
pub fn set_timer_op<H: Vcpu>(vcpu: &mut Running<H>, &[timeout, ..]: &Arguments) -> Outcome {
    match timeout {
        0 => vcpu.shared().timer.clear(),
        nanos => vcpu.shared().timer.set(nanos),
    }
    Ok(0)
}

/// `vm_assist`: only the run-state update flag has a meaning here, and updates are whole anyway: they happen while the
/// vCPU is not running, or on its own CPU.
pub fn vm_assist<H: Vcpu>(_: &mut Running<H>, &[_, kind, ..]: &Arguments) -> Outcome {
    if kind == numbers::VMASST_RUNSTATE_UPDATE_FLAG {
        Err(Errno::NoSys)
    } else {
        Err(Errno::Inval)
    }
}

fn register_vcpu_info<H: Vcpu>(vcpu: &Running<H>, index: usize, pointer: u64) -> Outcome {
    let argument = Argument::<16>::read(vcpu, pointer)?;
    let (gfn, offset) = (Gfn(argument.u64(0)), argument.u32(8) as usize);
    vcpu.domain
        .move_vcpu_info(VcpuId(index as u16), gfn, offset)
        .map(|()| 0)
}

/// The area is given by its linear address, which is translated once: Linux keeps it in memory that never moves.
/// The clock's place in user space's reach. It never changes, so that it is written once, before the call returns.
fn register_time<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let address = if vcpu.is_64_bit() {
        Argument::<AREA_SIZE>::read(vcpu, pointer)?.u64(0)
    } else {
        Argument::<4>::read(vcpu, pointer)?.u32(0).into()
    };
    if address != 0 {
        write_bytes(vcpu, address, &time::vcpu_time().to_bytes())?;
    }
    Ok(0)
}

fn register_runstate<H: Vcpu>(vcpu: &Running<H>, index: usize, pointer: u64) -> Outcome {
    let (address, size) = if vcpu.is_64_bit() {
        (Argument::<8>::read(vcpu, pointer)?.u64(0), RUNSTATE_SIZE)
    } else {
        let address = Argument::<4>::read(vcpu, pointer)?.u32(0);
        (address.into(), RUNSTATE_SIZE_NARROW)
    };
    let slot = vcpu.domain.runstate_areas.get(index).ok_or(Errno::NoEnt)?;
    if address == 0 {
        *slot.lock() = None;
        return Ok(0);
    }
    let first_length = (PAGE_SIZE - (address as usize & (PAGE_SIZE - 1))).min(size);
    let translate = |linear: u64| {
        guest::translate(vcpu, GuestLinear(linear), Access::SUPERVISOR_WRITE)
            .map_err(|_| Errno::Fault)
    };
    let first = translate(address)?;
    let rest = size - first_length;
    let second = if rest > 0 {
        translate(address.wrapping_add(first_length as u64))?
    } else {
        first
    };
    *slot.lock() = Some(RunstateArea {
        pieces: [(first, first_length), (second, rest)],
    });
    vcpu.domain.publish_runstate(index);
    Ok(0)
}
