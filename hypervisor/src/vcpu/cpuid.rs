//! CPUID as guests see it: the host's leaves through allow-masks, plus the hypervisor's own leaves.
//!
//! A feature is shown only if the hypervisor virtualizes all of its state, so unknown bits are never passed through.

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use alloc::vec::Vec;

use oxen_abi::cpuid as abi;
use oxen_core::cpu_policy::{Index, Values};

use crate::cpu::features::{self, Vendor};
use crate::domain::Domain;
use crate::time;

/// What the answer depends on besides the host.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The vCPU's number.
    pub vcpu: u32,
    /// Its local APIC ID.
    pub apic_id: u32,
    /// The domain.
    pub domain: &'a Domain,
    /// Whether the guest has set CR4.OSXSAVE.
    pub osxsave: bool,
}

impl<'a> View<'a> {
    /// As a domain's first vCPU has it before it runs.
    pub const fn of(domain: &'a Domain) -> Self {
        Self {
            vcpu: 0,
            apic_id: 0,
            domain,
            osxsave: false,
        }
    }

    fn vcpus(&self) -> u32 {
        self.domain.vcpus.len() as u32
    }
}

/// TSC rate in kHz, as leaves have it.
fn tsc_khz() -> u32 {
    time::khz() as u32
}

/// Bits `list` as a mask.
const fn bits(list: &[u32]) -> u32 {
    let (mut mask, mut i) = (0, 0);
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

// SSE3 PCLMUL SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 x2APIC MOVBE POPCNT AES XSAVE AVX F16C RDRAND
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30]);
const LEAF_1_ECX_X2APIC: u32 = 1 << 21;
const LEAF_1_ECX_OSXSAVE: u32 = 1 << 27;
const LEAF_1_ECX_HYPERVISOR: u32 = 1 << 31;
// FPU VME DE PSE TSC MSR PAE CX8 APIC SEP MTRR PGE CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 SS
const LEAF_1_EDX: u32 = bits(&[
    0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15, 16, 17, 19, 23, 24, 25, 26, 27,
]);
// FSGSBASE BMI1 AVX2 FDP SMEP BMI2 ERMS INVPCID FCS-deprecated AVX512F/DQ RDSEED ADX SMAP IFMA CLFLUSHOPT CLWB
// AVX512CD SHA AVX512BW/VL
const LEAF_7_EBX: u32 = bits(&[
    0, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31,
]);
// PREFETCHWT1 AVX512VBMI UMIP VBMI2 GFNI VAES VPCLMUL VNNI BITALG VPOPCNTDQ RDPID
const LEAF_7_ECX: u32 = bits(&[0, 1, 2, 6, 8, 9, 10, 11, 12, 14, 22]);
// 4VNNIW 4FMAPS FSRM VP2INTERSECT MD_CLEAR SERIALIZE
const LEAF_7_EDX: u32 = bits(&[2, 3, 4, 8, 10, 14]);
// AVX-VNNI AVX512-BF16 FZRM FSRS FSRCS AVX-IFMA
const LEAF_7_1_EAX: u32 = bits(&[4, 5, 10, 11, 12, 23]);
// XSAVEOPT XSAVEC XGETBV1
const LEAF_D_1_EAX: u32 = bits(&[0, 1, 2]);
// LAHF ABM SSE4A misaligned-SSE PREFETCHW XOP FMA4 TBM
const EXTENDED_1_ECX: u32 = bits(&[0, 4, 5, 6, 7, 8, 11, 16, 21]);
// SYSCALL NX MMXEXT FFXSR 1GiB RDTSCP LM 3DNOW
const EXTENDED_1_EDX: u32 = bits(&[11, 20, 22, 25, 26, 27, 29, 30, 31]);
const EXTENDED_7_EDX_INVARIANT_TSC: u32 = 1 << 8;
// CLZERO XSAVEERPTR WBNOINVD
const EXTENDED_8_EBX: u32 = bits(&[0, 2, 9]);

/// XCR0 components that the hypervisor switches: x87, SSE, AVX, and AVX-512's three.
pub const XCR0_SUPPORTED: u64 = 0b1110_0111;

const LAST_BASIC: u32 = 0xD;
/// Intel's CPUs tell their frequencies in the last leaf. Linux tries the PIT for that where there is no such leaf, and dom0
/// has no PIT.
const LAST_BASIC_INTEL: u32 = 0x16;
const LAST_EXTENDED: u32 = 0x8000_0008;

type Filter = fn(&View<'_>, u32, CpuidResult) -> CpuidResult;

/// Filters by leaf; a leaf that is not here reads as zero.
const FILTERS: &[(u32, Filter)] = &[
    (0x0, |_, _, host| CpuidResult {
        eax: match features::vendor() {
            Vendor::Intel => LAST_BASIC_INTEL,
            Vendor::Amd => host.eax.min(LAST_BASIC),
        },
        ..host
    }),
    (0x1, basic_features),
    (0x2, |_, _, host| host),
    (0x4, |_, _, host| CpuidResult {
        eax: host.eax & 0x3FFF,
        ..host
    }),
    (0x7, structured_features),
    (0xB, topology),
    (0xD, extended_state),
    (0x16, frequencies),
    (0x8000_0000, |_, _, host| CpuidResult {
        eax: host.eax.min(LAST_EXTENDED),
        ..host
    }),
    (0x8000_0001, extended_features),
    (0x8000_0002, |_, _, host| host),
    (0x8000_0003, |_, _, host| host),
    (0x8000_0004, |_, _, host| host),
    (0x8000_0005, |_, _, host| host),
    (0x8000_0006, |_, _, host| host),
    (0x8000_0007, |_, _, host| CpuidResult {
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: host.edx & EXTENDED_7_EDX_INVARIANT_TSC,
    }),
    (0x8000_0008, |_, _, host| CpuidResult {
        eax: host.eax & 0xFFFF,
        ebx: host.ebx & EXTENDED_8_EBX,
        ecx: 0,
        edx: 0,
    }),
];

const NOTHING: CpuidResult = CpuidResult {
    eax: 0,
    ebx: 0,
    ecx: 0,
    edx: 0,
};

/// Answers CPUID for `leaf` and `subleaf`.
pub fn answer(view: &View<'_>, leaf: u32, subleaf: u32) -> CpuidResult {
    if leaf & 0xFFFF_FF00 == abi::BASE {
        return hypervisor_leaf(view, leaf - abi::BASE, subleaf);
    }
    match FILTERS.iter().find(|(filtered, _)| *filtered == leaf) {
        Some((_, filter)) => filter(view, subleaf, __cpuid_count(leaf, subleaf)),
        None => NOTHING,
    }
}

/// The same as EAX, EBX, ECX and EDX.
pub fn values(view: &View<'_>, leaf: u32, subleaf: u32) -> Values {
    let result = answer(view, leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// What the CPU itself says.
pub fn host(leaf: u32, subleaf: u32) -> Values {
    let result = __cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// The leaves that a list of all that `values` shows consists of, in the order of Xen's lists and as far as those go
/// (`xen_cpuid_leaf`).
pub fn indices(values: impl Fn(u32, u32) -> Values) -> Vec<Index> {
    const TYPE: u32 = 0x1F;
    const MOST_CACHES: u32 = 6;
    const MOST_TOPOLOGY: u32 = 2;
    const MOST_STRUCTURED: u32 = 2;
    const EXTENDED: u32 = 0x8000_0000;
    let mut list = Vec::new();
    for leaf in 0..=values(0, 0)[0].min(LAST_BASIC) {
        match leaf {
            0x4 => {
                // The one that ends them is listed too, where there is room.
                let caches = (0..MOST_CACHES).take_while(|&sub| values(4, sub)[0] & TYPE != 0);
                let listed = (caches.count() as u32 + 1).min(MOST_CACHES);
                list.extend((0..listed).map(|sub| Index::sub(leaf, sub)));
            }
            0x7 => {
                let last = values(7, 0)[0].min(MOST_STRUCTURED);
                list.extend((0..=last).map(|sub| Index::sub(leaf, sub)));
            }
            0xB => list.extend((0..MOST_TOPOLOGY).map(|sub| Index::sub(leaf, sub))),
            0xD => {
                let [low, _, _, high] = values(0xD, 0);
                let components = u64::from(high) << 32 | u64::from(low);
                // Up to the highest, those in between that are not there too.
                let last = (63 - (components | 0b10).leading_zeros()).min(62);
                list.extend((0..=last).map(|sub| Index::sub(leaf, sub)));
            }
            _ => list.push(Index::plain(leaf)),
        }
    }
    list.extend([Index::plain(abi::BASE), Index::plain(abi::BASE + 0x100)]);
    let last = values(EXTENDED, 0)[0].min(LAST_EXTENDED);
    list.extend((EXTENDED..=last).map(Index::plain));
    list
}

fn basic_features(view: &View<'_>, _: u32, host: CpuidResult) -> CpuidResult {
    // Brand index and CLFLUSH size stay; one logical processor; the initial APIC ID is the vCPU's.
    let ebx = host.ebx & 0xFFFF | 1 << 16 | view.apic_id << 24;
    let mut ecx = host.ecx & LEAF_1_ECX | LEAF_1_ECX_X2APIC | LEAF_1_ECX_HYPERVISOR;
    if view.osxsave {
        ecx |= LEAF_1_ECX_OSXSAVE;
    }
    CpuidResult {
        eax: host.eax,
        ebx,
        ecx,
        edx: host.edx & LEAF_1_EDX,
    }
}

fn structured_features(_: &View<'_>, subleaf: u32, host: CpuidResult) -> CpuidResult {
    match subleaf {
        0 => CpuidResult {
            eax: host.eax.min(1),
            ebx: host.ebx & LEAF_7_EBX,
            ecx: host.ecx & LEAF_7_ECX,
            edx: host.edx & LEAF_7_EDX,
        },
        1 => CpuidResult {
            eax: host.eax & LEAF_7_1_EAX,
            ..NOTHING
        },
        _ => NOTHING,
    }
}

/// One thread a core, all vCPUs' cores in one package (SDM vol. 2A, CPUID leaf 0BH).
fn topology(view: &View<'_>, subleaf: u32, _: CpuidResult) -> CpuidResult {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let (eax, ebx, kind) = match subleaf {
        0 => (0, 1, THREAD),
        1 => (
            view.vcpus().next_power_of_two().trailing_zeros().max(1),
            view.vcpus(),
            CORE,
        ),
        _ => (0, 0, 0),
    };
    CpuidResult {
        eax,
        ebx,
        ecx: kind | subleaf & 0xFF,
        edx: view.apic_id,
    }
}

/// Base and maximum frequency as the TSC was measured, not as the host's leaf claims; the customary bus. In MHz.
fn frequencies(_: &View<'_>, _: u32, _: CpuidResult) -> CpuidResult {
    const BUS: u32 = 100;
    let mhz = tsc_khz().div_ceil(1000);
    CpuidResult {
        eax: mhz,
        ebx: mhz,
        ecx: BUS,
        edx: 0,
    }
}

/// EBX of sub-leaves 0 and 1 depends on XCR0, and the guest's own is loaded while its exits are handled.
fn extended_state(_: &View<'_>, subleaf: u32, host: CpuidResult) -> CpuidResult {
    let supported = xcr0_allowed();
    match subleaf {
        0 => CpuidResult {
            eax: supported as u32,
            ebx: host.ebx,
            ecx: save_area_size(supported),
            edx: 0,
        },
        1 => CpuidResult {
            eax: host.eax & LEAF_D_1_EAX,
            ebx: host.ebx,
            ecx: 0,
            edx: 0,
        },
        2..63 if supported >> subleaf & 1 != 0 => host,
        _ => NOTHING,
    }
}

fn extended_features(_: &View<'_>, _: u32, host: CpuidResult) -> CpuidResult {
    CpuidResult {
        eax: host.eax,
        ebx: host.ebx,
        ecx: host.ecx & EXTENDED_1_ECX,
        // AMD repeats leaf 1's bits in the low part; what is hidden there is hidden here.
        edx: host.edx & (EXTENDED_1_EDX | LEAF_1_EDX & 0x0183_F3FF),
    }
}

fn hypervisor_leaf(view: &View<'_>, leaf: u32, subleaf: u32) -> CpuidResult {
    match (leaf, subleaf) {
        (0, _) => CpuidResult {
            eax: abi::BASE + abi::LAST_LEAF,
            ebx: abi::SIGNATURE_EBX,
            ecx: abi::SIGNATURE_ECX,
            edx: abi::SIGNATURE_EDX,
        },
        (1, _) => CpuidResult {
            eax: oxen_abi::version::VERSION,
            ..NOTHING
        },
        (2, _) => CpuidResult {
            eax: 1,
            ebx: abi::HYPERCALL_PAGE_MSR,
            ..NOTHING
        },
        (3, 0) => CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: tsc_khz(),
            edx: 0,
        },
        (3, 1) => {
            let scale = time::scale();
            // The guest's TSC is the host's.
            CpuidResult {
                eax: 0,
                ebx: 0,
                ecx: scale.multiplier,
                edx: i32::from(scale.shift) as u32,
            }
        }
        (3, 2) => CpuidResult {
            eax: tsc_khz(),
            ..NOTHING
        },
        (4, 0) => CpuidResult {
            eax: abi::LEAF4_VCPU_ID_PRESENT | abi::LEAF4_DOMID_PRESENT,
            ebx: view.vcpu,
            ecx: view.domain.id.0.into(),
            edx: 0,
        },
        _ => NOTHING,
    }
}

/// XCR0 bits that guests may set on this machine; 0 without XSAVE.
pub fn xcr0_allowed() -> u64 {
    const XSAVE: u32 = 1 << 26;
    if __cpuid_count(1, 0).ecx & XSAVE == 0 {
        return 0;
    }
    let host = __cpuid_count(0xD, 0);
    (u64::from(host.edx) << 32 | u64::from(host.eax)) & XCR0_SUPPORTED
}

/// Bytes of a standard-format XSAVE area for the components in `mask`.
pub fn save_area_size(mask: u64) -> u32 {
    const LEGACY_AND_HEADER: u32 = 576;
    (2..63)
        .filter(|component| mask >> component & 1 != 0)
        .map(|component| {
            let leaf = __cpuid_count(0xD, component);
            leaf.eax + leaf.ebx
        })
        .fold(LEGACY_AND_HEADER, u32::max)
}
