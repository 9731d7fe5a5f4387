//! `event_channel_op`.

use core::sync::atomic::AtomicU64;

use oxen_abi::Errno;
use oxen_abi::event_channel::{Virq, cmd, fifo};
use oxen_core::address::Gfn;
use oxen_core::event::{Peer, Status};
use oxen_core::id::{DomainId, Port, VcpuId};

use super::arguments::{Argument, target_domain};
use super::{Arguments, Outcome, unknown_operation};
use crate::domain::{Domain, registry};
use crate::vcpu::Running;
use crate::virt::Vcpu;

static UNKNOWN: AtomicU64 = AtomicU64::new(0);

/// Dispatches on the command.
pub fn event_channel_op<H: Vcpu>(
    vcpu: &mut Running<H>,
    &[command, pointer, ..]: &Arguments,
) -> Outcome {
    match command {
        cmd::SEND => {
            let (domain, port) = (&*vcpu.domain, port(vcpu, pointer)?);
            if let Some(peer) = domain.events.send(port, domain)? {
                signal(domain, port, peer);
            }
            Ok(0)
        }
        cmd::UNMASK => {
            let domain = &*vcpu.domain;
            domain
                .events
                .unmask(port(vcpu, pointer)?, domain)
                .map(|()| 0)
        }
        cmd::BIND_VIRQ => bind_virq(vcpu, pointer),
        cmd::BIND_IPI => bind_ipi(vcpu, pointer),
        cmd::BIND_VCPU => bind_vcpu(vcpu, pointer),
        cmd::ALLOC_UNBOUND => alloc_unbound(vcpu, pointer),
        cmd::BIND_INTERDOMAIN => bind_interdomain(vcpu, pointer),
        cmd::CLOSE => {
            let port = port(vcpu, pointer)?;
            if let Some(peer) = vcpu.domain.events.close(port)? {
                vcpu.domain.tell_far_end(port, peer);
            }
            Ok(0)
        }
        cmd::STATUS => status(vcpu, pointer),
        cmd::RESET => {
            target_domain(vcpu, Argument::<2>::read(vcpu, pointer)?.u16(0))?.reset_events();
            Ok(0)
        }
        cmd::INIT_CONTROL => init_control(vcpu, pointer),
        cmd::EXPAND_ARRAY => {
            let gfn = Gfn(Argument::<8>::read(vcpu, pointer)?.u64(0));
            vcpu.domain.expand_event_array(gfn).map(|()| 0)
        }
        cmd::SET_PRIORITY => {
            let argument = Argument::<8>::read(vcpu, pointer)?;
            vcpu.domain
                .events
                .set_priority(Port(argument.u32(0)), argument.u32(4))
                .map(|()| 0)
        }
        // For guests without an APIC: PVH domains have one.
        cmd::BIND_PIRQ => Err(Errno::NoSys),
        _ => unknown_operation(&UNKNOWN, "event_channel_op", command),
    }
}

/// An event on its way to the far end of `port`, in another domain.
fn signal(domain: &Domain, port: Port, peer: Peer) {
    if let Some(far) = registry::get(peer.domain) {
        let sender = Peer {
            domain: domain.id,
            port,
        };
        far.events.signal(peer.port, sender, &*far);
    }
}

fn port<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Result<Port, Errno> {
    Argument::<4>::read(vcpu, pointer).map(|argument| Port(argument.u32(0)))
}

fn vcpu_id(number: u32) -> Result<VcpuId, Errno> {
    u16::try_from(number).map(VcpuId).map_err(|_| Errno::NoEnt)
}

fn bind_virq<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<12>::read(vcpu, pointer)?;
    let port = vcpu
        .domain
        .events
        .bind_virq(Virq(argument.u32(0)), vcpu_id(argument.u32(4))?)?;
    argument.set_u32(8, port.0);
    argument.write(vcpu, pointer).map(|()| 0)
}

fn bind_ipi<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<8>::read(vcpu, pointer)?;
    let port = vcpu.domain.events.bind_ipi(vcpu_id(argument.u32(0))?)?;
    argument.set_u32(4, port.0);
    argument.write(vcpu, pointer).map(|()| 0)
}

fn bind_vcpu<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let argument = Argument::<8>::read(vcpu, pointer)?;
    vcpu.domain
        .events
        .bind_vcpu(Port(argument.u32(0)), vcpu_id(argument.u32(4))?)
        .map(|()| 0)
}

fn alloc_unbound<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<8>::read(vcpu, pointer)?;
    let domain = target_domain(vcpu, argument.u16(0))?;
    let remote = resolve(vcpu, argument.u16(2));
    let port = domain.events.alloc_unbound(remote)?;
    argument.set_u32(4, port.0);
    argument.write(vcpu, pointer).map(|()| 0)
}

fn bind_interdomain<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<12>::read(vcpu, pointer)?;
    let domain = &*vcpu.domain;
    // Whoever waits for the caller may be bound to: no privilege is needed.
    let remote = registry::get(resolve(vcpu, argument.u16(0))).ok_or(Errno::Srch)?;
    let port = domain
        .events
        .bind_interdomain(&remote.events, Port(argument.u32(4)), domain)?;
    argument.set_u32(8, port.0);
    argument.write(vcpu, pointer).map(|()| 0)
}

fn init_control<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<24>::read(vcpu, pointer)?;
    vcpu.domain.init_event_control(
        vcpu_id(argument.u32(12))?,
        Gfn(argument.u64(0)),
        argument.u32(8),
    )?;
    argument.set_u8(16, fifo::LINK_BITS);
    argument.write(vcpu, pointer).map(|()| 0)
}

fn status<H: Vcpu>(vcpu: &Running<H>, pointer: u64) -> Outcome {
    let mut argument = Argument::<24>::read(vcpu, pointer)?;
    let domain = target_domain(vcpu, argument.u16(0))?;
    let (number, target, status) = domain.events.status(Port(argument.u32(4)))?;
    argument.set_u32(8, number);
    argument.set_u32(12, target.0.into());
    match status {
        Status::Unbound(remote) => argument.set_u16(16, remote.0),
        Status::Interdomain(peer) => {
            argument.set_u16(16, peer.domain.0);
            argument.set_u32(20, peer.port.0);
        }
        Status::Virq(virq) => argument.set_u32(16, virq.0),
        Status::Ipi | Status::Closed => {}
    }
    argument.write(vcpu, pointer).map(|()| 0)
}

/// A domain number in which `DOMID_SELF` stands for the caller.
fn resolve<H: Vcpu>(vcpu: &Running<H>, domain: u16) -> DomainId {
    if DomainId(domain) == DomainId::SELF {
        vcpu.domain.id
    } else {
        DomainId(domain)
    }
}
