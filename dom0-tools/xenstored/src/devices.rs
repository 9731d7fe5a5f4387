//! What the daemon needs of the hypervisor and of dom0's kernel.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use oxen_xenstore::ring::{RingPage, SharedPage};

/// A mapped ring page.
pub type Page = Box<dyn SharedPage>;

/// How a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It runs, or is paused.
    Alive,
    /// It shut down and is still there.
    ShutDown,
    /// It is dying or gone: nothing of it may stay mapped.
    Gone,
}

/// Rings, event channels and the state of domains.
pub trait Devices {
    /// The ring of dom0's own kernel and its event channel there. `None` if there is no such kernel.
    fn own_ring(&mut self) -> io::Result<Option<(Page, u32)>>;

    /// Maps the frame `gfn` of a domain.
    fn map(&mut self, domain: u16, gfn: u64) -> io::Result<Page>;

    /// Binds a local port to `port` of a domain.
    fn bind(&mut self, domain: u16, port: u32) -> io::Result<u32>;

    /// Closes a local port.
    fn unbind(&mut self, port: u32);

    /// Sends an event to the other end.
    fn notify(&mut self, port: u32);

    /// Binds a local port on which an event tells that some domain shut down or died.
    fn bind_domain_ends(&mut self) -> io::Result<Option<u32>>;

    /// The next local port with an event, open for the next one.
    fn next_event(&mut self) -> io::Result<Option<u32>>;

    /// Readable when there is an event.
    fn events(&self) -> Option<BorrowedFd<'_>>;

    /// How a domain is.
    fn state(&mut self, domain: u16) -> io::Result<DomainState>;
}

/// No hypervisor: domains can be introduced, and nothing ever comes from them.
#[derive(Debug, Default)]
pub struct NoDevices {
    last_port: u32,
}

impl Devices for NoDevices {
    fn own_ring(&mut self) -> io::Result<Option<(Page, u32)>> {
        Ok(None)
    }

    fn map(&mut self, _: u16, _: u64) -> io::Result<Page> {
        Ok(Box::new(Arc::new(RingPage::default())))
    }

    fn bind(&mut self, _: u16, _: u32) -> io::Result<u32> {
        self.last_port += 1;
        Ok(self.last_port)
    }

    fn unbind(&mut self, _: u32) {}

    fn notify(&mut self, _: u32) {}

    fn bind_domain_ends(&mut self) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn next_event(&mut self) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn state(&mut self, _: u16) -> io::Result<DomainState> {
        Ok(DomainState::Alive)
    }
}
