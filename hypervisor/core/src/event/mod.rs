//! Event channels of one domain, with the 2-level ABI (`public/event_channel.h`).
//!
//! A channel is a port that can be made pending. Pending, mask and selector bits lie in pages shared with the guest;
//! everything else is here, behind one lock per domain, which is also held while the bits are set: a port cannot be
//! closed, moved or given away between the look at its channel and the event. Where an operation needs two domains, the
//! lock of the one with the lower number is taken first.

mod channel;
mod poll;
mod table;
mod two_level;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::Errno;
use oxen_abi::event_channel::{TWO_LEVEL_PORTS, Virq, status};
use spin::{Mutex, MutexGuard, Once};

use crate::guest_page::GuestPage;
use crate::id::{DomainId, Port, VcpuId};

pub use channel::{Channel, Status};
use poll::Poll;
use table::Table;
use two_level::Change;
pub use two_level::VcpuInfo;

/// What the machine must do when an event has been made visible to a vCPU.
pub trait Notify {
    /// The vCPU's upcall flag went from 0 to 1, or it polls for the port: it must look.
    ///
    /// Called with the domain's channel lock held, so it must not call back into the channels.
    fn notify(&self, vcpu: VcpuId);
}

/// The far end of an interdomain channel, to be signalled by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Domain of the far end.
    pub domain: DomainId,
    /// Its port there.
    pub port: Port,
}

/// One vCPU's place in the event machinery.
struct VcpuEvents {
    legacy: VcpuInfo,
    /// Set once, with the channel lock held; read without, at each entry to the guest.
    registered: Once<VcpuInfo>,
    poll: Poll,
}

impl VcpuEvents {
    fn info(&self) -> &VcpuInfo {
        self.registered.get().unwrap_or(&self.legacy)
    }
}

/// The event channels of one domain.
pub struct EventChannels {
    domain: DomainId,
    shared_info: GuestPage,
    vcpus: Vec<VcpuEvents>,
    table: Mutex<Table>,
    /// Polls that wait, so that senders need not ask each vCPU.
    pollers: AtomicU32,
    limit: u32,
}

impl EventChannels {
    /// No channels. Each vCPU's information is the legacy one in the shared page, for those that have one there.
    /// At most `limit` port numbers, of which 0 is not used.
    pub fn new(domain: DomainId, shared_info: GuestPage, vcpus: usize, limit: u32) -> Self {
        let limit = limit.min(TWO_LEVEL_PORTS);
        let table = Mutex::new(Table::new(vcpus, limit));
        let vcpus = (0..vcpus)
            .map(|index| VcpuEvents {
                legacy: VcpuInfo::legacy(shared_info, index),
                registered: Once::new(),
                poll: Poll::new(),
            })
            .collect();
        Self {
            domain,
            shared_info,
            vcpus,
            table,
            pollers: AtomicU32::new(0),
            limit,
        }
    }

    /// Where a vCPU's `vcpu_info` lies now.
    pub fn vcpu_info(&self, vcpu: VcpuId) -> Option<VcpuInfo> {
        self.vcpus.get(vcpu.index()).map(|events| *events.info())
    }

    /// Moves a vCPU's information to a page of the guest's choice, once.
    ///
    /// # Errors
    /// `NoEnt` for a vCPU that does not exist, `Inval` if it was moved before, `NxIo` for an unaligned or crossing place.
    pub fn register_vcpu_info(
        &self,
        vcpu: VcpuId,
        page: GuestPage,
        offset: usize,
        notify: &impl Notify,
    ) -> Result<(), Errno> {
        let events = self.vcpus.get(vcpu.index()).ok_or(Errno::NoEnt)?;
        // Keeps senders away while the structure is in between.
        let _senders = self.table.lock();
        if events.registered.is_completed() {
            return Err(Errno::Inval);
        }
        let moved = events.legacy.copied_to(page, offset)?;
        events.registered.call_once(|| moved);
        // Everything may be pending at the new place: the guest looks once more than it must.
        notify.notify(vcpu);
        Ok(())
    }

    /// Whether the vCPU has been told that something is pending and has not looked yet.
    pub fn upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.vcpus
            .get(vcpu.index())
            .is_some_and(|events| events.info().upcall_pending())
    }

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
            self.mark(&table, port, notify);
            port
        } else {
            let (mut near, mut far) = self.lock_pair(remote);
            far.check_unbound(remote_port, self.domain)?;
            let port = near.allocate(near_end)?;
            far.open(remote_port)?.bind_to(self.domain, port);
            self.mark(&near, port, notify);
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
        two_level::clear_pending(&self.shared_info, port);
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
            Status::Ipi => self.mark(&table, port, notify),
            Status::Interdomain(peer) if peer.domain == self.domain => {
                self.mark(&table, peer.port, notify);
            }
            Status::Interdomain(peer) => return Ok(Some(peer)),
            Status::Unbound(_) => {}
            Status::Closed | Status::Virq(_) => return Err(Errno::Inval),
        }
        Ok(None)
    }

    /// Makes `port` pending if its channel still leads to `peer`, the end that was sent to.
    pub fn signal(&self, port: Port, peer: Peer, notify: &impl Notify) {
        let table = self.table.lock();
        if table.get(port).and_then(|channel| channel.peer()) == Some(peer) {
            self.mark(&table, port, notify);
        }
    }

    /// Raises a VIRQ of a vCPU (0 for global ones); nothing happens where the guest has not bound it.
    pub fn raise_virq(&self, vcpu: VcpuId, virq: Virq, notify: &impl Notify) {
        let table = self.table.lock();
        if let Some(port) = table.virq(virq, vcpu) {
            self.mark(&table, port, notify);
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

    /// `EVTCHNOP_unmask`: an event that came while the port was masked is announced now.
    ///
    /// # Errors
    /// `Inval` for a port that is not open.
    pub fn unmask(&self, port: Port, notify: &impl Notify) -> Result<(), Errno> {
        let mut table = self.table.lock();
        let vcpu = table.open(port)?.notify_vcpu();
        if let Some(events) = self.vcpus.get(vcpu.index())
            && two_level::unmask(&self.shared_info, events.info(), port)
        {
            notify.notify(vcpu);
        }
        Ok(())
    }

    /// `EVTCHNOP_reset` for a domain all of whose channels lead to itself; see [`Self::close_all`].
    pub fn reset(&self) {
        self.close_all(|_, peer| debug_assert_eq!(peer.domain, self.domain));
    }

    /// Closes every channel; `tell` gets each closed port with its far end in another domain, which must be told with
    /// [`Self::unbind_from`]. No lock is held meanwhile.
    pub fn close_all(&self, mut tell: impl FnMut(Port, Peer)) {
        let end = self.table.lock().end();
        for port in (1..end).map(Port) {
            if let Ok(Some(peer)) = self.close(port) {
                tell(port, peer);
            }
        }
    }

    /// Starts a poll: returns false if one of the ports is pending already, so that there is nothing to wait for.
    /// Else the wait lasts until one of them is, and the vCPU is notified, or until [`Self::end_poll`].
    ///
    /// # Errors
    /// `Inval` for a port beyond the table or more ports than the ABI allows, `NoEnt` for a vCPU that does not exist.
    pub fn begin_poll(&self, vcpu: VcpuId, ports: &[Port]) -> Result<bool, Errno> {
        if ports.iter().any(|port| port.0 == 0 || port.0 >= self.limit) {
            return Err(Errno::Inval);
        }
        let events = self.vcpus.get(vcpu.index()).ok_or(Errno::NoEnt)?;
        self.end_poll(vcpu);
        // Counted before it is armed: a sender that sees no pollers has set its bit before we look at it.
        self.pollers.fetch_add(1, Ordering::SeqCst);
        if !events.poll.arm(ports) {
            self.pollers.fetch_sub(1, Ordering::SeqCst);
            return Err(Errno::Inval);
        }
        let pending = ports
            .iter()
            .any(|&port| two_level::is_pending(&self.shared_info, port));
        if pending {
            self.end_poll(vcpu);
        }
        Ok(!pending)
    }

    /// Whether the poll is still waiting.
    pub fn is_polling(&self, vcpu: VcpuId) -> bool {
        self.vcpus
            .get(vcpu.index())
            .is_some_and(|events| events.poll.is_active())
    }

    /// Ends a poll.
    pub fn end_poll(&self, vcpu: VcpuId) {
        if let Some(events) = self.vcpus.get(vcpu.index())
            && events.poll.end()
        {
            self.pollers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Open channels, for the debug keys: the port, its channel, and whether it is pending.
    pub fn for_each(&self, mut each: impl FnMut(Port, &Channel, bool)) {
        let table = self.table.lock();
        for port in (1..table.end()).map(Port) {
            if let Some(channel) = table.get(port)
                && channel.status() != Status::Closed
            {
                each(port, &channel, self.is_pending(port));
            }
        }
    }

    /// Whether the port is pending, masked or not.
    pub fn is_pending(&self, port: Port) -> bool {
        two_level::is_pending(&self.shared_info, port)
    }

    /// Whether the guest has masked the port.
    pub fn is_masked(&self, port: Port) -> bool {
        two_level::is_masked(&self.shared_info, port)
    }

    /// Sets the bits, and tells the vCPU and whoever polls for the port.
    fn mark(&self, table: &Table, port: Port, notify: &impl Notify) {
        let Some(vcpu) = table.get(port).map(|channel| channel.notify_vcpu()) else {
            return;
        };
        let Some(events) = self.vcpus.get(vcpu.index()) else {
            return;
        };
        match two_level::set_pending(&self.shared_info, events.info(), port) {
            // Who polls for it has seen it.
            Change::None => return,
            Change::Pending => {}
            Change::Upcall => notify.notify(vcpu),
        }
        if self.pollers.load(Ordering::SeqCst) != 0 {
            self.end_polls_for(port, notify);
        }
    }

    #[cold]
    fn end_polls_for(&self, port: Port, notify: &impl Notify) {
        for (index, events) in self.vcpus.iter().enumerate() {
            if events.poll.end_for(port) {
                self.pollers.fetch_sub(1, Ordering::SeqCst);
                notify.notify(VcpuId(index as u16));
            }
        }
    }

    fn unbind(table: &mut Table, port: Port, peer: Peer) {
        if let Ok(channel) = table.open(port)
            && channel.peer() == Some(peer)
        {
            channel.unbind(peer.domain);
        }
    }

    fn check_vcpu(&self, vcpu: VcpuId) -> Result<(), Errno> {
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

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
