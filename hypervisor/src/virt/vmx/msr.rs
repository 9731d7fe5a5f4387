//! MSRs of a vCPU that are its own without exits: the VMCS switches some, the others stay in the registers while the
//! vCPU is loaded, as the hypervisor uses none of them.

use crate::cpu::msr;

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

/// Targets and mask of SYSCALL, the other GS base, and what RDTSCP reads (SDM vol. 4, table 2-2).
pub const STAR: u32 = 0xC000_0081;
/// See [`STAR`].
pub const LSTAR: u32 = 0xC000_0082;
/// See [`STAR`].
pub const CSTAR: u32 = 0xC000_0083;
/// See [`STAR`].
pub const SYSCALL_MASK: u32 = 0xC000_0084;
/// See [`STAR`].
pub const KERNEL_GS_BASE: u32 = 0xC000_0102;
/// See [`STAR`].
pub const TSC_AUX: u32 = 0xC000_0103;

/// MSRs that [`Live`] switches with the vCPU.
const LIVE: [u32; 6] = [STAR, LSTAR, CSTAR, SYSCALL_MASK, KERNEL_GS_BASE, TSC_AUX];

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

    /// The value of one of [`LIVE`] as it was saved.
    pub fn value(&self, index: u32) -> u64 {
        let place = LIVE.iter().position(|&live| live == index);
        place.map_or(0, |place| self.0[place])
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
