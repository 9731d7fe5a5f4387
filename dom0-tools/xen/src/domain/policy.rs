//! What CPUID shows to a domain.

use std::io;

use crate::control::domctl;
use crate::layout;
use crate::privcmd::Privcmd;

const GET_CPU_POLICY: u32 = 82;
const SET_CPU_POLICY: u32 = 83;
/// A list longer than this is not believed.
const MOST_LEAVES: u32 = 1024;

/// `xen_domctl_cpu_policy`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CpuPolicy {
    leaf_count: u32,
    msr_count: u32,
    leaves: u64,
    msrs: u64,
    error_leaf: u32,
    error_subleaf: u32,
    error_msr: u32,
    pad: u32,
}
layout!(
    CpuPolicy,
    40,
    msr_count = 4,
    leaves = 8,
    msrs = 16,
    error_leaf = 24,
    error_subleaf = 28,
    error_msr = 32
);

/// `xen_cpuid_leaf`: what CPUID answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CpuidLeaf {
    /// Number.
    pub leaf: u32,
    /// Number of the sub-leaf; `u32::MAX` where there are none.
    pub subleaf: u32,
    /// EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}
layout!(CpuidLeaf, 24, subleaf = 4, registers = 8);

/// What CPUID shows to a domain.
///
/// # Errors
/// ESRCH: no such domain.
pub fn cpu_policy(xen: &Privcmd, domid: u16) -> io::Result<Vec<CpuidLeaf>> {
    // Without buffers the answer is how long they must be.
    let (_, needed) = domctl(xen, GET_CPU_POLICY, domid, CpuPolicy::default())?;
    if needed.leaf_count > MOST_LEAVES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let size = size_of::<CpuidLeaf>();
    let buffer = xen.buffer(needed.leaf_count as usize * size)?;
    let operation = CpuPolicy {
        leaf_count: needed.leaf_count,
        leaves: buffer.address(),
        ..CpuPolicy::default()
    };
    let (_, filled) = domctl(xen, GET_CPU_POLICY, domid, operation)?;
    let count = filled.leaf_count.min(needed.leaf_count) as usize;
    Ok((0..count).map(|index| buffer.read(index * size)).collect())
}

/// Sets what CPUID shows to a domain that has not run: only the leaves that are given change.
///
/// # Errors
/// EINVAL: a leaf asks for what the hypervisor does not show; EEXIST: the domain has run.
pub fn set_cpu_policy(xen: &Privcmd, domid: u16, leaves: &[CpuidLeaf]) -> io::Result<()> {
    let buffer = xen.buffer_of(leaves)?;
    let operation = CpuPolicy {
        leaf_count: u32::try_from(leaves.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        leaves: buffer.address(),
        ..CpuPolicy::default()
    };
    domctl(xen, SET_CPU_POLICY, domid, operation).map(|_| ())
}
