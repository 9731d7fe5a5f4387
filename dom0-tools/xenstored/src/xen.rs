//! The hypervisor and dom0's kernel, through Linux's Xen devices. The only place of the daemon with unsafe code.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use oxen_xen::domain::{self, DomainFlags};
use oxen_xen::evtchn::EventChannels;
use oxen_xen::foreign::Mapping;
use oxen_xen::privcmd::Privcmd;
use oxen_xenstore::ring::{RingPage, SharedPage};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::devices::{Devices, DomainState, Page};

/// The kernel's side of xenstore in dom0 (`include/xen/xenbus_dev.h`).
const BACKEND: &str = "/dev/xen/xenbus_backend";
/// A domain shut down or died (`VIRQ_DOM_EXC`).
const VIRQ_DOM_EXC: u32 = 3;
const PAGE_SIZE: usize = 4096;

/// The machine.
pub struct Xen {
    hypercalls: Privcmd,
    events: EventChannels,
}

impl Xen {
    /// Opens the devices.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            hypercalls: Privcmd::open()?,
            events: EventChannels::open()?,
        })
    }
}

impl Devices for Xen {
    fn own_ring(&mut self) -> io::Result<Option<(Page, u32)>> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{BACKEND}: {error}"));
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(BACKEND)
            .map_err(named)?;
        // SAFETY: the request has no argument and gives a number; see `KernelPort`.
        let port = unsafe { ioctl(&device, KernelPort) }.map_err(|error| named(error.into()))?;
        let page = KernelPage::map(&device).map_err(named)?;
        Ok(Some((Box::new(page), port)))
    }

    fn map(&mut self, domain: u16, gfn: u64) -> io::Result<Page> {
        Ok(Box::new(ForeignPage(Mapping::map_with(
            &self.hypercalls,
            domain,
            &[gfn],
        )?)))
    }

    fn bind(&mut self, domain: u16, port: u32) -> io::Result<u32> {
        self.events.bind_interdomain(domain, port)
    }

    fn unbind(&mut self, port: u32) {
        if let Err(error) = self.events.unbind(port) {
            log::error!("cannot close event channel {port}: {error}");
        }
    }

    fn notify(&mut self, port: u32) {
        if let Err(error) = self.events.notify(port) {
            log::error!("cannot send an event on channel {port}: {error}");
        }
    }

    fn bind_domain_ends(&mut self) -> io::Result<Option<u32>> {
        self.events.bind_virq(VIRQ_DOM_EXC).map(Some)
    }

    fn next_event(&mut self) -> io::Result<Option<u32>> {
        match self.events.pending() {
            Ok(port) => {
                // Before the daemon looks at the ring: what comes from now on is a new event. A port that was closed
                // meanwhile cannot be opened, and need not.
                if let Err(error) = self.events.unmask(port) {
                    log::debug!("event channel {port} is closed already: {error}");
                }
                Ok(Some(port))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }

    fn state(&mut self, domain: u16) -> io::Result<DomainState> {
        Ok(match domain::info(&self.hypercalls, domain)? {
            None => DomainState::Gone,
            Some(info) if info.flags.contains(DomainFlags::DYING) => DomainState::Gone,
            Some(info) if info.shutdown_reason.is_some() => DomainState::ShutDown,
            Some(_) => DomainState::Alive,
        })
    }
}

/// A ring page of a domU.
struct ForeignPage(Mapping);

impl SharedPage for ForeignPage {
    fn page(&self) -> &RingPage {
        // SAFETY: one whole page, aligned as such, mapped for reading and writing as long as `self.0` lives. `RingPage`
        // consists of atomics only, so that the domain may write to it meanwhile and any content is valid.
        unsafe { &*self.0.as_ptr().cast::<RingPage>() }
    }
}

/// The ring page of dom0's kernel.
struct KernelPage(NonNull<c_void>);

impl KernelPage {
    fn map(device: &File) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe {
            mmap(
                ptr::null_mut(),
                PAGE_SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                device,
                0,
            )
        }?;
        NonNull::new(page)
            .map(Self)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl SharedPage for KernelPage {
    fn page(&self) -> &RingPage {
        // SAFETY: one whole page, mapped until `drop`; atomics only, as above.
        unsafe { &*self.0.as_ptr().cast::<RingPage>() }
    }
}

impl Drop for KernelPage {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and every reference into it borrows `self`.
        if let Err(error) = unsafe { munmap(self.0.as_ptr(), PAGE_SIZE) } {
            log::error!("cannot unmap the kernel's ring: {error}");
        }
    }
}

/// `IOCTL_XENBUS_BACKEND_EVTCHN`: the kernel's own event channel is the result.
struct KernelPort;

// SAFETY: the request takes no argument, and its result is a number that is not negative.
unsafe impl Ioctl for KernelPort {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(b'B', 0)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(out).map_err(|_| rustix::io::Errno::INVAL)
    }
}
