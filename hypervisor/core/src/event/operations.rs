//! What a domain does with its ports: open, bind, send, close.

use oxen_abi::Errno;
use oxen_abi::event_channel::{Virq, status};
use spin::MutexGuard;

use super::table::Table;
use super::{Channel, EventChannels, Notify, Peer, Status};
use crate::id::{DomainId, Port, VcpuId};

impl EventChannels {
    /// `EVTCHNOP_alloc_unbound`: a port that `remote` may bind to.
    ///
    /// # Errors
    /// `NoSpc` at the domain's limit, `NoMem`.
    pub fn alloc_unbound(&self, remote: DomainId) -> Result<Port, Errno> {
        self.table.lock().allocate(Channel::unbound(remote))
    }

    /// `EVTCHNOP_bind_ipi`: a port for events between the domain's own vCPUs.
    ///
    /// # Errors
    /// `NoEnt` for a vCPU that does not exist, `NoSpc`, `NoMem`.
    pub fn bind_ipi(&self, vcpu: VcpuId) -> Result<Port, Errno> {
        self.check_vcpu(vcpu)?;
        self.table.lock().allocate(Channel::ipi(vcpu))
    }

    /// `EVTCHNOP_bind_virq`.
    ///
    /// # Errors
    /// `Inval` for a number that does not exist or a global one not on vCPU 0, `NoEnt`, `Exist`, `NoSpc`, `NoMem`.
    pub fn bind_virq(&self, virq: Virq, vcpu: VcpuId) -> Result<Port, Errno> {
        if virq.0 >= Virq::COUNT || (!virq.is_per_vcpu() && vcpu.0 != 0) {
            return Err(Errno::Inval);
        }
        self.check_vcpu(vcpu)?;
        let mut table = self.table.lock();
        if table.virq(virq, vcpu).is_some() {
            return Err(Errno::Exist);
        }
        table.allocate(Channel::virq(virq, vcpu))
    }

    /// `EVTCHNOP_bind_interdomain`: `self` is the caller, `remote` holds the unbound port, and may be `self` again.
    ///
    /// # Errors
    /// `Inval` if the remote port is not unbound for the caller, `NoSpc`, `NoMem`.
    pub fn bind_interdomain(
        &self,
        remote: &Self,
        remote_port: Port,
        notify: &impl Notify,
    ) -> Result<Port, Errno> {
        let near_end = Channel::interdomain(remote.domain, remote_port);
        let port = if core::ptr::eq(self, remote) {
            let mut table = self.table.lock();
            table.check_unbound(remote_port, self.domain)?;
            let port = table.allocate(near_end)?;
            table.open(remote_port)?.bind_to(self.domain, port);
            self.mark(&mut table, port, notify);
            port
        } else {
            let (mut near, mut far) = self.lock_pair(remote);
            far.check_unbound(remote_port, self.domain)?;
            let port = near.allocate(near_end)?;
            far.open(remote_port)?.bind_to(self.domain, port);
            self.mark(&mut near, port, notify);
            port
        };
        Ok(port)
    }

    /// `EVTCHNOP_close`: the far end in another domain, if any, which the caller must tell with [`Self::unbind_from`].
    ///
    /// # Errors
    /// `Inval` for a port that is not open.
    pub fn close(&self, port: Port) -> Result<Option<Peer>, Errno> {
        let mut table = self.table.lock();
        let closed = table.free(port)?;
        let Some(peer) = closed.peer() else {
            return Ok(None);
        };
        if peer.domain != self.domain {
            return Ok(Some(peer));
        }
        let own_end = Peer {
            domain: self.domain,
            port,
        };
        Self::unbind(&mut table, peer.port, own_end);
        Ok(None)
    }

    /// The far end `peer` of `port` was closed: this end goes back to unbound, for that domain.
    pub fn unbind_from(&self, port: Port, peer: Peer) {
        Self::unbind(&mut self.table.lock(), port, peer);
    }

    /// `EVTCHNOP_send`: returns the far end that the caller must signal, with [`Self::signal`], for channels to other
    /// domains.
    ///
    /// # Errors
    /// `Inval` for a port that is closed or cannot be sent to.
    pub fn send(&self, port: Port, notify: &impl Notify) -> Result<Option<Peer>, Errno> {
        let mut table = self.table.lock();
        match table.open(port)?.status() {
            Status::Ipi => self.mark(&mut table, port, notify),
            Status::Interdomain(peer) if peer.domain == self.domain => {
                self.mark(&mut table, peer.port, notify);
            }
            Status::Interdomain(peer) => return Ok(Some(peer)),
            Status::Unbound(_) => {}
            Status::Closed | Status::Virq(_) => return Err(Errno::Inval),
        }
        Ok(None)
    }

    /// Makes `port` pending if its channel still leads to `peer`, the end that was sent to.
    pub fn signal(&self, port: Port, peer: Peer, notify: &impl Notify) {
        let mut table = self.table.lock();
        if table.get(port).and_then(|channel| channel.peer()) == Some(peer) {
            self.mark(&mut table, port, notify);
        }
    }

    /// Raises a VIRQ of a vCPU (0 for global ones); nothing happens where the guest has not bound it.
    pub fn raise_virq(&self, vcpu: VcpuId, virq: Virq, notify: &impl Notify) {
        let mut table = self.table.lock();
        if let Some(port) = table.virq(virq, vcpu) {
            self.mark(&mut table, port, notify);
        }
    }

    /// `EVTCHNOP_status`.
    ///
    /// # Errors
    /// `Inval` for a port beyond the table.
    pub fn status(&self, port: Port) -> Result<(u32, VcpuId, Status), Errno> {
        let channel = self.table.lock().get(port).ok_or(Errno::Inval)?;
        let number = match channel.status() {
            Status::Closed => status::CLOSED,
            Status::Unbound(_) => status::UNBOUND,
            Status::Interdomain(_) => status::INTERDOMAIN,
            Status::Virq(_) => status::VIRQ,
            Status::Ipi => status::IPI,
        };
        Ok((number, channel.notify_vcpu(), channel.status()))
    }

    /// `EVTCHNOP_bind_vcpu`.
    ///
    /// # Errors
    /// `Inval` for ports whose vCPU is fixed, `NoEnt` for a vCPU that does not exist.
    pub fn bind_vcpu(&self, port: Port, vcpu: VcpuId) -> Result<(), Errno> {
        self.check_vcpu(vcpu)?;
        let mut table = self.table.lock();
        let channel = table.open(port)?;
        let movable = match channel.status() {
            Status::Unbound(_) | Status::Interdomain(_) => true,
            Status::Virq(virq) => !virq.is_per_vcpu(),
            Status::Ipi | Status::Closed => false,
        };
        if !movable {
            return Err(Errno::Inval);
        }
        channel.set_notify_vcpu(vcpu);
        Ok(())
    }

    fn unbind(table: &mut Table, port: Port, peer: Peer) {
        if let Ok(channel) = table.open(port)
            && channel.peer() == Some(peer)
        {
            channel.unbind(peer.domain);
        }
    }

    pub(super) fn check_vcpu(&self, vcpu: VcpuId) -> Result<(), Errno> {
        self.vcpus.get(vcpu.index()).map(|_| ()).ok_or(Errno::NoEnt)
    }

    fn lock_pair<'a>(&'a self, other: &'a Self) -> (MutexGuard<'a, Table>, MutexGuard<'a, Table>) {
        if self.domain < other.domain {
            let near = self.table.lock();
            (near, other.table.lock())
        } else {
            let far = other.table.lock();
            (self.table.lock(), far)
        }
    }
}
