//! Memory of domains, copied by the hypervisor (`XEN_DOMCTL_gdbsx_guestmemio`): one call for any length, and no page is mapped.
//!
//! Addresses are linear ones of the domain's vCPU 0, through its page tables; as long as it has paging off, they are
//! guest-physical.

use std::hint::black_box;
use std::io;

use crate::control::domctl;
use crate::privcmd::Privcmd;
use crate::{PAGE_SIZE, layout};

const GUEST_MEMORY: u32 = oxen_abi::domctl::cmd::GDBSX_GUEST_MEMORY;
/// Bytes copied at a time by way of a buffer.
const PIECE: usize = 64 * PAGE_SIZE;

/// `xen_domctl_gdbsx_memio`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Memory {
    page_directory: u64,
    address: u64,
    buffer: u64,
    length: u32,
    write: u8,
    pad: [u8; 3],
    remain: u32,
    pad2: u32,
}
layout!(
    Memory,
    40,
    address = 8,
    buffer = 16,
    length = 24,
    write = 28,
    remain = 32
);

/// Copies bytes to a domain's memory.
///
/// # Errors
/// EFAULT: a part of it is no memory that can be written; what is before that part may have been written. ENOSYS, EPERM:
/// this hypervisor does not do it.
pub fn write(xen: &Privcmd, domid: u16, address: u64, bytes: &[u8]) -> io::Result<()> {
    // The hypervisor cannot take a page fault: what it reads must be in the page tables. One look at each page brings it there.
    for page in bytes.chunks(PAGE_SIZE) {
        black_box(page[0]);
    }
    black_box(bytes.last());
    let direct = call(
        xen,
        domid,
        address,
        bytes.as_ptr() as u64,
        bytes.len(),
        true,
    );
    if direct.as_ref().map_err(io::Error::raw_os_error) != Err(Some(libc::EFAULT)) {
        return direct;
    }
    // dom0's kernel may have moved a page just then: from memory that it never moves, once more.
    let mut buffer = xen.buffer(PIECE.min(bytes.len()))?;
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        buffer.fill(piece);
        let at = address.wrapping_add((number * PIECE) as u64);
        call(xen, domid, at, buffer.address(), piece.len(), true)?;
    }
    Ok(())
}

/// Copies bytes out of a domain's memory. The domain may change them meanwhile.
///
/// # Errors
/// EFAULT: a part of it is no memory. ENOSYS, EPERM: this hypervisor does not do it.
pub fn read(xen: &Privcmd, domid: u16, address: u64, length: usize) -> io::Result<Vec<u8>> {
    let buffer = xen.buffer(length)?;
    call(xen, domid, address, buffer.address(), length, false)?;
    Ok(buffer.to_vec(length))
}

fn call(
    xen: &Privcmd,
    domid: u16,
    address: u64,
    buffer: u64,
    length: usize,
    write: bool,
) -> io::Result<()> {
    let operation = Memory {
        address,
        buffer,
        length: u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?,
        write: write.into(),
        ..Memory::default()
    };
    let (_, done) = domctl(xen, GUEST_MEMORY, domid, operation)?;
    match done.remain {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}
