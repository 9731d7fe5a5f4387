//! One end of an event channel.

use oxen_abi::event_channel::Virq;

use super::Peer;
use crate::id::{DomainId, Port, VcpuId};

/// What a port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing.
    Closed,
    /// Waits for that domain to bind to it.
    Unbound(DomainId),
    /// Connected to another port, here or in another domain.
    Interdomain(Peer),
    /// A virtual interrupt.
    Virq(Virq),
    /// The domain's own inter-processor events.
    Ipi,
}

/// A port's binding and the vCPU that its events go to.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    status: Status,
    /// Where events go; guests may move it.
    notify: VcpuId,
    /// The vCPU that a VIRQ was bound for, which stays.
    bound: VcpuId,
}

impl Channel {
    /// A free port.
    pub const CLOSED: Self = Self::new(Status::Closed, VcpuId(0));

    const fn new(status: Status, vcpu: VcpuId) -> Self {
        Self {
            status,
            notify: vcpu,
            bound: vcpu,
        }
    }

    /// Waits for `remote`.
    pub const fn unbound(remote: DomainId) -> Self {
        Self::new(Status::Unbound(remote), VcpuId(0))
    }

    /// Connected to `port` of `domain`.
    pub const fn interdomain(domain: DomainId, port: Port) -> Self {
        Self::new(Status::Interdomain(Peer { domain, port }), VcpuId(0))
    }

    /// A virtual interrupt.
    pub const fn virq(virq: Virq, vcpu: VcpuId) -> Self {
        Self::new(Status::Virq(virq), vcpu)
    }

    /// Inter-processor events to `vcpu`.
    pub const fn ipi(vcpu: VcpuId) -> Self {
        Self::new(Status::Ipi, vcpu)
    }

    /// What it is bound to.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The far end, for a connected port.
    pub const fn peer(&self) -> Option<Peer> {
        match self.status {
            Status::Interdomain(peer) => Some(peer),
            _ => None,
        }
    }

    /// The virtual interrupt and the vCPU it was bound for.
    pub const fn bound_virq(&self) -> Option<(Virq, VcpuId)> {
        match self.status {
            Status::Virq(virq) => Some((virq, self.bound)),
            _ => None,
        }
    }

    /// The vCPU that events go to.
    pub const fn notify_vcpu(&self) -> VcpuId {
        self.notify
    }

    /// Sends events to another vCPU.
    pub const fn set_notify_vcpu(&mut self, vcpu: VcpuId) {
        self.notify = vcpu;
    }

    /// Waits for `remote` again after its end was closed; its vCPU stays.
    pub const fn unbind(&mut self, remote: DomainId) {
        self.status = Status::Unbound(remote);
    }

    /// Connects an unbound port; its vCPU stays.
    pub const fn bind_to(&mut self, domain: DomainId, port: Port) {
        self.status = Status::Interdomain(Peer { domain, port });
    }
}
