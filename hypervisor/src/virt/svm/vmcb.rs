//! The virtual machine control block (APM vol. 2, appendix B).

use crate::virt::Segment;

/// A segment register in the save area. Attributes are packed in 12 bits: VMCS bits 7:0, then AVL, L, D/B, G.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PackedSegment {
    pub selector: u16,
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

impl From<Segment> for PackedSegment {
    fn from(segment: Segment) -> Self {
        Self {
            selector: segment.selector,
            attributes: segment.packed_attributes() as u16,
            limit: segment.limit,
            base: segment.base,
        }
    }
}

impl From<PackedSegment> for Segment {
    fn from(packed: PackedSegment) -> Self {
        Self::from_packed(
            packed.selector,
            packed.attributes.into(),
            packed.limit,
            packed.base,
        )
    }
}

/// The control area.
#[repr(C)]
pub struct Control {
    pub intercept_cr: u32,
    pub intercept_dr: u32,
    pub intercept_exceptions: u32,
    pub intercept_1: u32,
    pub intercept_2: u32,
    pub intercept_3: u32,
    _reserved_18: [u8; 0x3C - 0x18],
    pub pause_filter_threshold: u16,
    pub pause_filter_count: u16,
    pub port_map: u64,
    pub msr_map: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    pub tlb_control: u32,
    pub virtual_interrupt: u64,
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info_1: u64,
    pub exit_info_2: u64,
    pub exit_interrupt_info: u64,
    pub nested_enable: u64,
    _avic_and_ghcb: [u64; 2],
    pub event_injection: u64,
    pub nested_root: u64,
    pub last_branch: u64,
    pub clean: u64,
    pub next_rip: u64,
    pub fetched: [u8; 16],
    _reserved_e0: [u8; 0x400 - 0xE0],
}

/// The state save area.
#[repr(C)]
pub struct Save {
    pub es: PackedSegment,
    pub cs: PackedSegment,
    pub ss: PackedSegment,
    pub ds: PackedSegment,
    pub fs: PackedSegment,
    pub gs: PackedSegment,
    pub gdtr: PackedSegment,
    pub ldtr: PackedSegment,
    pub idtr: PackedSegment,
    pub tr: PackedSegment,
    _reserved_a0: [u8; 0xCB - 0xA0],
    pub cpl: u8,
    _reserved_cc: [u8; 4],
    pub efer: u64,
    _reserved_d8: [u8; 0x148 - 0xD8],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _reserved_180: [u8; 0x1D8 - 0x180],
    pub rsp: u64,
    _shadow_stack: [u64; 3],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    _reserved_248: [u8; 0x268 - 0x248],
    pub pat: u64,
    _reserved_270: [u8; 0xC00 - 0x270],
}

/// The whole block: one page.
#[repr(C, align(4096))]
pub struct Vmcb {
    pub control: Control,
    pub save: Save,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Control, pause_filter_count) == 0x3E);
    assert!(offset_of!(Control, asid) == 0x58);
    assert!(offset_of!(Control, exit_code) == 0x70);
    assert!(offset_of!(Control, nested_enable) == 0x90);
    assert!(offset_of!(Control, event_injection) == 0xA8);
    assert!(offset_of!(Control, clean) == 0xC0);
    assert!(offset_of!(Control, next_rip) == 0xC8);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Save, cpl) == 0xCB);
    assert!(offset_of!(Save, efer) == 0xD0);
    assert!(offset_of!(Save, cr4) == 0x148);
    assert!(offset_of!(Save, rip) == 0x178);
    assert!(offset_of!(Save, rsp) == 0x1D8);
    assert!(offset_of!(Save, rax) == 0x1F8);
    assert!(offset_of!(Save, cr2) == 0x240);
    assert!(offset_of!(Save, pat) == 0x268);
};

/// Bits of [`Control::intercept_1`].
pub mod intercept_1 {
    pub const INTERRUPT: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 1;
    pub const INIT: u32 = 1 << 3;
    pub const VIRTUAL_INTERRUPT: u32 = 1 << 4;
    pub const RDPMC: u32 = 1 << 15;
    pub const CPUID: u32 = 1 << 18;
    pub const IRET: u32 = 1 << 20;
    pub const INVD: u32 = 1 << 22;
    pub const PAUSE: u32 = 1 << 23;
    pub const HLT: u32 = 1 << 24;
    pub const INVLPGA: u32 = 1 << 26;
    pub const PORT: u32 = 1 << 27;
    pub const MSR: u32 = 1 << 28;
    pub const TASK_SWITCH: u32 = 1 << 29;
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// Bits of [`Control::intercept_2`].
pub mod intercept_2 {
    /// VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT.
    pub const SVM_INSTRUCTIONS: u32 = 0x7F;
    pub const WBINVD: u32 = 1 << 9;
    pub const MONITOR: u32 = 1 << 10;
    pub const MWAIT: u32 = 1 << 11;
    pub const XSETBV: u32 = 1 << 13;
    pub const RDPRU: u32 = 1 << 14;
}

/// Bits of [`Control::virtual_interrupt`].
pub mod virtual_interrupt {
    pub const TPR: u64 = 0xF;
    pub const PENDING: u64 = 1 << 8;
    pub const PRIORITY_SHIFT: u32 = 16;
    pub const PRIORITY: u64 = 0xF << PRIORITY_SHIFT;
    pub const IGNORE_TPR: u64 = 1 << 20;
    pub const MASKING: u64 = 1 << 24;
}

/// Groups of cached state (APM vol. 2, 15.15.3): a set bit tells the CPU that the group is unchanged.
pub mod clean {
    pub const INTERCEPTS: u64 = 1 << 0;
    pub const VIRTUAL_INTERRUPT: u64 = 1 << 3;
    pub const CONTROL_REGISTERS: u64 = 1 << 5;
    pub const CR2: u64 = 1 << 9;
    pub const ALL: u64 = 0x3FF;
}

/// Event injection and exit interrupt information (APM vol. 2, 15.20).
pub mod event {
    pub const VALID: u64 = 1 << 31;
    pub const ERROR_CODE_VALID: u64 = 1 << 11;
    pub const KIND: u64 = 7 << 8;
    pub const EXTERNAL: u64 = 0 << 8;
    pub const NMI: u64 = 2 << 8;
    pub const EXCEPTION: u64 = 3 << 8;
}
