//! x87, SSE, AVX and AVX-512 state, as XSAVE and XRSTOR see it.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

/// Bytes of the largest area: everything up to the high sixteen ZMM registers, with room.
const SIZE: usize = 4096;
/// Bytes of the legacy region, and of the header behind it (SDM vol. 1, 13.4).
const LEGACY: usize = 512;
const HEADER: usize = 64;
const MXCSR: core::ops::Range<usize> = 24..32;
/// Control, status and tag words; then the last instruction's opcode and pointers, which AMD's CPUs restore only while an
/// exception is pending (APM vol. 2, 11.4.4).
const X87_WORDS: core::ops::Range<usize> = 0..6;
const X87_REGISTERS: core::ops::Range<usize> = 32..160;
const XMM: core::ops::Range<usize> = 160..416;
/// x87, SSE, AVX; opmask, high halves of ZMM0–15, ZMM16–31.
const COMPONENTS: u64 = 0b1110_0111;

#[repr(C, align(64))]
struct Area([u8; SIZE]);

static mut AREAS: [[Area; 2]; 2] = [const { [const { Area([0; SIZE]) }; 2] }; 2];

/// Turns on all state components that the hypervisor offers; returns XCR0.
pub fn enable() -> u64 {
    const OSXSAVE: u64 = 1 << 18;
    const XSAVE: u32 = 1 << 26;
    let offered = __cpuid_count(1, 0).ecx & XSAVE != 0;
    assert!(offered, "no XSAVE");
    let leaf = __cpuid_count(0xD, 0);
    let components = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & COMPONENTS;
    // SAFETY: XSAVE is there, and so are the components.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) OSXSAVE, options(nostack));
        asm!("xsetbv", in("ecx") 0, in("eax") components as u32, in("edx") (components >> 32) as u32, options(nostack));
    }
    components
}

/// One vCPU's pair of areas: what was loaded, and what is found later.
pub struct Extended {
    loaded: &'static mut Area,
    found: &'static mut Area,
    /// Byte ranges of the area that hold registers.
    parts: [core::ops::Range<usize>; 8],
}

impl Extended {
    /// For a vCPU, which calls it once.
    pub fn new(vcpu: usize) -> Self {
        // SAFETY: each vCPU takes its own pair, once.
        let pair = unsafe { &mut *(&raw mut AREAS).cast::<[Area; 2]>().add(vcpu & 1) };
        let [loaded, found] = pair;
        let mut parts = [const { 0..0 }; 8];
        parts[0] = X87_WORDS;
        parts[1] = MXCSR.start..MXCSR.start + 4;
        parts[2] = X87_REGISTERS;
        parts[3] = XMM;
        let present = __cpuid_count(0xD, 0).eax;
        for (part, component) in parts[4..].iter_mut().zip([2, 5, 6, 7]) {
            if present >> component & 1 != 0 {
                let leaf = __cpuid_count(0xD, component);
                *part = leaf.ebx as usize..(leaf.ebx + leaf.eax) as usize;
            }
        }
        Self {
            loaded,
            found,
            parts,
        }
    }

    /// Fills all registers with bytes that follow from `seed`.
    pub fn load(&mut self, seed: u64) {
        let area = &mut self.loaded.0;
        area.fill(0);
        let mut state = seed;
        for part in self.parts.clone() {
            for byte in &mut area[part] {
                // A linear congruential generator (Knuth's constants): no byte is like its neighbour.
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
        }
        // Words with reserved bits: rounding differs by the seed, all exceptions are masked, all registers are in use.
        let rounding = (seed >> 4 & 3) as u16;
        area[0..2].copy_from_slice(&(0x037F | rounding << 10).to_le_bytes());
        area[2..4].copy_from_slice(&0u16.to_le_bytes());
        area[4..6].copy_from_slice(&0x00FFu16.to_le_bytes());
        area[24..28].copy_from_slice(&(0x1F80 | u32::from(rounding) << 13).to_le_bytes());
        // 80-bit registers in 16-byte slots; the rest of a slot is not kept.
        for slot in area[X87_REGISTERS].chunks_exact_mut(16) {
            slot[10..].fill(0);
        }
        let present = u64::from(__cpuid_count(0xD, 0).eax) & COMPONENTS;
        area[LEGACY..LEGACY + 8].copy_from_slice(&present.to_le_bytes());
        const { assert!(LEGACY + HEADER <= SIZE) };
        // SAFETY: the area is aligned, and its header asks for what XCR0 has.
        unsafe {
            asm!("xrstor [{}]", in(reg) area.as_ptr(), in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        }
    }

    /// The first byte that is not as it was loaded.
    pub fn difference(&mut self) -> Option<usize> {
        let area = &mut self.found.0;
        area.fill(0);
        // SAFETY: the area is aligned and large enough for all components.
        unsafe {
            asm!("xsave [{}]", in(reg) area.as_mut_ptr(), in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        }
        for slot in area[X87_REGISTERS].chunks_exact_mut(16) {
            slot[10..].fill(0);
        }
        self.parts
            .iter()
            .cloned()
            .flatten()
            .find(|&place| self.loaded.0[place] != self.found.0[place])
    }
}
