//! MSRs of a vCPU that are its own without exits: the VMCS switches some, the others stay in the registers while the
//! vCPU is loaded, as the hypervisor uses none of them.

use crate::cpu::msr;
use crate::virt::Msrs;

/// MSRs that the VMCS saves and loads at each exit and entry.
const SWITCHED: [u32; 7] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0x277,       // PAT
    0xC000_0080, // EFER; the CPU checks what is written
    0xC000_0100, // FS base
    0xC000_0101, // GS base
];

/// MSRs that [`Live`] switches with the vCPU: targets and mask of SYSCALL, the other GS base, and what RDTSCP reads (SDM vol. 4,
/// table 2-2).
const LIVE: [u32; 6] = [
    0xC000_0081, // STAR
    0xC000_0082, // LSTAR
    0xC000_0083, // CSTAR
    0xC000_0084, // FMASK
    0xC000_0102, // kernel GS base
    0xC000_0103, // TSC_AUX
];

/// Values of the live MSRs while another vCPU has the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live([u64; LIVE.len()]);

impl Live {
    /// Takes the values out of the registers; a register that the CPU does not have reads 0.
    pub fn save(&mut self) {
        for (value, index) in self.0.iter_mut().zip(LIVE) {
            *value = msr::read_safe(index).unwrap_or(0);
        }
    }

    /// As they were saved.
    pub const fn msrs(&self) -> Msrs {
        let [star, lstar, cstar, syscall_mask, kernel_gs_base, tsc_aux] = self.0;
        Msrs {
            kernel_gs_base,
            star,
            lstar,
            cstar,
            syscall_mask,
            tsc_aux,
        }
    }

    /// With these values.
    pub const fn from_msrs(msrs: &Msrs) -> Self {
        Self([
            msrs.star,
            msrs.lstar,
            msrs.cstar,
            msrs.syscall_mask,
            msrs.kernel_gs_base,
            msrs.tsc_aux,
        ])
    }

    /// Puts the values into the registers.
    pub fn load(&self) {
        for (index, value) in LIVE.into_iter().zip(self.0) {
            // SAFETY: none of these matters to the hypervisor; a CPU without TSC_AUX refuses it and loses nothing.
            let _ = unsafe { msr::write_safe(index, value) };
        }
    }
}

/// Makes all MSRs exit but those above (SDM vol. 3, 25.6.9).
pub fn fill_bitmap(bitmap: &mut [u8]) {
    bitmap.fill(0xFF);
    for index in SWITCHED.into_iter().chain(LIVE) {
        pass_through(bitmap, index);
    }
}

/// Lets reads and writes of `index` happen without exits.
fn pass_through(bitmap: &mut [u8], index: u32) {
    pass_reads(bitmap, index);
    pass_writes(bitmap, index);
}

/// Lets reads of `index` happen without exits.
pub fn pass_reads(bitmap: &mut [u8], index: u32) {
    open(bitmap, index, 0);
}

/// Lets writes of `index` happen without exits.
pub fn pass_writes(bitmap: &mut [u8], index: u32) {
    const WRITES: usize = 2048;
    open(bitmap, index, WRITES);
}

fn open(bitmap: &mut [u8], index: u32, base: usize) {
    const HIGH: usize = 1024;
    let part = if index >= 0xC000_0000 { HIGH } else { 0 };
    let bit = (index & 0x1FFF) as usize;
    if let Some(byte) = bitmap.get_mut(base + part + bit / 8) {
        *byte &= !(1 << (bit % 8));
    }
}
