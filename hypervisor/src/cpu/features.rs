//! CPU features that the hypervisor itself turns on.

use raw_cpuid::CpuId;
use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// Which vendor's CPU this is, as far as virtualization is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Intel and compatible: VT-x, VMCALL.
    Intel,
    /// AMD and Hygon: AMD-V, VMMCALL.
    Amd,
}

/// The boot CPU's vendor, by the string in CPUID leaf 0.
pub fn vendor() -> Vendor {
    static VENDOR: Once<Vendor> = Once::new();
    *VENDOR.call_once(|| {
        let info = CpuId::new().get_vendor_info();
        match info.as_ref().map(|vendor| vendor.as_str()) {
            Some("AuthenticAMD" | "HygonGenuine") => Vendor::Amd,
            _ => Vendor::Intel,
        }
    })
}

/// Whether the page tables may hold 1 GiB pages.
pub fn gigabyte_pages() -> bool {
    CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|f| f.has_1gib_pages())
}

/// Whether RDTSC runs at a constant rate in every power state.
pub fn invariant_tsc() -> bool {
    CpuId::new()
        .get_advanced_power_mgmt_info()
        .is_some_and(|info| info.has_invariant_tsc())
}

/// Logs what the boot CPU is and can do (`cpuinfo`).
pub fn log_cpu() {
    let id = CpuId::new();
    if let Some(brand) = id.get_processor_brand_string() {
        log::info!("CPU: {}", brand.as_str().trim());
    }
    if let Some(info) = id.get_feature_info() {
        log::info!(
            "family {:#x} model {:#x} stepping {:#x}",
            info.family_id(),
            info.model_id(),
            info.stepping_id()
        );
    }
    let leaf = core::arch::x86_64::__cpuid;
    let (basic, extended) = (leaf(1), leaf(0x8000_0001));
    log::info!(
        "CPUID 1 ECX {:#010x} EDX {:#010x}, 80000001 ECX {:#010x} EDX {:#010x}",
        basic.ecx,
        basic.edx,
        extended.ecx,
        extended.edx
    );
    let structured = core::arch::x86_64::__cpuid_count(7, 0);
    log::info!(
        "CPUID 7 EBX {:#010x} ECX {:#010x} EDX {:#010x}",
        structured.ebx,
        structured.ecx,
        structured.edx
    );
}

/// Turns on, on the calling CPU, what protects the hypervisor from its own mistakes and what guests' FPU state needs.
pub fn enable_on_this_cpu() {
    let id = CpuId::new();
    let extended = id.get_extended_feature_info();
    let mut cr4 =
        Cr4::read() | Cr4Flags::PAGE_GLOBAL | Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    cr4.remove(Cr4Flags::TIMESTAMP_DISABLE);
    if let Some(extended) = &extended {
        cr4.set(
            Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
            extended.has_smep(),
        );
        cr4.set(
            Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION,
            extended.has_smap(),
        );
        cr4.set(
            Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION,
            extended.has_umip(),
        );
    }
    let xsave = id.get_feature_info().is_some_and(|info| info.has_xsave());
    cr4.set(Cr4Flags::OSXSAVE, xsave);
    let mut cr0 = Cr0::read();
    cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
    cr0.insert(Cr0Flags::WRITE_PROTECT | Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR);
    // SAFETY: every bit set is one the CPU reports; the hypervisor has no user mappings, so SMEP and SMAP change nothing
    // for it, and paging stays as it is.
    unsafe {
        Cr0::write(cr0);
        Cr4::write(cr4);
    }
    if xsave {
        // SAFETY: x87 and SSE are always valid; guests' wider state is enabled as they ask for it.
        unsafe { XCr0::write(XCr0Flags::X87 | XCr0Flags::SSE) };
    }
}
