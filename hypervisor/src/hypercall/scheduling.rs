//! `domctl` and `sysctl` about the scheduler: affinity, weight and cap (`public/domctl.h`, `public/sysctl.h`).

use core::num::NonZeroU16;

use oxen_abi::Errno;
use oxen_abi::domctl::{affinity, scheduler};
use oxen_abi::sysctl::{SCHEDULER_CREDIT2, scheduler as machine};
use oxen_core::memory::try_collect;
use oxen_core::schedule::{Affinity, BITMAP_BYTES, CpuSet, Handle, MAX_CPUS, Params, RateLimit};

use super::Outcome;
use super::arguments::{Argument, read_bytes, write_bytes};
use crate::cpu;
use crate::domain::Domain;
use crate::time;
use crate::vcpu::Running;
use crate::vcpu::schedule;
use crate::virt::Vcpu;

/// Bytes of an `xenctl_bitmap`: its address, its length in bits.
const BITMAP_ARGUMENT: usize = 16;

type AffinityArgument = Argument<{ affinity::SIZE }>;

/// Sets hard affinity, soft affinity or both, and writes back what comes of it: of either the CPUs that count.
pub fn set_affinity<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = AffinityArgument::read(vcpu, body)?;
    let handle = named_vcpu(domain, &argument)?;
    let flags = argument.u32(affinity::FLAGS);
    let known = affinity::FLAG_HARD | affinity::FLAG_SOFT | affinity::FLAG_FORCE;
    if flags & !known != 0 || flags & (affinity::FLAG_HARD | affinity::FLAG_SOFT) == 0 {
        return Err(Errno::Inval);
    }
    let Affinity { mut hard, mut soft } = schedule::scheduler().affinity(handle);
    if flags & affinity::FLAG_HARD != 0 {
        hard = read_set(vcpu, &argument, affinity::HARD)?;
    }
    if flags & affinity::FLAG_SOFT != 0 {
        soft = read_set(vcpu, &argument, affinity::SOFT)?;
    }
    let interrupt = schedule::scheduler()
        .set_affinity(handle, Affinity { hard, soft }, time::nanos())
        .map_err(schedule::errno)?;
    if let Some(cpu) = interrupt.and_then(cpu::percpu::by_id) {
        cpu.reschedule();
    }
    let now = schedule::scheduler().affinity(handle);
    if flags & affinity::FLAG_HARD != 0 {
        write_set(vcpu, &argument, affinity::HARD, now.hard)?;
    }
    if flags & affinity::FLAG_SOFT != 0 {
        write_set(vcpu, &argument, affinity::SOFT, now.soft.and(&now.hard))?;
    }
    Ok(0)
}

/// Tells hard affinity, soft affinity or both, as they were set.
pub fn get_affinity<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let argument = AffinityArgument::read(vcpu, body)?;
    let now = schedule::scheduler().affinity(named_vcpu(domain, &argument)?);
    let flags = argument.u32(affinity::FLAGS);
    if flags & affinity::FLAG_HARD != 0 {
        write_set(vcpu, &argument, affinity::HARD, now.hard)?;
    }
    if flags & affinity::FLAG_SOFT != 0 {
        write_set(vcpu, &argument, affinity::SOFT, now.soft)?;
    }
    Ok(0)
}

fn named_vcpu<'a>(domain: &'a Domain, argument: &AffinityArgument) -> Result<&'a Handle, Errno> {
    let index = argument.u32(affinity::VCPU) as usize;
    let vcpu = domain.vcpus.get(index).ok_or(Errno::Inval)?;
    vcpu.handle().ok_or(Errno::Srch)
}

fn read_set<H: Vcpu, const N: usize>(
    vcpu: &Running<H>,
    argument: &Argument<N>,
    at: usize,
) -> Result<CpuSet, Errno> {
    let bits = (argument.u32(at + affinity::BITS) as usize).min(MAX_CPUS);
    let mut bytes = [0; BITMAP_BYTES];
    let bytes = &mut bytes[..bits.div_ceil(8)];
    read_bytes(vcpu, argument.u64(at), bytes)?;
    Ok(CpuSet::from_bitmap(bytes, bits))
}

/// Writes as much of a set as the caller has room for, and zeros behind it.
///
/// # Errors
/// `Fault` if it cannot be written.
pub fn write_set<H: Vcpu, const N: usize>(
    vcpu: &Running<H>,
    argument: &Argument<N>,
    at: usize,
    set: CpuSet,
) -> Result<(), Errno> {
    /// Longer bitmaps than any machine needs are not filled to their end.
    const MOST_BYTES: usize = 4096;
    let cpus = CpuSet::first(cpu::percpu::all().count());
    let room = (argument.u32(at + affinity::BITS) as usize).div_ceil(8);
    let zeros = (0..room.min(MOST_BYTES)).map(|_| 0);
    let mut bytes = try_collect(zeros).map_err(|_| Errno::NoMem)?;
    for (to, from) in bytes.iter_mut().zip(set.and(&cpus).to_bitmap()) {
        *to = from;
    }
    write_bytes(vcpu, argument.u64(at), &bytes)
}

/// Sets or tells a domain's weight and cap, in credit2's terms. A weight of 0 leaves the one that there is.
pub fn domain_shares<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let mut argument = Argument::<{ scheduler::SIZE }>::read(vcpu, body)?;
    if argument.u32(scheduler::ID) != SCHEDULER_CREDIT2 {
        return Err(Errno::Inval);
    }
    let shares = domain.shares.params();
    match argument.u32(scheduler::COMMAND) {
        scheduler::PUT => {
            let weight = argument.u16(scheduler::WEIGHT);
            domain.shares.set_params(Params {
                weight: NonZeroU16::new(weight).unwrap_or(shares.weight),
                cap: argument.u16(scheduler::CAP),
            });
            let running = domain.vcpus.iter().filter_map(|vcpu| vcpu.runs_on());
            running
                .filter_map(cpu::percpu::by_id)
                .for_each(|cpu| cpu.reschedule());
            Ok(0)
        }
        scheduler::GET => {
            argument.set_u16(scheduler::WEIGHT, shares.weight.get());
            argument.set_u16(scheduler::CAP, shares.cap);
            argument.write(vcpu, body).map(|()| 0)
        }
        _ => Err(Errno::Inval),
    }
}

/// The parameter of the scheduler itself: how long a vCPU that wakes another goes on. There is one CPU pool.
pub fn machine_parameters<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<{ machine::SIZE }>::read(vcpu, body)?;
    if argument.u32(machine::CPU_POOL) != 0 {
        return Err(Errno::Srch);
    }
    if argument.u32(machine::ID) != SCHEDULER_CREDIT2 {
        return Err(Errno::Inval);
    }
    match argument.u32(machine::COMMAND) {
        scheduler::PUT => {
            let limit = RateLimit::from_micros(argument.u32(machine::RATE_LIMIT));
            schedule::scheduler().set_rate_limit(limit.ok_or(Errno::Inval)?);
            Ok(0)
        }
        scheduler::GET => {
            let limit = schedule::scheduler().rate_limit();
            argument.set_u32(machine::RATE_LIMIT, limit.micros());
            argument.write(vcpu, body).map(|()| 0)
        }
        _ => Err(Errno::Inval),
    }
}

/// The one memory node, as a set of nodes.
fn nodes() -> CpuSet {
    CpuSet::first(1)
}

/// `XEN_DOMCTL_setnodeaffinity`: which memory nodes a domain is to have its memory from. There is one, and all have it.
///
/// # Errors
/// `Inval` for a set without it.
pub fn set_node_affinity<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let argument = Argument::<BITMAP_ARGUMENT>::read(vcpu, body)?;
    if read_set(vcpu, &argument, 0)?.and(&nodes()) == nodes() {
        Ok(0)
    } else {
        Err(Errno::Inval)
    }
}

/// `XEN_DOMCTL_getnodeaffinity`.
pub fn get_node_affinity<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let argument = Argument::<BITMAP_ARGUMENT>::read(vcpu, body)?;
    write_set(vcpu, &argument, 0, nodes()).map(|()| 0)
}
