//! `XEN_SYSCTL_cpupool_op`: there is one pool, with all CPUs and all domains in it, and it stays so.

use oxen_abi::Errno;
use oxen_abi::sysctl::{SCHEDULER_CREDIT2, cpu_pool};
use oxen_core::id::DomainId;
use oxen_core::schedule::CpuSet;

use super::Outcome;
use super::arguments::Argument;
use super::scheduling::write_set;
use crate::cpu;
use crate::domain::registry;
use crate::vcpu::Running;
use crate::virt::Vcpu;

/// The pool's number.
const ONLY: u32 = 0;

/// Dispatches on the operation.
///
/// # Errors
/// `NoEnt` for another pool, `OpNotSupp` where one would be made, `Busy` where something would be taken away, `NoDev` where a
/// CPU would be added that is in the pool already, `Inval` for one that does not exist.
pub fn operate<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<{ cpu_pool::SIZE }>::read(vcpu, body)?;
    let (pool, cpu) = (argument.u32(cpu_pool::ID), argument.u32(cpu_pool::CPU));
    let cpus = cpu::percpu::all().count();
    let cpu_exists = cpu == cpu_pool::ANY || (cpu as usize) < cpus;
    match argument.u32(cpu_pool::OP) {
        cpu_pool::OP_CREATE => Err(Errno::OpNotSupp),
        cpu_pool::OP_FREE_INFO => {
            write_set(vcpu, &argument, cpu_pool::CPU_MAP, CpuSet::first(0)).map(|()| 0)
        }
        cpu_pool::OP_MOVE_DOMAIN => {
            let domain = u16::try_from(argument.u32(cpu_pool::DOMAIN)).map_err(|_| Errno::Srch)?;
            let domain = registry::get(DomainId(domain)).ok_or(Errno::Srch)?;
            match pool {
                _ if domain.id == vcpu.domain.id => Err(Errno::Perm),
                ONLY => Ok(0),
                _ => Err(Errno::NoEnt),
            }
        }
        op @ (cpu_pool::OP_DESTROY
        | cpu_pool::OP_INFO
        | cpu_pool::OP_ADD_CPU
        | cpu_pool::OP_REMOVE_CPU) => match op {
            _ if pool != ONLY => Err(Errno::NoEnt),
            cpu_pool::OP_INFO => {
                argument.set_u32(cpu_pool::SCHEDULER, SCHEDULER_CREDIT2);
                argument.set_u32(cpu_pool::DOMAINS, registry::all().count() as u32);
                write_set(vcpu, &argument, cpu_pool::CPU_MAP, CpuSet::first(cpus))?;
                argument.write(vcpu, body).map(|()| 0)
            }
            cpu_pool::OP_DESTROY => Err(Errno::Busy),
            _ if !cpu_exists => Err(Errno::Inval),
            cpu_pool::OP_ADD_CPU => Err(Errno::NoDev),
            _ => Err(Errno::Busy),
        },
        _ => Err(Errno::NoSys),
    }
}
