//! Guests' memory and event channels.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use oxen_xen::evtchn::EventChannels;
use oxen_xen::gntdev::{GrantMapping, Grants};
use oxen_xen::grant;

use crate::ring::Page;

/// What the daemon needs of the hypervisor. See [`EventChannels`] for the methods on ports.
#[allow(clippy::missing_errors_doc)]
pub trait Host {
    /// The page of a guest's ring. As long as it is mapped a domain that has come to its end keeps its number.
    type Page: Page;
    /// Maps the page that a guest grants for its console.
    fn map(&self, domid: u16) -> io::Result<Self::Page>;
    /// Binds a local port to a guest's.
    fn bind(&self, domid: u16, port: u32) -> io::Result<u32>;
    /// Closes a local port.
    fn unbind(&self, port: u32) -> io::Result<()>;
    /// Sends an event.
    fn notify(&self, port: u32) -> io::Result<()>;
    /// Lets events in again.
    fn unmask(&self, port: u32) -> io::Result<()>;
    /// Next port with an event.
    fn pending(&self) -> io::Result<u32>;
    /// Readable when one is pending.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// The real one.
#[derive(Debug)]
pub struct XenHost {
    grants: Grants,
    channels: EventChannels,
}

impl XenHost {
    /// Opens the devices.
    ///
    /// # Errors
    /// Not dom0, or no permission; the message says which device.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            grants: Grants::open()?,
            channels: EventChannels::open()?,
        })
    }
}

impl Host for XenHost {
    type Page = GrantMapping;

    fn map(&self, domid: u16) -> io::Result<GrantMapping> {
        self.grants.map(domid, &[grant::CONSOLE])
    }

    fn bind(&self, domid: u16, port: u32) -> io::Result<u32> {
        self.channels.bind_interdomain(domid, port)
    }

    fn unbind(&self, port: u32) -> io::Result<()> {
        self.channels.unbind(port)
    }

    fn notify(&self, port: u32) -> io::Result<()> {
        self.channels.notify(port)
    }

    fn unmask(&self, port: u32) -> io::Result<()> {
        self.channels.unmask(port)
    }

    fn pending(&self) -> io::Result<u32> {
        self.channels.pending()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.channels.as_fd()
    }
}
