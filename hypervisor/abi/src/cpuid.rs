//! Hypervisor CPUID leaves (`public/arch-x86/cpuid.h`).

/// First leaf.
pub const BASE: u32 = 0x4000_0000;
/// Highest leaf, relative to [`BASE`].
pub const LAST_LEAF: u32 = 4;
/// "XenV".
pub const SIGNATURE_EBX: u32 = 0x566E_6558;
/// "MMXe".
pub const SIGNATURE_ECX: u32 = 0x6558_4D4D;
/// "nVMM".
pub const SIGNATURE_EDX: u32 = 0x4D4D_566E;
/// MSR that asks for a hypercall page.
pub const HYPERCALL_PAGE_MSR: u32 = 0x4000_0000;
/// Leaf 4 EAX: accesses to the local APIC's registers are virtualised by hardware.
pub const LEAF4_APIC_ACCESS_VIRT: u32 = 1 << 0;
/// Leaf 4 EAX: accesses to x2APIC MSRs are virtualised by hardware.
pub const LEAF4_X2APIC_VIRT: u32 = 1 << 1;
/// Leaf 4 EAX: EBX holds the vCPU's number.
pub const LEAF4_VCPU_ID_PRESENT: u32 = 1 << 3;
/// Leaf 4 EAX: ECX holds the domain's number.
pub const LEAF4_DOMID_PRESENT: u32 = 1 << 4;
/// Leaf 4 EAX: `HVMOP_set_evtchn_upcall_vector` works.
pub const LEAF4_UPCALL_VECTOR: u32 = 1 << 6;
