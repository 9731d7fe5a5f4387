//! The ports of one domain and what they are bound to.

use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_abi::event_channel::Virq;

use super::abi::Abi;
use super::channel::{Channel, Status};
use super::fifo::Fifo;
use crate::id::{DomainId, Port, VcpuId};
use crate::memory::try_collect;

/// Ports by vCPU and virtual interrupt, so that raising one searches nothing.
type VirqPorts = [Option<Port>; Virq::COUNT as usize];

/// Everything that a domain's channel lock covers.
pub struct Table {
    channels: Vec<Channel>,
    /// No port below it is free; port 0 never is.
    free_from: usize,
    limit: u32,
    virqs: Vec<VirqPorts>,
    /// How events are shown to the guest.
    pub abi: Abi,
}

impl Table {
    /// No open ports; at most `limit` numbers, of which 0 is not used, and no more than the ABI has.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn new(vcpus: usize, limit: u32, abi: Abi) -> Result<Self, Errno> {
        let virqs = (0..vcpus).map(|_| [None; Virq::COUNT as usize]);
        Ok(Self {
            channels: Vec::new(),
            free_from: 1,
            limit,
            virqs: try_collect(virqs).map_err(|_| Errno::NoMem)?,
            abi,
        })
    }

    /// Sets how many port numbers the domain may have; ports that are open already stay.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Port numbers that the domain can have, of which 0 is not used.
    pub fn limit(&self) -> u32 {
        self.limit.min(self.abi.ports())
    }

    /// The FIFO ABI's state; the domain changes to that ABI if it does not use it yet.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn fifo_or_switch(&mut self) -> Result<&mut Fifo, Errno> {
        if self.abi.fifo().is_none() {
            let mut fifo = Fifo::new(self.virqs.len())?;
            fifo.cover(Port(self.end()))?;
            let channels = self.channels.iter().enumerate();
            let open = channels
                .filter(|(_, channel)| channel.status() != Status::Closed)
                .map(|(index, _)| Port(index as u32));
            self.abi.use_fifo(fifo, open);
        }
        self.abi.fifo().ok_or(Errno::NoMem)
    }

    /// Ports beyond which none was ever opened.
    pub const fn end(&self) -> u32 {
        self.channels.len() as u32
    }

    /// The channel at a port; closed for those never opened, `None` for those that cannot be.
    pub fn get(&self, port: Port) -> Option<Channel> {
        match self.channels.get(port.index()) {
            Some(channel) => Some(*channel),
            None if port.0 < self.limit() => Some(Channel::CLOSED),
            None => None,
        }
    }

    /// The open channel at a port.
    ///
    /// # Errors
    /// `Inval` if there is none.
    pub fn open(&mut self, port: Port) -> Result<&mut Channel, Errno> {
        self.channels
            .get_mut(port.index())
            .filter(|channel| channel.status() != Status::Closed)
            .ok_or(Errno::Inval)
    }

    /// Opens the lowest free port.
    ///
    /// # Errors
    /// `NoSpc` at the limit, `NoMem`.
    pub fn allocate(&mut self, channel: Channel) -> Result<Port, Errno> {
        let free = self
            .channels
            .iter()
            .skip(self.free_from)
            .position(|old| old.status() == Status::Closed)
            .map_or(self.channels.len().max(1), |index| self.free_from + index);
        let port = Port(free as u32);
        if port.0 >= self.limit() {
            return Err(Errno::NoSpc);
        }
        self.abi.cover(port)?;
        while self.channels.len() <= free {
            self.channels.try_reserve(1).map_err(|_| Errno::NoMem)?;
            self.channels.push(Channel::CLOSED);
        }
        self.channels[free] = channel;
        self.free_from = free + 1;
        if let Some((virq, vcpu)) = channel.bound_virq() {
            self.set_virq(virq, vcpu, Some(port));
        }
        Ok(port)
    }

    /// Closes a port; returns what it was bound to.
    ///
    /// # Errors
    /// `Inval` if it is not open.
    pub fn free(&mut self, port: Port) -> Result<Channel, Errno> {
        let channel = core::mem::replace(self.open(port)?, Channel::CLOSED);
        self.free_from = self.free_from.min(port.index());
        self.abi.closed(port);
        if let Some((virq, vcpu)) = channel.bound_virq() {
            self.set_virq(virq, vcpu, None);
        }
        Ok(channel)
    }

    /// The port that a virtual interrupt of a vCPU is bound to.
    pub fn virq(&self, virq: Virq, vcpu: VcpuId) -> Option<Port> {
        *self.virqs.get(vcpu.index())?.get(virq.0 as usize)?
    }

    /// Whether the port waits for `remote` to bind.
    ///
    /// # Errors
    /// `Inval` if not.
    pub fn check_unbound(&self, port: Port, remote: DomainId) -> Result<(), Errno> {
        match self.get(port).map(|channel| channel.status()) {
            Some(Status::Unbound(wanted)) if wanted == remote => Ok(()),
            _ => Err(Errno::Inval),
        }
    }

    fn set_virq(&mut self, virq: Virq, vcpu: VcpuId, port: Option<Port>) {
        if let Some(slot) = self
            .virqs
            .get_mut(vcpu.index())
            .and_then(|ports| ports.get_mut(virq.0 as usize))
        {
            *slot = port;
        }
    }
}
