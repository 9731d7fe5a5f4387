//! How events are shown to the domain: by the 2-level ABI, or by the FIFO one once it has asked for it.

use oxen_abi::Errno;
use oxen_abi::event_channel::fifo;

use super::fifo::Fifo;
use super::two_level::{Layout, Shared, VcpuInfo};
use crate::guest_page::GuestPage;
use crate::id::{Port, VcpuId};

/// What making a port pending has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it was pending already, or cannot be.
    None,
    /// It is pending; its vCPU knows already, or need not because the port is masked.
    Pending,
    /// It is pending and its vCPU must be told.
    Upcall,
}

/// The ABI in use, and its state.
pub struct Abi {
    shared: Shared,
    fifo: Option<Fifo>,
}

impl Abi {
    /// Domains begin with the 2-level ABI.
    pub const fn two_level(shared_info: GuestPage) -> Self {
        Self {
            shared: Shared {
                page: shared_info,
                layout: Layout::Wide,
            },
            fifo: None,
        }
    }

    /// The layout of what is shared.
    pub const fn layout(&self) -> Layout {
        self.shared.layout
    }

    /// Sets it. What is pending already is not moved.
    pub const fn set_layout(&mut self, layout: Layout) {
        self.shared.layout = layout;
    }

    /// Port numbers that the ABI has, of which 0 is not used.
    pub const fn ports(&self) -> u32 {
        match self.fifo {
            Some(_) => fifo::PORTS,
            None => self.shared.layout.ports(),
        }
    }

    /// The state of the FIFO ABI, where that is in use.
    pub const fn fifo(&mut self) -> Option<&mut Fifo> {
        self.fifo.as_mut()
    }

    /// Changes to the FIFO ABI. Events of the given open ports that the guest has not taken go with them.
    pub fn use_fifo(&mut self, mut fifo: Fifo, open: impl Iterator<Item = Port>) {
        for port in open {
            if self.shared.clear_pending(port) {
                fifo.hold(port);
            }
        }
        self.fifo = Some(fifo);
    }

    /// Changes back to the 2-level ABI and lets go of the guest's pages.
    pub fn use_two_level(&mut self) {
        self.fifo = None;
    }

    /// Prepares for `port` to be opened.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn cover(&mut self, port: Port) -> Result<(), Errno> {
        self.fifo.as_mut().map_or(Ok(()), |fifo| fifo.cover(port))
    }

    /// Makes the port pending, for the vCPU whose information is at `info`.
    pub fn set_pending(&mut self, port: Port, vcpu: VcpuId, info: &VcpuInfo) -> Change {
        match &mut self.fifo {
            Some(fifo) => fifo.set_pending(port, vcpu, info),
            None => self.shared.set_pending(info, port),
        }
    }

    /// Takes the mask off; true if the vCPU must be told of an event that waited behind it.
    pub fn unmask(&mut self, port: Port, vcpu: VcpuId, info: &VcpuInfo) -> bool {
        match &mut self.fifo {
            Some(fifo) => fifo.unmask(port, vcpu, info),
            None => self.shared.unmask(info, port),
        }
    }

    /// Whether the port is pending, masked or not.
    pub fn is_pending(&self, port: Port) -> bool {
        match &self.fifo {
            Some(fifo) => fifo.is_pending(port),
            None => self.shared.is_pending(port),
        }
    }

    /// Whether the port is masked.
    pub fn is_masked(&self, port: Port) -> bool {
        match &self.fifo {
            Some(fifo) => fifo.is_masked(port),
            None => self.shared.is_masked(port),
        }
    }

    /// Forgets what there was of a port that is being closed.
    pub fn closed(&mut self, port: Port) {
        match &mut self.fifo {
            Some(fifo) => fifo.closed(port),
            None => {
                self.shared.clear_pending(port);
            }
        }
    }
}
