//! All registers of a vCPU as one reads them from outside, general-purpose ones and floating point apart.

use super::Segment;

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default)]
pub struct Table {
    /// Base linear address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
}

/// The registers.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr6: u64,
    pub dr7: u64,
    pub efer: u64,
    /// CS, DS, ES, FS, GS, SS, TR, LDTR: the order of an `hvm_hw_cpu`.
    pub segments: [Segment; 8],
    pub gdtr: Table,
    pub idtr: Table,
    /// CS, ESP, EIP.
    pub sysenter: [u64; 3],
    pub kernel_gs_base: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub syscall_mask: u64,
    pub tsc_aux: u64,
}
