//! The frames of domctl and sysctl operations: command, interface version, domain, and 128 bytes for the operation.

use std::io;

use crate::plain::Plain;
use crate::privcmd::Privcmd;

const HYPERCALL_SYSCTL: u64 = 35;
const HYPERCALL_DOMCTL: u64 = 36;
/// `XEN_DOMCTL_INTERFACE_VERSION` of 4.17; another one is refused with EACCES.
const DOMCTL_VERSION: u32 = 0x15;
/// `XEN_SYSCTL_INTERFACE_VERSION` of 4.17.
const SYSCTL_VERSION: u32 = 0x15;
const UNION_SIZE: usize = 128;
const DOMCTL_UNION: usize = 16;
const SYSCTL_UNION: usize = 8;
const DOMCTL_DOMAIN: usize = 8;

/// Bitmap of CPUs or nodes (`xenctl_bitmap`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Bitmap {
    pub address: u64,
    pub bits: u32,
    pub pad: u32,
}
crate::layout!(Bitmap, 16, bits = 8);

/// Makes a domctl; what the hypervisor wrote to the domain's number and to the operation is given back.
pub fn domctl<T: Plain>(
    xen: &Privcmd,
    cmd: u32,
    domain: u16,
    operation: T,
) -> io::Result<(u16, T)> {
    const { assert!(size_of::<T>() <= UNION_SIZE) };
    let mut frame = xen.buffer(DOMCTL_UNION + UNION_SIZE)?;
    frame.write(0, [cmd, DOMCTL_VERSION]);
    frame.write(DOMCTL_DOMAIN, domain);
    frame.write(DOMCTL_UNION, operation);
    xen.hypercall(HYPERCALL_DOMCTL, [frame.address(), 0, 0, 0, 0])
        .map_err(|error| explain(error, "domctl"))?;
    Ok((frame.read(DOMCTL_DOMAIN), frame.read(DOMCTL_UNION)))
}

/// Makes a domctl without operands.
pub fn domctl_plain(xen: &Privcmd, cmd: u32, domain: u16) -> io::Result<()> {
    domctl(xen, cmd, domain, 0_u64).map(|_| ())
}

/// Makes a sysctl; what the hypervisor wrote to the operation is given back.
pub fn sysctl<T: Plain>(xen: &Privcmd, cmd: u32, operation: T) -> io::Result<T> {
    const { assert!(size_of::<T>() <= UNION_SIZE) };
    let mut frame = xen.buffer(SYSCTL_UNION + UNION_SIZE)?;
    frame.write(0, [cmd, SYSCTL_VERSION]);
    frame.write(SYSCTL_UNION, operation);
    xen.hypercall(HYPERCALL_SYSCTL, [frame.address(), 0, 0, 0, 0])
        .map_err(|error| explain(error, "sysctl"))?;
    Ok(frame.read(SYSCTL_UNION))
}

/// EACCES means one thing here, which nobody guesses from "permission denied". The error number stays readable.
fn explain(error: io::Error, hypercall: &str) -> io::Error {
    if error.raw_os_error() == Some(libc::EACCES) {
        return io::Error::new(
            error.kind(),
            format!(
                "the hypervisor has another {hypercall} interface version than Xen 4.17 (0x15); use tools and hypervisor of one release"
            ),
        );
    }
    error
}
