//! Debug registers, and MSRs that the guest's accesses to do not exit.

use core::arch::asm;

use oxen_guest_runtime::cpu;

/// MSRs that hold addresses or selectors, and a mask of the bits that they all keep.
const MSRS: [(&str, u32); 7] = [
    ("STAR", 0xC000_0081),
    ("LSTAR", 0xC000_0082),
    ("CSTAR", 0xC000_0083),
    ("FMASK", 0xC000_0084),
    ("KERNEL_GS_BASE", 0xC000_0102),
    ("FS_BASE", 0xC000_0100),
    ("SYSENTER_ESP", 0x175),
];
/// Canonical, and within the 32 bits that FMASK has.
const ADDRESS: u64 = 0x7FFF_FFFF;

fn value(seed: u64, index: usize) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(index as u32 * 5)
        & ADDRESS
}

/// Loads values that follow from `seed`.
pub fn load(seed: u64) {
    for (index, (_, msr)) in MSRS.iter().enumerate() {
        cpu::write_msr(*msr, value(seed, index));
    }
    let [a, b, c, d] = core::array::from_fn(|index| value(seed, 8 + index));
    // SAFETY: breakpoint addresses mean nothing while DR7 enables none of them.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) a, in(reg) b, in(reg) c, in(reg) d, options(nomem, nostack));
    }
}

/// The name of the first register that does not hold its value any more.
pub fn difference(seed: u64) -> Option<&'static str> {
    for (index, (name, msr)) in MSRS.iter().enumerate() {
        if cpu::read_msr(*msr) != value(seed, index) {
            return Some(name);
        }
    }
    let (a, b, c, d): (u64, u64, u64, u64);
    // SAFETY: reading debug registers has no effect.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", out(reg) a, out(reg) b, out(reg) c, out(reg) d, options(nomem, nostack));
    }
    ["DR0", "DR1", "DR2", "DR3"]
        .into_iter()
        .zip([a, b, c, d])
        .enumerate()
        .find(|&(index, (_, found))| found != value(seed, 8 + index))
        .map(|(_, (name, _))| name)
}
