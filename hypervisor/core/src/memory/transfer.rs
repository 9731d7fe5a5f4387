//! Copies between two domains' linear memory that the control domain asks for (`XEN_DOMCTL_gdbsx_guestmemio`,
//! `public/domctl.h`), page by page.

use oxen_abi::domctl::memory_io as abi;

use super::walk::{self, Access, GuestPhysRead, Paging};
use crate::address::{GuestLinear, GuestPhys, PAGE_SIZE};
use crate::guest_page::GuestPage;
use crate::hypercall::Argument;

/// A linear address space as far as a copy needs it.
pub trait Space {
    /// The page that `address` lies in, and where in it; `None` where there is no memory, or none that may be written if `write`.
    fn page(&self, address: u64, write: bool) -> Option<(GuestPage, usize)>;
}

/// Copies `length` bytes; returns how many there are before the first that cannot be read or written. Addresses wrap around.
/// Guests may write both sides at the same time; each byte is read once.
pub fn copy(from: (&impl Space, u64), to: (&impl Space, u64), length: usize) -> usize {
    let ((source, start), (destination, target)) = (from, to);
    let mut done = 0;
    while done < length {
        let read = source.page(start.wrapping_add(done as u64), false);
        let written = destination.page(target.wrapping_add(done as u64), true);
        let (Some((from, read_at)), Some((to, write_at))) = (read, written) else {
            break;
        };
        let part = (length - done)
            .min(PAGE_SIZE - read_at)
            .min(PAGE_SIZE - write_at);
        to.copy_from(write_at, &from, read_at, part);
        done += part;
    }
    done
}

/// Where a linear address of a domain leads for the control domain: through the page tables of its first vCPU, whose rights do
/// not count; with paging off it is guest-physical, beyond 4 GiB too.
pub fn translate(memory: &impl GuestPhysRead, paging: &Paging, address: u64) -> Option<GuestPhys> {
    const PAGING: u64 = 1 << 31;
    const ALIGNMENT_CHECK: u64 = 1 << 18;
    if paging.cr0 & PAGING == 0 {
        return Some(GuestPhys(address));
    }
    // As the kernel reads where it has lifted SMAP. A debugger also writes where the kernel may not, for its breakpoints.
    let lifted = Paging {
        rflags: paging.rflags | ALIGNMENT_CHECK,
        ..*paging
    };
    let access = Access::SUPERVISOR_READ;
    walk::translate(memory, &lifted, GuestLinear(address), access)
        .ok()
        .map(|translation| translation.address)
}

/// What is to be copied (`xen_domctl_gdbsx_memio`). The page directory that PV guests may name is of no use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Linear address in the domain.
    pub address: u64,
    /// Linear address in the caller.
    pub buffer: u64,
    /// Bytes.
    pub length: u32,
    /// To the domain, not from it.
    pub to_domain: bool,
}

impl Request {
    /// Reads it.
    pub fn of(argument: &Argument<{ abi::SIZE }>) -> Self {
        Self {
            address: argument.u64(abi::ADDRESS),
            buffer: argument.u64(abi::BUFFER),
            length: argument.u32(abi::LENGTH),
            to_domain: argument.bytes()[abi::WRITE] != 0,
        }
    }

    /// What is left when `done` bytes of it are copied.
    #[must_use]
    pub fn rest(&self, done: u32) -> Self {
        Self {
            address: self.address.wrapping_add(done.into()),
            buffer: self.buffer.wrapping_add(done.into()),
            length: self.length.saturating_sub(done),
            to_domain: self.to_domain,
        }
    }

    /// Writes it in place of the one that was read, so that the call goes on from here when it is made again.
    pub fn put(&self, argument: &mut Argument<{ abi::SIZE }>) {
        argument.set_u64(abi::ADDRESS, self.address);
        argument.set_u64(abi::BUFFER, self.buffer);
        argument.set_u32(abi::LENGTH, self.length);
    }
}

#[cfg(test)]
mod tests;
