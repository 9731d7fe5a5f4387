//! `sched_op`.

use core::sync::atomic::AtomicU64;

use arrayvec::ArrayVec;
use oxen_abi::Errno;
use oxen_abi::sched::{POLL_NARROW, POLL_PORTS, POLL_SIZE, cmd};
use oxen_core::id::Port;

use super::arguments::{Argument, read_bytes};
use super::{Arguments, Outcome, unknown_operation};
use crate::domain::crash;
use crate::vcpu::{Running, Wait, interrupts};
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command.
pub fn sched_op<H: Vcpu>(vcpu: &mut Running<H>, &[command, pointer, ..]: &Arguments) -> Outcome {
    match command {
        cmd::YIELD => {
            vcpu.yield_turn();
            Ok(0)
        }
        cmd::BLOCK => {
            interrupts::before_wait(vcpu);
            if !interrupts::halt_ends(vcpu) {
                vcpu.wait = Wait::Halted;
            }
            Ok(0)
        }
        cmd::SHUTDOWN => {
            let reason = Argument::<4>::read(vcpu, pointer)?.u32(0);
            crash::shutdown(vcpu, reason)
        }
        cmd::POLL => poll(vcpu, pointer),
        _ => unknown_operation(&UNKNOWN, "sched_op", command),
    }
}

/// Waits for one of some ports to be pending, masked or not, or for a time; interrupts may be off meanwhile.
fn poll<H: Vcpu>(vcpu: &mut Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<POLL_SIZE>::read_either(vcpu, pointer, POLL_NARROW)?;
    let count = argument.u32(8);
    if count > POLL_PORTS {
        return Err(Errno::Inval);
    }
    let mut bytes = [0; 4 * POLL_PORTS as usize];
    let bytes = &mut bytes[..4 * count as usize];
    read_bytes(vcpu, argument.u64(0), bytes)?;
    let ports: ArrayVec<Port, { POLL_PORTS as usize }> = bytes
        .chunks_exact(4)
        .map(|word| Port(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
        .collect();
    let shared = vcpu.shared();
    match argument.u64(16) {
        0 => shared.poll_deadline.clear(),
        nanos => shared.poll_deadline.set(nanos),
    }
    interrupts::before_wait(vcpu);
    let shared = vcpu.shared();
    if vcpu.domain.events.begin_poll(shared.id, &ports)? {
        vcpu.wait = Wait::Polling;
    }
    Ok(0)
}
