//! Event channels of one domain, with the 2-level and the FIFO ABI (`public/event_channel.h`).
//!
//! A channel is a port that can be made pending. Pending and mask bits, and what leads the guest to them, lie in pages
//! shared with it; everything else is here, behind one lock per domain, which is also held while the bits are set: a
//! port cannot be closed, moved or given away between the look at its channel and the event. Where an operation needs
//! two domains, the lock of the one with the lower number is taken first.

mod abi;
mod channel;
mod delivery;
mod fifo;
mod operations;
mod poll;
mod table;
mod two_level;

use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;

use oxen_abi::Errno;
use spin::{Mutex, Once};

use crate::guest_page::GuestPage;
use crate::id::{DomainId, Port, VcpuId};
use crate::memory::try_collect;
use abi::Abi;

pub use channel::{Channel, Status};
use poll::Poll;
use table::Table;
pub use two_level::{Layout, VcpuInfo};

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
    vcpus: Vec<VcpuEvents>,
    table: Mutex<Table>,
    /// Polls that wait, so that senders need not ask each vCPU.
    pollers: AtomicU32,
}

impl EventChannels {
    /// No channels. Each vCPU's information is the legacy one in the shared page, for those that have one there.
    /// At most `limit` port numbers, of which 0 is not used, and no more than the ABI in use has.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn new(
        domain: DomainId,
        shared_info: GuestPage,
        vcpus: usize,
        limit: u32,
    ) -> Result<Self, Errno> {
        let table = Mutex::new(Table::new(vcpus, limit, Abi::two_level(shared_info))?);
        let vcpus = (0..vcpus).map(|index| VcpuEvents {
            legacy: VcpuInfo::legacy(shared_info, index),
            registered: Once::new(),
            poll: Poll::new(),
        });
        Ok(Self {
            domain,
            vcpus: try_collect(vcpus).map_err(|_| Errno::NoMem)?,
            table,
            pollers: AtomicU32::new(0),
        })
    }

    /// Bounds the port numbers: at most `limit`, of which 0 is not used. Ports that are open already stay.
    pub fn set_limit(&self, limit: u32) {
        self.table.lock().set_limit(limit);
    }

    /// Sets the layout of the shared page and of what vCPUs have in it, by the mode that the guest is in when it turns to us. What
    /// is pending already is not moved, as in Xen.
    pub fn set_layout(&self, layout: Layout) {
        self.table.lock().abi.set_layout(layout);
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
        let senders = self.table.lock();
        if events.registered.is_completed() {
            return Err(Errno::Inval);
        }
        let moved = events
            .legacy
            .copied_to(page, offset, senders.abi.layout())?;
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

    /// `EVTCHNOP_reset`, see [`Self::close_all`]. The domain is back at the 2-level ABI, and pages that it gave for the FIFO
    /// one are written to no more.
    pub fn reset(&self, tell: impl FnMut(Port, Peer)) {
        self.close_all(tell);
        self.table.lock().abi.use_two_level();
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
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
