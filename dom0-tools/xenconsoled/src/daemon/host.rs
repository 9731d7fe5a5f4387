//! Guests' memory and event channels.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use oxen_xen::domain::{self, DomainFlags};
use oxen_xen::evtchn::EventChannels;
use oxen_xen::foreign::Mapping;
use oxen_xen::privcmd::Privcmd;

/// What the daemon needs of the hypervisor. See [`EventChannels`] for the methods on ports.
#[allow(clippy::missing_errors_doc)]
pub trait Host {
    /// Whether a domain is there, and not being destroyed: one that is keeps its number as long as a page of it is mapped.
    fn is_alive(&self, domid: u16) -> io::Result<bool>;
    /// Maps a page of a guest.
    fn map(&self, domid: u16, gfn: u64) -> io::Result<Mapping>;
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
    privcmd: Privcmd,
    channels: EventChannels,
}

impl XenHost {
    /// Opens the devices.
    ///
    /// # Errors
    /// Not dom0, or no permission; the message says which device.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            privcmd: Privcmd::open()?,
            channels: EventChannels::open()?,
        })
    }
}

impl Host for XenHost {
    fn is_alive(&self, domid: u16) -> io::Result<bool> {
        let info = domain::info(&self.privcmd, domid)?;
        Ok(info.is_some_and(|info| !info.flags.contains(DomainFlags::DYING)))
    }

    fn map(&self, domid: u16, gfn: u64) -> io::Result<Mapping> {
        Mapping::map_with(&self.privcmd, domid, &[gfn])
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
