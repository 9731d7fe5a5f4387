//! HVM parameters: where a guest finds its console and its store.

use std::io;

pub use oxen_abi::hvm::param;

use crate::layout;
use crate::privcmd::Privcmd;

const HYPERCALL_HVM_OP: u64 = oxen_abi::numbers::HVM_OP;

/// `xen_hvm_param`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Param {
    domain: u16,
    pad: u16,
    index: u32,
    value: u64,
}
layout!(Param, 16, index = 4, value = 8);

/// Sets a parameter ([`param`]).
///
/// # Errors
/// ESRCH: no such domain; EINVAL: no such parameter, or not this value.
pub fn set_param(xen: &Privcmd, domid: u16, index: u32, value: u64) -> io::Result<()> {
    param_op(xen, oxen_abi::hvm::cmd::SET_PARAM, domid, index, value).map(|_| ())
}

/// Reads a parameter; 0 if it was never set.
///
/// # Errors
/// ESRCH: no such domain; EINVAL: no such parameter.
pub fn get_param(xen: &Privcmd, domid: u16, index: u32) -> io::Result<u64> {
    param_op(xen, oxen_abi::hvm::cmd::GET_PARAM, domid, index, 0)
}

fn param_op(xen: &Privcmd, cmd: u64, domid: u16, index: u32, value: u64) -> io::Result<u64> {
    let argument = xen.buffer_of(&[Param {
        domain: domid,
        pad: 0,
        index,
        value,
    }])?;
    xen.hypercall(HYPERCALL_HVM_OP, [cmd, argument.address(), 0, 0, 0])?;
    Ok(argument.read::<Param>(0).value)
}
