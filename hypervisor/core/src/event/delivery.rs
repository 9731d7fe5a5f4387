//! How an event reaches its vCPU and those that poll for it.

use core::sync::atomic::Ordering;

use oxen_abi::Errno;

use super::abi::Change;
use super::table::Table;
use super::{Channel, EventChannels, Notify, Status};
use crate::id::{Port, VcpuId};

impl EventChannels {
    /// `EVTCHNOP_unmask`: an event that came while the port was masked is announced now.
    ///
    /// # Errors
    /// `Inval` for a port that is not open.
    pub fn unmask(&self, port: Port, notify: &impl Notify) -> Result<(), Errno> {
        let mut table = self.table.lock();
        let vcpu = table.open(port)?.notify_vcpu();
        if let Some(events) = self.vcpus.get(vcpu.index())
            && table.abi.unmask(port, vcpu, events.info())
        {
            notify.notify(vcpu);
        }
        Ok(())
    }

    /// Starts a poll: returns false if one of the ports is pending already, so that there is nothing to wait for.
    /// Else the wait lasts until one of them is, and the vCPU is notified, or until [`Self::end_poll`].
    ///
    /// # Errors
    /// `Inval` for a port beyond the table or more ports than the ABI allows, `NoEnt` for a vCPU that does not exist.
    pub fn begin_poll(&self, vcpu: VcpuId, ports: &[Port]) -> Result<bool, Errno> {
        let table = self.table.lock();
        let limit = table.limit();
        if ports.iter().any(|port| port.0 == 0 || port.0 >= limit) {
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
        let pending = ports.iter().any(|&port| table.abi.is_pending(port));
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

    /// Open channels, for the debug keys: the port, its channel, and whether it is pending, and masked.
    pub fn for_each(&self, mut each: impl FnMut(Port, &Channel, bool, bool)) {
        let table = self.table.lock();
        for port in (1..table.end()).map(Port) {
            if let Some(channel) = table.get(port)
                && channel.status() != Status::Closed
            {
                let (pending, masked) = (table.abi.is_pending(port), table.abi.is_masked(port));
                each(port, &channel, pending, masked);
            }
        }
    }

    /// Whether the port is pending, masked or not.
    pub fn is_pending(&self, port: Port) -> bool {
        self.table.lock().abi.is_pending(port)
    }

    /// Whether the guest has masked the port.
    pub fn is_masked(&self, port: Port) -> bool {
        self.table.lock().abi.is_masked(port)
    }

    /// Sets the bits, and tells the vCPU and whoever polls for the port.
    pub(super) fn mark(&self, table: &mut Table, port: Port, notify: &impl Notify) {
        let Some(vcpu) = table.get(port).map(|channel| channel.notify_vcpu()) else {
            return;
        };
        let Some(events) = self.vcpus.get(vcpu.index()) else {
            return;
        };
        match table.abi.set_pending(port, vcpu, events.info()) {
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
}
