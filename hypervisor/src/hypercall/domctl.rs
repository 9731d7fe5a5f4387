//! `domctl`: the control domain makes, watches and ends domains.

use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::domctl::{DOMAIN, HEADER, INTERFACE_VERSION, cmd, create, info};
use oxen_core::address::PAGE_SIZE;
use oxen_core::grant::Limits;
use oxen_core::id::DomainId;
use oxen_core::memory::p2m::ADDRESS_BITS;
use oxen_core::time::RunstateKind;

use super::arguments::{Argument, write_bytes};
use super::{
    Arguments, Outcome, cpu_policy, guest_memory, hvm_context, limits, scheduling, settings,
    versioned_handler,
};
use crate::domain::{Domain, life, registry};
use crate::time;
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// A call: where its structure is, and which domain it names.
struct Call {
    pointer: u64,
    domain: DomainId,
}

impl Call {
    const fn body(&self) -> u64 {
        self.pointer.wrapping_add(HEADER)
    }

    /// The domain, which must exist.
    fn target(&self) -> Result<Arc<Domain>, Errno> {
        registry::get(self.domain).ok_or(Errno::Srch)
    }

    /// The domain, which must not be the caller.
    fn other<H: Vcpu>(&self, vcpu: &Running<H>) -> Result<Arc<Domain>, Errno> {
        let domain = self.target()?;
        if domain.id == vcpu.domain.id {
            return Err(Errno::Inval);
        }
        Ok(domain)
    }
}

type Handler<H> = fn(&Running<H>, &Call) -> Outcome;

struct Table<H>(core::marker::PhantomData<H>);

impl<H: Vcpu> Table<H> {
    const HANDLERS: &'static [(u32, Handler<H>)] = &[
        (cmd::CREATE, create_domain),
        (cmd::DESTROY, |vcpu, call| {
            call.other(vcpu)?.destroy().map(|()| 0)
        }),
        (cmd::PAUSE, |vcpu, call| {
            call.other(vcpu)?.pause();
            Ok(0)
        }),
        (cmd::UNPAUSE, |_, call| call.target()?.unpause().map(|()| 0)),
        (cmd::GET_INFO, get_info),
        (cmd::MAX_MEM, |vcpu, call| {
            limits::max_memory(vcpu, &*call.target()?, call.body())
        }),
        (cmd::GET_VCPU_CONTEXT, |vcpu, call| {
            hvm_context::get_vcpu(vcpu, &*call.other(vcpu)?, call.body())
        }),
        (cmd::GET_VCPU_INFO, get_vcpu_info),
        (cmd::MAX_VCPUS, max_vcpus),
        (cmd::SCHEDULER_OP, |vcpu, call| {
            scheduling::domain_shares(vcpu, &*call.target()?, call.body())
        }),
        (cmd::SET_AFFINITY, |vcpu, call| {
            scheduling::set_affinity(vcpu, &*call.target()?, call.body())
        }),
        (cmd::GET_AFFINITY, |vcpu, call| {
            scheduling::get_affinity(vcpu, &*call.target()?, call.body())
        }),
        (cmd::SET_NODE_AFFINITY, |vcpu, call| {
            call.target()?;
            scheduling::set_node_affinity(vcpu, call.body())
        }),
        (cmd::GET_NODE_AFFINITY, |vcpu, call| {
            call.target()?;
            scheduling::get_node_affinity(vcpu, call.body())
        }),
        (cmd::SET_HANDLE, set_handle),
        (cmd::SET_HVM_CONTEXT, |vcpu, call| {
            hvm_context::set(vcpu, &*call.other(vcpu)?, call.body())
        }),
        (cmd::GET_HVM_CONTEXT, |vcpu, call| {
            hvm_context::get(vcpu, &*call.other(vcpu)?, call.body())
        }),
        (cmd::GET_HVM_CONTEXT_PARTIAL, |vcpu, call| {
            hvm_context::get_partial(vcpu, &*call.other(vcpu)?, call.body())
        }),
        (cmd::SEND_TRIGGER, |vcpu, call| {
            settings::send_trigger(vcpu, &*call.target()?, call.body())
        }),
        (cmd::SET_TIME_OFFSET, |vcpu, call| {
            settings::set_time_offset(vcpu, &*call.target()?, call.body())
        }),
        (cmd::GET_CPU_POLICY, |vcpu, call| {
            cpu_policy::get(vcpu, &*call.target()?, call.body())
        }),
        (cmd::SET_CPU_POLICY, |vcpu, call| {
            cpu_policy::set(vcpu, &*call.other(vcpu)?, call.body())
        }),
        (cmd::GDBSX_GUEST_MEMORY, |vcpu, call| {
            guest_memory::copy(vcpu, &*call.target()?, call.body())
        }),
        // Guests are not watched from outside.
        (cmd::VM_EVENT, |_, call| {
            call.target().and(Err(Errno::OpNotSupp))
        }),
        (cmd::MONITOR, |_, call| {
            call.target().and(Err(Errno::OpNotSupp))
        }),
        // One clock for all: nothing to set.
        (cmd::SET_TSC_INFO, |_, call| call.target().map(|_| 0)),
        (cmd::GET_PAGING_MEMPOOL, |vcpu, call| {
            limits::paging_memory(vcpu, &*call.target()?, call.body())
        }),
        (cmd::SET_PAGING_MEMPOOL, |vcpu, call| {
            limits::set_paging_memory(vcpu, &*call.other(vcpu)?, call.body())
        }),
    ];
}

/// Dispatches on the command in the structure's first word.
pub fn domctl<H: Vcpu>(vcpu: &mut Running<H>, &[pointer, ..]: &Arguments) -> Outcome {
    let header = Argument::<{ HEADER as usize }>::read(vcpu, pointer)?;
    let handlers = Table::<H>::HANDLERS;
    let handler = versioned_handler(&header, INTERFACE_VERSION, handlers, &UNKNOWN, "domctl")?;
    let call = Call {
        pointer,
        domain: DomainId(header.u16(DOMAIN as usize)),
    };
    handler(vcpu, &call)
}

fn create_domain<H: Vcpu>(vcpu: &Running<H>, call: &Call) -> Outcome {
    let argument = Argument::<64>::read(vcpu, call.body())?;
    let flags = argument.u32(create::FLAGS);
    let is_pvh = flags & create::FLAG_HVM != 0
        && flags & create::FLAG_HAP != 0
        && argument.u32(create::EMULATION) == create::EMULATE_LOCAL_APIC;
    if !is_pvh || flags & !create::FLAGS_KNOWN != 0 || !limits::are_known(&argument) {
        return Err(Errno::Inval);
    }
    let asked =
        (call.domain.0 != 0 && call.domain < DomainId::FIRST_RESERVED).then_some(call.domain);
    let mut handle = [0; 16];
    handle.copy_from_slice(&argument.bytes()[create::HANDLE..][..16]);
    let grants = Limits::asked(
        argument.u32(create::MAX_GRANT_FRAMES) as i32,
        argument.u32(create::MAX_MAPTRACK_FRAMES) as i32,
        argument.u32(create::GRANT_OPTIONS),
    )?;
    let domain = life::create(asked, argument.u32(create::MAX_VCPUS), handle, grants)?;
    limits::apply(&argument, &domain);
    let written = write_bytes(
        vcpu,
        call.pointer.wrapping_add(DOMAIN),
        &domain.id.0.to_le_bytes(),
    );
    if written.is_err() {
        // Nobody would know of it.
        while domain.destroy() == Err(Errno::Restart) {
            core::hint::spin_loop();
        }
    }
    written.map(|()| 0)
}

/// What `getdomaininfo` says of a domain (`xen_domctl_getdomaininfo`).
pub fn describe(domain: &Domain) -> [u8; info::SIZE] {
    let mut bytes = [0; info::SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let own = domain.own.lock().total() / PAGE_SIZE as u64;
    let in_state = |wanted: RunstateKind| {
        domain
            .vcpus
            .iter()
            .any(|vcpu| vcpu.runstate.lock().state() == wanted)
    };
    let blocked = domain
        .vcpus
        .iter()
        .all(|vcpu| !vcpu.is_up() || vcpu.runstate.lock().state() == RunstateKind::Blocked);
    let online = domain.vcpus.iter().filter(|vcpu| vcpu.is_up()).count();
    let mut flags = info::HVM | info::HAP;
    for (set, flag) in [
        (domain.life.is_dying(), info::DYING),
        (domain.life.is_paused(), info::PAUSED),
        (in_state(RunstateKind::Running), info::RUNNING),
        (blocked, info::BLOCKED),
    ] {
        if set {
            flags |= flag;
        }
    }
    if let Some(reason) = domain.life.shutdown_reason() {
        flags |= info::SHUTDOWN | (reason & 0xFF) << info::SHUTDOWN_SHIFT;
    }
    put(0, &domain.id.0.to_le_bytes());
    put(info::FLAGS, &flags.to_le_bytes());
    put(info::TOTAL_PAGES, &own.to_le_bytes());
    put(info::MAX_PAGES, &domain.life.max_pages().to_le_bytes());
    let claimed = domain.control.claim.lock().frames();
    put(info::OUTSTANDING_PAGES, &claimed.to_le_bytes());
    put(info::SHARED_INFO, &u64::MAX.to_le_bytes());
    put(info::CPU_TIME, &domain.cpu_time().to_le_bytes());
    put(info::ONLINE_VCPUS, &(online as u32).to_le_bytes());
    let last = domain.vcpus.len() as u32 - 1;
    put(info::MAX_VCPU_ID, &last.to_le_bytes());
    put(info::HANDLE, &*domain.handle.lock());
    put(info::ADDRESS_BITS, &[ADDRESS_BITS as u8]);
    put(info::EMULATION, &create::EMULATE_LOCAL_APIC.to_le_bytes());
    bytes
}

/// The first domain whose number is not below the one named; callers compare.
fn get_info<H: Vcpu>(vcpu: &Running<H>, call: &Call) -> Outcome {
    if call.domain >= DomainId::FIRST_RESERVED {
        return Err(Errno::Inval);
    }
    let domain = registry::first_from(call.domain).ok_or(Errno::Srch)?;
    write_bytes(vcpu, call.body(), &describe(&domain))?;
    let id = domain.id.0.to_le_bytes();
    write_bytes(vcpu, call.pointer.wrapping_add(DOMAIN), &id).map(|()| 0)
}

fn get_vcpu_info<H: Vcpu>(vcpu: &Running<H>, call: &Call) -> Outcome {
    let mut argument = Argument::<24>::read(vcpu, call.body())?;
    let domain = call.target()?;
    let target = domain
        .vcpus
        .get(argument.u32(0) as usize)
        .ok_or(Errno::NoEnt)?;
    let runstate = target.runstate.lock();
    let flags = [
        target.is_up(),
        runstate.state() == RunstateKind::Blocked,
        runstate.state() == RunstateKind::Running,
    ];
    for (index, flag) in flags.into_iter().enumerate() {
        argument.set_u8(4 + index, flag.into());
    }
    let ran = runstate.spent(RunstateKind::Running, time::nanos());
    drop(runstate);
    argument.set_u64(8, ran);
    argument.set_u32(16, target.cpu().0.into());
    argument.write(vcpu, call.body()).map(|()| 0)
}

/// vCPUs are made with the domain: the number can only be confirmed.
fn max_vcpus<H: Vcpu>(vcpu: &Running<H>, call: &Call) -> Outcome {
    let wanted = Argument::<4>::read(vcpu, call.body())?.u32(0) as usize;
    if call.target()?.vcpus.len() == wanted {
        Ok(0)
    } else {
        Err(Errno::Inval)
    }
}

fn set_handle<H: Vcpu>(vcpu: &Running<H>, call: &Call) -> Outcome {
    let argument = Argument::<16>::read(vcpu, call.body())?;
    *call.target()?.handle.lock() = *argument.bytes();
    Ok(0)
}
