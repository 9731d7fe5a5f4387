//! What a domain does to use the FIFO ABI.

use core::ops::Range;

use oxen_abi::Errno;

use super::queue::{ControlBlock, Priority};
use crate::event::table::Table;
use crate::event::{EventChannels, Notify};
use crate::guest_page::GuestPage;
use crate::id::{Port, VcpuId};

impl EventChannels {
    /// `EVTCHNOP_init_control`: takes a vCPU's control block. With the first of them the domain changes to the FIFO ABI;
    /// events that it has not taken by then are announced when their ports have words, see [`Self::expand_array`].
    ///
    /// The page is written to until [`Self::reset`].
    ///
    /// # Errors
    /// `NoEnt` for a vCPU that does not exist, `Inval` if it has a control block or for an unaligned or crossing place,
    /// `NoMem`.
    pub fn init_control(
        &self,
        vcpu: VcpuId,
        page: GuestPage,
        offset: u32,
        notify: &impl Notify,
    ) -> Result<(), Errno> {
        self.check_vcpu(vcpu)?;
        let block = ControlBlock::new(page, offset)?;
        let mut table = self.table.lock();
        table.fifo_or_switch()?.set_control_block(vcpu, block)?;
        let end = table.end();
        self.release(&mut table, 0..end, notify);
        Ok(())
    }

    /// `EVTCHNOP_expand_array`: takes the next page of event words, and announces the events that came before it.
    ///
    /// The page is written to until [`Self::reset`].
    ///
    /// # Errors
    /// `OpNotSupp` unless the domain uses the FIFO ABI, `NoSpc` if all ports have words, `NoMem`.
    pub fn expand_array(&self, page: GuestPage, notify: &impl Notify) -> Result<(), Errno> {
        let mut table = self.table.lock();
        let fifo = table.abi.fifo().ok_or(Errno::OpNotSupp)?;
        let covered = fifo.expand(page)?;
        self.release(&mut table, covered, notify);
        Ok(())
    }

    /// `EVTCHNOP_set_priority`, from the port's next event on.
    ///
    /// # Errors
    /// `Inval` for a port that is not open or a priority that does not exist, `NoSys` unless the domain uses the FIFO ABI.
    pub fn set_priority(&self, port: Port, priority: u32) -> Result<(), Errno> {
        let mut table = self.table.lock();
        table.open(port)?;
        let fifo = table.abi.fifo().ok_or(Errno::NoSys)?;
        fifo.set_priority(port, Priority::new(priority)?);
        Ok(())
    }

    /// Announces events that were held until now.
    fn release(&self, table: &mut Table, ports: Range<u32>, notify: &impl Notify) {
        for port in ports.start..ports.end.min(table.end()) {
            let port = Port(port);
            let Some(vcpu) = table.get(port).map(|channel| channel.notify_vcpu()) else {
                continue;
            };
            if let Some(events) = self.vcpus.get(vcpu.index())
                && let Some(fifo) = table.abi.fifo()
                && fifo.release(port, vcpu, events.info())
            {
                notify.notify(vcpu);
            }
        }
    }
}
