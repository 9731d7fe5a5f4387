//! `sysctl`: the machine, for the control domain.

use core::sync::atomic::AtomicU64;

use oxen_abi::domctl::info;
use oxen_abi::sysctl::{HEADER, INTERFACE_VERSION, SCHEDULER_CREDIT2, cmd, physinfo};
use oxen_core::id::DomainId;

use super::arguments::{Argument, write_bytes};
use super::{
    Arguments, Outcome, cpu_policy, domctl, machine, pools, scheduling, versioned_handler,
};
use crate::cpu;
use crate::domain::registry;
use crate::memory::frames;
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

type Handler<H> = fn(&Running<H>, u64) -> Outcome;

struct Table<H>(core::marker::PhantomData<H>);

impl<H: Vcpu> Table<H> {
    const HANDLERS: &'static [(u32, Handler<H>)] = &[
        (cmd::READ_CONSOLE, machine::read_console),
        (cmd::DEBUG_KEYS, machine::press_keys),
        (cmd::GET_CPU_INFO, machine::idle_times),
        (cmd::CPU_TOPOLOGY, machine::cpu_topology),
        (cmd::NUMA_INFO, machine::nodes),
        (cmd::CPU_POOL_OP, pools::operate),
        (cmd::PCI_TOPOLOGY, machine::pci_topology),
        (cmd::GET_CPU_FEATURES, cpu_policy::features),
        (cmd::GET_CPU_POLICY, cpu_policy::of_machine),
        // No CPU takes features away from whoever runs: guests are shown what CPUID exits show them.
        (cmd::GET_LEVELLING_CAPS, |vcpu, body| {
            write_bytes(vcpu, body, &0u32.to_le_bytes()).map(|()| 0)
        }),
        (cmd::PHYSINFO, describe_machine),
        (cmd::SCHED_ID, |vcpu, body| {
            write_bytes(vcpu, body, &SCHEDULER_CREDIT2.to_le_bytes()).map(|()| 0)
        }),
        (cmd::SCHEDULER_OP, scheduling::machine_parameters),
        (cmd::GET_DOMAIN_INFO_LIST, list_domains),
        (cmd::AVAIL_HEAP, |vcpu, body| {
            let free = frames::free_count() << 12;
            write_bytes(vcpu, body.wrapping_add(16), &free.to_le_bytes()).map(|()| 0)
        }),
    ];
}

/// Dispatches on the command in the structure's first word.
pub fn sysctl<H: Vcpu>(vcpu: &mut Running<H>, &[pointer, ..]: &Arguments) -> Outcome {
    let header = Argument::<{ HEADER as usize }>::read(vcpu, pointer)?;
    let handlers = Table::<H>::HANDLERS;
    let handler = versioned_handler(&header, INTERFACE_VERSION, handlers, &UNKNOWN, "sysctl")?;
    handler(vcpu, pointer.wrapping_add(HEADER))
}

fn describe_machine<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let cpus = cpu::percpu::all().count() as u32;
    let (free, total) = (frames::free_count(), frames::of_machine());
    let claimed = frames::claimed();
    // Tools take what is to be scrubbed for free beside what is told to be, and what is claimed for a part of the latter.
    let to_scrub = frames::to_scrub().min(free.saturating_sub(claimed));
    let mut bytes = [0; physinfo::SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let capabilities = physinfo::CAPABILITY_HVM
        | physinfo::CAPABILITY_HAP
        | physinfo::CAPABILITY_GRANT_V1
        | physinfo::CAPABILITY_GRANT_V2;
    for (at, value) in [
        (physinfo::THREADS_PER_CORE, 1),
        (physinfo::CORES_PER_SOCKET, cpus),
        (physinfo::CPUS, cpus),
        (physinfo::MAX_CPU, cpus - 1),
        (physinfo::NODES, 1),
        (physinfo::CPU_KHZ, time::khz() as u32),
        (physinfo::CAPABILITIES, capabilities),
    ] {
        put(at, &u32::to_le_bytes(value));
    }
    for (at, value) in [
        (physinfo::TOTAL_PAGES, total),
        (physinfo::FREE_PAGES, free - to_scrub),
        (physinfo::SCRUB_PAGES, to_scrub),
        (physinfo::OUTSTANDING_PAGES, claimed),
        (physinfo::MAX_MFN, frames::end().0.saturating_sub(1)),
    ] {
        put(at, &u64::to_le_bytes(value));
    }
    let features = cpu_policy::machine_features();
    for (index, word) in features
        .into_iter()
        .take(physinfo::HW_CAP_WORDS)
        .enumerate()
    {
        put(physinfo::HW_CAP + 4 * index, &word.to_le_bytes());
    }
    write_bytes(vcpu, body, &bytes).map(|()| 0)
}

fn list_domains<H: Vcpu>(vcpu: &Running<H>, body: u64) -> Outcome {
    let mut argument = Argument::<24>::read(vcpu, body)?;
    let (most, buffer) = (argument.u32(4), argument.u64(8));
    let mut next = DomainId(argument.u16(0));
    let mut count = 0;
    while count < most {
        let Some(domain) = registry::first_from(next) else {
            break;
        };
        let place = buffer.wrapping_add(u64::from(count) * info::SIZE as u64);
        write_bytes(vcpu, place, &domctl::describe(&domain))?;
        count += 1;
        next = DomainId(domain.id.0.saturating_add(1));
    }
    argument.set_u32(16, count);
    argument.write(vcpu, body).map(|()| 0)
}
