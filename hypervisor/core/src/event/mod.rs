//! Event channels of one domain, with the 2-level ABI (`public/event_channel.h`).
//!
//! A channel is a port that can be made pending. Pending, mask and selector bits lie in pages shared with the guest;
//! everything else is here, behind one lock per domain. Where an operation needs two domains, the lock of the one with
//! the lower number is taken first.

mod channel;
mod two_level;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use oxen_abi::Errno;
use oxen_abi::event_channel::{TWO_LEVEL_PORTS, Virq, status};
use spin::Mutex;

use crate::guest_page::GuestPage;
use crate::id::{DomainId, Port, VcpuId};

pub use channel::{Channel, Status};
pub use two_level::VcpuInfo;

/// What the machine must do when an event has been made visible to a vCPU.
pub trait Notify {
    /// The vCPU's upcall flag went from 0 to 1, or it polls for the port: it must look.
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
    info: Mutex<VcpuInfo>,
    polling: AtomicBool,
    polled: Mutex<Vec<Port>>,
}

/// The event channels of one domain.
pub struct EventChannels {
    domain: DomainId,
    shared_info: GuestPage,
    vcpus: Vec<VcpuEvents>,
    channels: Mutex<Vec<Channel>>,
    limit: u32,
}

impl EventChannels {
    /// No channels. Each vCPU's information is the legacy one in the shared page, for those that have one there.
    pub fn new(domain: DomainId, shared_info: GuestPage, vcpus: usize, limit: u32) -> Self {
        let vcpus = (0..vcpus)
            .map(|index| VcpuEvents {
                info: Mutex::new(VcpuInfo::legacy(shared_info, index)),
                polling: AtomicBool::new(false),
                polled: Mutex::new(Vec::new()),
            })
            .collect();
        Self {
            domain,
            shared_info,
            vcpus,
            channels: Mutex::new(Vec::new()),
            limit: limit.min(TWO_LEVEL_PORTS),
        }
    }

    /// Where a vCPU's `vcpu_info` lies now.
    pub fn vcpu_info(&self, vcpu: VcpuId) -> Option<VcpuInfo> {
        self.vcpus
            .get(vcpu.index())
            .map(|events| *events.info.lock())
    }

    /// Moves a vCPU's information to a page of the guest's choice, once.
    ///
    /// # Errors
    /// `NoEnt` for a vCPU that does not exist, `Inval` if it was moved before, `NoSys` for an unaligned or crossing place.
    pub fn register_vcpu_info(
        &self,
        vcpu: VcpuId,
        page: GuestPage,
        offset: usize,
        notify: &impl Notify,
    ) -> Result<(), Errno> {
        let events = self.vcpus.get(vcpu.index()).ok_or(Errno::NoEnt)?;
        events.info.lock().move_to(page, offset)?;
        // Everything may be pending at the new place: the guest looks once more than it must.
        notify.notify(vcpu);
        Ok(())
    }

    /// Whether the vCPU has been told that something is pending and has not looked yet.
    pub fn upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.vcpus
            .get(vcpu.index())
            .is_some_and(|events| events.info.lock().upcall_pending())
    }

    /// `EVTCHNOP_alloc_unbound`: a port that `remote` may bind to.
    ///
    /// # Errors
    /// `NoSpc` at the domain's limit.
    pub fn alloc_unbound(&self, remote: DomainId) -> Result<Port, Errno> {
        self.allocate(&mut self.channels.lock(), Channel::unbound(remote))
    }

    /// `EVTCHNOP_bind_ipi`: a port for events between the domain's own vCPUs.
    ///
    /// # Errors
    /// `NoEnt` for a vCPU that does not exist, `NoSpc`.
    pub fn bind_ipi(&self, vcpu: VcpuId) -> Result<Port, Errno> {
        self.check_vcpu(vcpu)?;
        self.allocate(&mut self.channels.lock(), Channel::ipi(vcpu))
    }

    /// `EVTCHNOP_bind_virq`.
    ///
    /// # Errors
    /// `Inval` for a number that does not exist or a global one not on vCPU 0, `NoEnt`, `Exist`, `NoSpc`.
    pub fn bind_virq(&self, virq: Virq, vcpu: VcpuId) -> Result<Port, Errno> {
        if virq.0 >= Virq::COUNT || (!virq.is_per_vcpu() && vcpu.0 != 0) {
            return Err(Errno::Inval);
        }
        self.check_vcpu(vcpu)?;
        let mut channels = self.channels.lock();
        if find_virq(&channels, virq, vcpu).is_some() {
            return Err(Errno::Exist);
        }
        self.allocate(&mut channels, Channel::virq(virq, vcpu))
    }

    /// `EVTCHNOP_bind_interdomain`: `self` is the caller, `remote` holds the unbound port, and may be `self` again.
    ///
    /// # Errors
    /// `Inval` if the remote port is not unbound for the caller, `NoSpc`.
    pub fn bind_interdomain(
        &self,
        remote: &Self,
        remote_port: Port,
        notify: &impl Notify,
    ) -> Result<Port, Errno> {
        let local_port = if core::ptr::eq(self, remote) {
            let mut channels = self.channels.lock();
            Self::check_unbound(&channels, remote_port, self.domain)?;
            let port = self.allocate(
                &mut channels,
                Channel::interdomain(remote.domain, remote_port),
            )?;
            channels[remote_port.index()].bind_to(self.domain, port);
            port
        } else {
            let (mut local, mut far) = self.lock_pair(remote);
            Self::check_unbound(&far, remote_port, self.domain)?;
            let port =
                self.allocate(&mut local, Channel::interdomain(remote.domain, remote_port))?;
            far[remote_port.index()].bind_to(self.domain, port);
            port
        };
        // A frontend may have sent before the backend bound: the first look is free.
        self.set_pending(local_port, notify);
        Ok(local_port)
    }

    /// `EVTCHNOP_close`: the far end of an interdomain channel, which the caller must tell with [`Self::unbind_from`].
    ///
    /// # Errors
    /// `Inval` for a port that is not open.
    pub fn close(&self, port: Port) -> Result<Option<Peer>, Errno> {
        let mut channels = self.channels.lock();
        let channel = open(&mut channels, port)?;
        let peer = channel.peer();
        let own_peer = peer.filter(|peer| peer.domain == self.domain);
        *channel = Channel::CLOSED;
        two_level::clear_pending(&self.shared_info, port);
        if let Some(peer) = own_peer
            && let Some(far) = channels.get_mut(peer.port.index())
            && far.peer()
                == Some(Peer {
                    domain: self.domain,
                    port,
                })
        {
            *far = Channel::unbound(self.domain);
        }
        Ok(peer.filter(|peer| peer.domain != self.domain))
    }

    /// The far end `peer_port` of `peer` was closed: this end goes back to unbound, for that domain.
    pub fn unbind_from(&self, port: Port, peer: Peer) {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get_mut(port.index())
            && channel.peer() == Some(peer)
        {
            *channel = Channel::unbound(peer.domain);
        }
    }

    /// `EVTCHNOP_send`: returns the far end that the caller must signal, with [`Self::signal`], for interdomain channels.
    ///
    /// # Errors
    /// `Inval` for a port that is closed or cannot be sent to.
    pub fn send(&self, port: Port, notify: &impl Notify) -> Result<Option<Peer>, Errno> {
        let mut channels = self.channels.lock();
        let channel = open(&mut channels, port)?;
        match channel.status() {
            Status::Interdomain(peer) if peer.domain == self.domain => {
                let vcpu = channels.get(peer.port.index()).map(|far| far.notify_vcpu());
                drop(channels);
                if let Some(vcpu) = vcpu {
                    self.mark(peer.port, vcpu, notify);
                }
                Ok(None)
            }
            Status::Interdomain(peer) => Ok(Some(peer)),
            Status::Ipi => {
                let vcpu = channel.notify_vcpu();
                drop(channels);
                self.mark(port, vcpu, notify);
                Ok(None)
            }
            Status::Unbound(_) => Ok(None),
            Status::Closed | Status::Virq(_) => Err(Errno::Inval),
        }
    }

    /// Makes the near end of `peer`'s channel pending, if it still is.
    pub fn signal(&self, port: Port, peer: Peer, notify: &impl Notify) {
        let channels = self.channels.lock();
        let vcpu = channels
            .get(port.index())
            .filter(|channel| channel.peer() == Some(peer))
            .map(Channel::notify_vcpu);
        drop(channels);
        if let Some(vcpu) = vcpu {
            self.mark(port, vcpu, notify);
        }
    }

    /// Raises a VIRQ of a vCPU (0 for global ones); nothing happens where the guest has not bound it.
    pub fn raise_virq(&self, vcpu: VcpuId, virq: Virq, notify: &impl Notify) {
        let channels = self.channels.lock();
        let port = find_virq(&channels, virq, vcpu);
        let target = port
            .and_then(|port| channels.get(port.index()))
            .map(Channel::notify_vcpu);
        drop(channels);
        if let (Some(port), Some(target)) = (port, target) {
            self.mark(port, target, notify);
        }
    }

    /// `EVTCHNOP_status`.
    ///
    /// # Errors
    /// `Inval` for a port beyond the table.
    pub fn status(&self, port: Port) -> Result<(u32, VcpuId, Status), Errno> {
        let channels = self.channels.lock();
        let channel = match channels.get(port.index()) {
            Some(channel) => *channel,
            None if port.0 < self.limit => Channel::CLOSED,
            None => return Err(Errno::Inval),
        };
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
        let mut channels = self.channels.lock();
        let channel = open(&mut channels, port)?;
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
        let vcpu = open(&mut self.channels.lock(), port)?.notify_vcpu();
        if let Some(events) = self.vcpus.get(vcpu.index())
            && two_level::unmask(&self.shared_info, &events.info.lock(), port)
        {
            notify.notify(vcpu);
        }
        Ok(())
    }

    /// `EVTCHNOP_reset`: closes every channel; returns the far ends to be told.
    pub fn reset(&self) -> Vec<(Port, Peer)> {
        let ports = self.channels.lock().len();
        (1..ports as u32)
            .filter_map(|port| {
                self.close(Port(port))
                    .ok()
                    .flatten()
                    .map(|peer| (Port(port), peer))
            })
            .collect()
    }

    /// Starts a poll: returns false if one of the ports is pending already, so that there is nothing to wait for.
    ///
    /// # Errors
    /// `Inval` for a port beyond the table.
    pub fn begin_poll(&self, vcpu: VcpuId, ports: &[Port]) -> Result<bool, Errno> {
        if ports.iter().any(|port| port.0 == 0 || port.0 >= self.limit) {
            return Err(Errno::Inval);
        }
        let events = self.vcpus.get(vcpu.index()).ok_or(Errno::NoEnt)?;
        *events.polled.lock() = ports.to_vec();
        // The flag is set before the ports are looked at, and senders look at the flag after they set the bit: whatever
        // the order, one of the two sees the other.
        events.polling.store(true, Ordering::SeqCst);
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
            .is_some_and(|events| events.polling.load(Ordering::SeqCst))
    }

    /// Ends a poll.
    pub fn end_poll(&self, vcpu: VcpuId) {
        if let Some(events) = self.vcpus.get(vcpu.index()) {
            events.polling.store(false, Ordering::SeqCst);
        }
    }

    /// Open channels, for the debug keys.
    pub fn for_each(&self, mut each: impl FnMut(Port, &Channel, bool)) {
        let channels = self.channels.lock();
        for (index, channel) in channels.iter().enumerate() {
            if channel.status() != Status::Closed {
                let port = Port(index as u32);
                each(
                    port,
                    channel,
                    two_level::is_pending(&self.shared_info, port),
                );
            }
        }
    }

    fn set_pending(&self, port: Port, notify: &impl Notify) {
        let vcpu = self
            .channels
            .lock()
            .get(port.index())
            .map_or(VcpuId(0), Channel::notify_vcpu);
        self.mark(port, vcpu, notify);
    }

    /// Sets the bits, and tells the vCPU and whoever polls for the port.
    fn mark(&self, port: Port, vcpu: VcpuId, notify: &impl Notify) {
        let Some(events) = self.vcpus.get(vcpu.index()) else {
            return;
        };
        let Some(announce) = two_level::set_pending(&self.shared_info, &events.info, port) else {
            return;
        };
        if announce {
            notify.notify(vcpu);
        }
        for (index, poller) in self.vcpus.iter().enumerate() {
            if poller.polling.load(Ordering::SeqCst)
                && poller.polled.lock().contains(&port)
                && poller.polling.swap(false, Ordering::SeqCst)
            {
                notify.notify(VcpuId(index as u16));
            }
        }
    }

    fn check_vcpu(&self, vcpu: VcpuId) -> Result<(), Errno> {
        self.vcpus.get(vcpu.index()).map(|_| ()).ok_or(Errno::NoEnt)
    }

    fn check_unbound(channels: &[Channel], port: Port, wanted: DomainId) -> Result<(), Errno> {
        match channels.get(port.index()).map(Channel::status) {
            Some(Status::Unbound(remote)) if remote == wanted => Ok(()),
            _ => Err(Errno::Inval),
        }
    }

    /// Puts a channel into the lowest free port.
    fn allocate(&self, channels: &mut Vec<Channel>, channel: Channel) -> Result<Port, Errno> {
        if channels.is_empty() {
            // Port 0 is never valid.
            push(channels, Channel::CLOSED)?;
        }
        let free = channels
            .iter()
            .skip(1)
            .position(|old| old.status() == Status::Closed)
            .map(|index| index + 1);
        match free {
            Some(index) => channels[index] = channel,
            None if channels.len() >= self.limit as usize => return Err(Errno::NoSpc),
            None => push(channels, channel)?,
        }
        let port = free.unwrap_or(channels.len() - 1);
        Ok(Port(port as u32))
    }

    #[allow(clippy::type_complexity, reason = "two guards, used in one place")]
    fn lock_pair<'a>(
        &'a self,
        other: &'a Self,
    ) -> (
        spin::MutexGuard<'a, Vec<Channel>>,
        spin::MutexGuard<'a, Vec<Channel>>,
    ) {
        if self.domain < other.domain {
            let first = self.channels.lock();
            (first, other.channels.lock())
        } else {
            let second = other.channels.lock();
            (self.channels.lock(), second)
        }
    }
}

fn push(channels: &mut Vec<Channel>, channel: Channel) -> Result<(), Errno> {
    channels.try_reserve(1).map_err(|_| Errno::NoMem)?;
    channels.push(channel);
    Ok(())
}

fn open(channels: &mut [Channel], port: Port) -> Result<&mut Channel, Errno> {
    channels
        .get_mut(port.index())
        .filter(|channel| channel.status() != Status::Closed)
        .ok_or(Errno::Inval)
}

fn find_virq(channels: &[Channel], virq: Virq, vcpu: VcpuId) -> Option<Port> {
    channels
        .iter()
        .position(|channel| channel.bound_virq() == Some((virq, vcpu)))
        .map(|index| Port(index as u32))
}

#[cfg(test)]
mod tests;
