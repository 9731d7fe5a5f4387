//! dom0's own event channels (`/dev/xen/evtchn`).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys;

const DEVICE: &str = "/dev/xen/evtchn";
const IOCTL_BIND_VIRQ: u64 = sys::ioctl_number(b'E', 0, 4);
const IOCTL_BIND_INTERDOMAIN: u64 = sys::ioctl_number(b'E', 1, 8);
const IOCTL_BIND_UNBOUND: u64 = sys::ioctl_number(b'E', 2, 4);
const IOCTL_UNBIND: u64 = sys::ioctl_number(b'E', 3, 4);
const IOCTL_NOTIFY: u64 = sys::ioctl_number(b'E', 4, 4);
/// Bytes of a port as the device reads and writes it.
const PORT: usize = size_of::<u32>();
/// Ports that are read at once.
const PORTS: usize = 16;

/// Event channels of this process; all are closed on drop.
#[derive(Debug)]
pub struct EventChannels {
    device: File,
}

impl EventChannels {
    /// Opens the device. It does not block: poll the descriptor, then read [`EventChannels::pending`].
    ///
    /// # Errors
    /// Not dom0, module `xen-evtchn` not loaded, or no permission; the message says which device.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            device: sys::open_device(DEVICE, libc::O_NONBLOCK)?,
        })
    }

    /// Binds a new local port to a port of `domid` that is unbound and meant for this domain. The new port is pending at once.
    ///
    /// # Errors
    /// The hypervisor's errno: no such domain, or the port is not there or not for us.
    pub fn bind_interdomain(&self, domid: u16, remote_port: u32) -> io::Result<u32> {
        self.bind(IOCTL_BIND_INTERDOMAIN, [u32::from(domid), remote_port])
    }

    /// Allocates a local port that `domid` may bind to.
    ///
    /// # Errors
    /// The hypervisor's errno.
    pub fn bind_unbound(&self, domid: u16) -> io::Result<u32> {
        self.bind(IOCTL_BIND_UNBOUND, u32::from(domid))
    }

    /// Binds a new local port to a virtual interrupt, for example 3 (`VIRQ_DOM_EXC`): a domain shut down or died.
    ///
    /// # Errors
    /// The hypervisor's errno; EEXIST if another process has it.
    pub fn bind_virq(&self, virq: u32) -> io::Result<u32> {
        self.bind(IOCTL_BIND_VIRQ, virq)
    }

    /// Closes a port. An event of it that was not read yet is gone.
    ///
    /// # Errors
    /// Not a port of this descriptor.
    pub fn unbind(&self, port: u32) -> io::Result<()> {
        self.bind(IOCTL_UNBIND, port).map(|_| ())
    }

    /// Sends an event to the other end.
    ///
    /// # Errors
    /// Not a port of this descriptor.
    pub fn notify(&self, port: u32) -> io::Result<()> {
        self.bind(IOCTL_NOTIFY, port).map(|_| ())
    }

    /// Next port with an event. It is masked until [`EventChannels::unmask`].
    ///
    /// # Errors
    /// `WouldBlock` if there is none; EFBIG if more were lost than the kernel's ring holds, which binding too many ports
    /// cannot cause (the ring grows with them).
    pub fn pending(&self) -> io::Result<u32> {
        let mut port = [0; 4];
        match (&self.device).read(&mut port)? {
            4 => Ok(u32::from_ne_bytes(port)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Lets events of a port in again. Do it before looking at what it announces, or an event gets lost.
    ///
    /// # Errors
    /// The device's errno.
    pub fn unmask(&self, port: u32) -> io::Result<()> {
        (&self.device).write_all(&port.to_ne_bytes())
    }

    /// Takes all ports with events and lets further events of them in: two system calls, however many they are. When `each` is called
    /// for a port its events are let in, so that what is looked at afterwards announces itself where it comes too late.
    ///
    /// # Errors
    /// As for [`EventChannels::pending`]; that there is none is no error.
    pub fn take(&self, mut each: impl FnMut(u32)) -> io::Result<()> {
        loop {
            let mut bytes = [0; PORT * PORTS];
            let taken = match (&self.device).read(&mut bytes) {
                Ok(count) => &bytes[..count],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            (&self.device).write_all(taken)?;
            for port in taken.as_chunks::<PORT>().0 {
                each(u32::from_ne_bytes(*port));
            }
            // Whoever waits for the device is told of its first event only: none may be left.
            if taken.len() < bytes.len() {
                return Ok(());
            }
        }
    }

    fn bind<T>(&self, request: u64, mut argument: T) -> io::Result<u32> {
        // SAFETY: every request here takes a structure of u32 of the size in its number, which is that of `T`.
        let port = unsafe { sys::ioctl(self.device.as_fd(), request, &mut argument)? };
        u32::try_from(port).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for EventChannels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
