//! `domctl` (`public/domctl.h`, interface version 0x15): domains, for the control domain.

/// The version that every call carries.
pub const INTERFACE_VERSION: u32 = 0x15;
/// Bytes of the header: command, version, domain.
pub const HEADER: u64 = 16;
/// Offset of the domain's number.
pub const DOMAIN: u64 = 8;

/// Commands.
#[allow(missing_docs)]
pub mod cmd {
    pub const CREATE: u32 = 1;
    pub const DESTROY: u32 = 2;
    pub const PAUSE: u32 = 3;
    pub const UNPAUSE: u32 = 4;
    pub const GET_INFO: u32 = 5;
    pub const SET_AFFINITY: u32 = 9;
    pub const MAX_MEM: u32 = 11;
    pub const GET_VCPU_CONTEXT: u32 = 13;
    pub const GET_VCPU_INFO: u32 = 14;
    pub const MAX_VCPUS: u32 = 15;
    pub const SCHEDULER_OP: u32 = 16;
    pub const SET_HANDLE: u32 = 17;
    pub const SET_TIME_OFFSET: u32 = 24;
    pub const GET_AFFINITY: u32 = 25;
    pub const SEND_TRIGGER: u32 = 28;
    pub const GET_HVM_CONTEXT: u32 = 33;
    pub const SET_HVM_CONTEXT: u32 = 34;
    pub const GET_HVM_CONTEXT_PARTIAL: u32 = 55;
    pub const VM_EVENT: u32 = 56;
    pub const SET_TSC_INFO: u32 = 60;
    pub const SET_NODE_AFFINITY: u32 = 68;
    pub const GET_NODE_AFFINITY: u32 = 69;
    pub const MONITOR: u32 = 77;
    pub const GET_CPU_POLICY: u32 = 82;
    pub const SET_CPU_POLICY: u32 = 83;
    pub const GET_PAGING_MEMPOOL: u32 = 85;
    pub const SET_PAGING_MEMPOOL: u32 = 86;
    pub const GDBSX_GUEST_MEMORY: u32 = 1000;
}

/// `xen_domctl_gdbsx_memio`: size and offsets.
#[allow(missing_docs)]
pub mod memory_io {
    pub const SIZE: usize = 40;
    /// Linear address in the domain.
    pub const ADDRESS: usize = 8;
    /// Linear address in the caller.
    pub const BUFFER: usize = 16;
    pub const LENGTH: usize = 24;
    /// One byte; 0 reads from the domain.
    pub const WRITE: usize = 28;
    /// Bytes that were not copied; written when there are none.
    pub const REMAIN: usize = 32;
}

/// `xen_domctl_vcpuaffinity`: size, offsets and flags. A bitmap is a pointer and, behind it, its length in bits.
#[allow(missing_docs)]
pub mod affinity {
    pub const SIZE: usize = 40;
    pub const VCPU: usize = 0;
    pub const FLAGS: usize = 4;
    pub const HARD: usize = 8;
    pub const SOFT: usize = 24;
    /// From a bitmap's pointer to its length.
    pub const BITS: usize = 8;
    pub const FLAG_HARD: u32 = 1 << 0;
    pub const FLAG_SOFT: u32 = 1 << 1;
    /// Whatever pins the vCPU otherwise is overridden.
    pub const FLAG_FORCE: u32 = 1 << 2;
}

/// `xen_domctl_scheduler_op`: size, offsets and commands.
#[allow(missing_docs)]
pub mod scheduler {
    pub const SIZE: usize = 24;
    pub const ID: usize = 0;
    pub const COMMAND: usize = 4;
    pub const WEIGHT: usize = 8;
    pub const CAP: usize = 10;
    pub const PUT: u32 = 0;
    pub const GET: u32 = 1;
}

/// `xen_domctl_createdomain`: offsets in the body.
#[allow(missing_docs)]
pub mod create {
    pub const HANDLE: usize = 4;
    pub const FLAGS: usize = 20;
    pub const MAX_VCPUS: usize = 28;
    pub const MAX_EVENT_PORT: usize = 32;
    pub const VMTRACE_SIZE: usize = 48;
    pub const CPUPOOL: usize = 52;
    /// Grant frames and frames of mapping handles at most; -1 for what the hypervisor thinks right.
    pub const MAX_GRANT_FRAMES: usize = 36;
    pub const MAX_MAPTRACK_FRAMES: usize = 40;
    /// Bits 3:0: newest version of grant entries; 0 for what the hypervisor thinks right.
    pub const GRANT_OPTIONS: usize = 44;
    pub const EMULATION: usize = 56;
    pub const MISC: usize = 60;
    /// Reads of unknown MSRs give 0 (`XEN_X86_MSR_RELAXED`), in [`MISC`].
    pub const MISC_RELAXED_MSRS: u32 = 1 << 0;
    /// An HVM container.
    pub const FLAG_HVM: u32 = 1 << 0;
    /// Hardware-assisted paging.
    pub const FLAG_HAP: u32 = 1 << 1;
    /// Flags that ask for nothing that is not there: the above, and no out-of-sync shadow pages.
    pub const FLAGS_KNOWN: u32 = FLAG_HVM | FLAG_HAP | 1 << 3;
    /// A local APIC is emulated, and nothing else: what makes a PVH guest.
    pub const EMULATE_LOCAL_APIC: u32 = 1;
}

/// `xen_domctl_getdomaininfo`: size and offsets.
#[allow(missing_docs)]
pub mod info {
    pub const SIZE: usize = 112;
    pub const FLAGS: usize = 4;
    pub const TOTAL_PAGES: usize = 8;
    pub const MAX_PAGES: usize = 16;
    pub const OUTSTANDING_PAGES: usize = 24;
    pub const SHARED_INFO: usize = 48;
    pub const CPU_TIME: usize = 56;
    pub const ONLINE_VCPUS: usize = 64;
    pub const MAX_VCPU_ID: usize = 68;
    pub const HANDLE: usize = 76;
    pub const ADDRESS_BITS: usize = 96;
    pub const EMULATION: usize = 104;
    pub const DYING: u32 = 1 << 0;
    pub const HVM: u32 = 1 << 1;
    pub const SHUTDOWN: u32 = 1 << 2;
    pub const PAUSED: u32 = 1 << 3;
    pub const BLOCKED: u32 = 1 << 4;
    pub const RUNNING: u32 = 1 << 5;
    pub const HAP: u32 = 1 << 8;
    /// Shift of the shutdown code in the flags.
    pub const SHUTDOWN_SHIFT: u32 = 16;
}

/// Triggers (`XEN_DOMCTL_SENDTRIGGER_*`).
#[allow(missing_docs)]
pub mod trigger {
    pub const NMI: u32 = 0;
    pub const RESET: u32 = 1;
    pub const INIT: u32 = 2;
    pub const POWER: u32 = 3;
    pub const SLEEP: u32 = 4;
}

/// Records of an HVM context (`public/arch-x86/hvm/save.h`).
#[allow(missing_docs)]
pub mod context {
    /// Bytes of a record's descriptor: type, instance, length.
    pub const DESCRIPTOR: usize = 8;
    pub const END: u16 = 0;
    pub const HEADER: u16 = 1;
    pub const CPU: u16 = 2;
    pub const HEADER_SIZE: usize = 24;
    pub const MAGIC: u32 = 0x5438_1286;
    /// `hvm_hw_cpu`.
    pub const CPU_SIZE: usize = 1032;
    /// RAX, RBX, RCX, RDX, RBP, RSI, RDI, RSP, R8 to R15.
    pub const GENERAL: usize = 512;
    pub const RIP: usize = 640;
    pub const RFLAGS: usize = 648;
    pub const CR0: usize = 656;
    pub const CR3: usize = 672;
    pub const CR4: usize = 680;
    /// Limits of CS, DS, ES, FS, GS, SS, TR, LDTR; bases and rights in the same order.
    pub const LIMITS: usize = 768;
    pub const BASES: usize = 808;
    pub const RIGHTS: usize = 888;
    pub const EFER: usize = 992;
    pub const CR2: usize = 664;
    pub const DR0: usize = 688;
    pub const DR6: usize = 720;
    pub const DR7: usize = 728;
    pub const SELECTORS: usize = 736;
    pub const IDTR_LIMIT: usize = 800;
    pub const GDTR_LIMIT: usize = 804;
    pub const IDTR_BASE: usize = 872;
    pub const GDTR_BASE: usize = 880;
    /// CS, ESP, EIP.
    pub const SYSENTER: usize = 920;
    pub const SHADOW_GS: usize = 944;
    pub const LSTAR: usize = 960;
    pub const STAR: usize = 968;
    pub const CSTAR: usize = 976;
    pub const SYSCALL_MASK: usize = 984;
    pub const TSC_AUX: usize = 1000;
    pub const TSC: usize = 1008;
    /// Event, error code, as VT-x and AMD-V have them.
    pub const PENDING_EVENT: usize = 1016;
    /// Flags, padding.
    pub const FLAGS: usize = 1024;
    /// `XEN_X86_FPU_INITIALISED`.
    pub const FLAG_FPU: u32 = 1 << 0;
    /// Of the header.
    pub const VERSION: u32 = 1;
    pub const LAPIC: u16 = 5;
    pub const LAPIC_SIZE: usize = 24;
    pub const LAPIC_REGS: u16 = 6;
    pub const LAPIC_REGS_SIZE: usize = 1024;
    pub const CPU_XSAVE: u16 = 16;
    /// Features (ignored), XCR0, what XCR0 has ever held, the area.
    pub const XSAVE_XCR0: usize = 8;
    pub const XSAVE_XCR0_EVER: usize = 16;
    pub const XSAVE_AREA: usize = 24;
    pub const VMCE_VCPU: u16 = 18;
    pub const VMCE_SIZE: usize = 32;
    pub const TSC_ADJUST: u16 = 19;
    pub const TSC_ADJUST_SIZE: usize = 8;
    pub const CPU_MSR: u16 = 20;
    /// Of devices that only HVM domains have: PIC, IOAPIC, interrupt wires, PIT, RTC, HPET, PM timer, Viridian.
    pub const OF_DEVICES: [u16; 11] = [3, 4, 7, 8, 9, 10, 11, 12, 13, 15, 17];
    pub const MTRR: u16 = 14;
    /// `hvm_hw_mtrr`.
    pub const MTRR_SIZE: usize = 240;
}

/// `vcpu_guest_context` (`public/arch-x86/xen.h`): size and offsets.
#[allow(missing_docs)]
pub mod guest_context {
    pub const SIZE: usize = 5168;
    /// x87 and SSE state.
    pub const FPU: usize = 0;
    pub const FLAGS: usize = 512;
    pub const FLAG_FPU: u64 = 1 << 0;
    pub const FLAG_ONLINE: u64 = 1 << 5;
    /// R15, R14, R13, R12, RBP, RBX, R11, R10, R9, R8, RAX, RCX, RDX, RSI, RDI.
    pub const GENERAL: usize = 520;
    pub const RIP: usize = 648;
    pub const CS: usize = 656;
    pub const RFLAGS: usize = 664;
    pub const RSP: usize = 672;
    /// SS, ES, DS, FS, GS, 8 bytes each.
    pub const SELECTORS: usize = 680;
    pub const CONTROL: usize = 4984;
    pub const DEBUG: usize = 5048;
    pub const FS_BASE: usize = 5144;
    pub const GS_BASE_KERNEL: usize = 5152;
    pub const GS_BASE_USER: usize = 5160;
}
