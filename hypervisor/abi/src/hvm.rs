//! `hvm_op` and HVM parameters (`public/hvm/hvm_op.h`, `public/hvm/params.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const SET_PARAM: u64 = 0;
    pub const GET_PARAM: u64 = 1;
    pub const PAGETABLE_DYING: u64 = 9;
    pub const GET_TIME: u64 = 10;
    pub const GET_MEM_TYPE: u64 = 15;
    pub const SET_EVTCHN_UPCALL_VECTOR: u64 = 23;
    pub const GUEST_REQUEST_VM_EVENT: u64 = 24;
    pub const ALTP2M: u64 = 25;
}

/// Parameters.
#[allow(missing_docs)]
pub mod param {
    pub const CALLBACK_IRQ: u32 = 0;
    pub const STORE_PFN: u32 = 1;
    pub const STORE_EVTCHN: u32 = 2;
    pub const IOREQ_PFN: u32 = 5;
    pub const BUFIOREQ_PFN: u32 = 6;
    pub const VIRIDIAN: u32 = 9;
    pub const TIMER_MODE: u32 = 10;
    pub const HPET_ENABLED: u32 = 11;
    pub const IDENT_PT: u32 = 12;
    pub const ACPI_S_STATE: u32 = 14;
    pub const VM86_TSS: u32 = 15;
    pub const VPT_ALIGN: u32 = 16;
    pub const CONSOLE_PFN: u32 = 17;
    pub const CONSOLE_EVTCHN: u32 = 18;
    pub const ACPI_IOPORTS_LOCATION: u32 = 19;
    pub const PAGING_RING_PFN: u32 = 27;
    pub const MONITOR_RING_PFN: u32 = 28;
    pub const SHARING_RING_PFN: u32 = 29;
    pub const TRIPLE_FAULT_REASON: u32 = 31;
    pub const IOREQ_SERVER_PFN: u32 = 32;
    pub const NR_IOREQ_SERVER_PAGES: u32 = 33;
    pub const VM_GENERATION_ID_ADDR: u32 = 34;
    pub const ALTP2M: u32 = 35;
    pub const X87_FIP_WIDTH: u32 = 36;
    pub const VM86_TSS_SIZED: u32 = 37;
    pub const MCA_CAP: u32 = 38;
    /// `HVM_NR_PARAMS`.
    pub const COUNT: u32 = 39;
    /// What a domain may set for itself.
    pub const GUEST_WRITABLE: [u32; 8] = [
        CALLBACK_IRQ,
        STORE_EVTCHN,
        VM86_TSS,
        CONSOLE_EVTCHN,
        ACPI_IOPORTS_LOCATION,
        VM_GENERATION_ID_ADDR,
        X87_FIP_WIDTH,
        VM86_TSS_SIZED,
    ];
    /// What keeps the first value other than 0 that it is given.
    pub const SET_ONCE: [u32; 7] = [
        IOREQ_PFN,
        BUFIOREQ_PFN,
        VIRIDIAN,
        IOREQ_SERVER_PFN,
        NR_IOREQ_SERVER_PAGES,
        ALTP2M,
        MCA_CAP,
    ];
    /// The highest value of `TIMER_MODE` (`HVMPTM_one_missed_tick_pending`).
    pub const TIMER_MODE_MAX: u64 = 3;
    /// Most I/O request server pages.
    pub const IOREQ_SERVER_PAGES_MAX: u64 = 64;
    /// Bytes of a 32-bit task state segment, and of one with all of its bitmaps: what `VM86_TSS_SIZED` holds above bit 31.
    pub const TSS_SIZE: u64 = 104;
    pub const TSS_SIZE_MAX: u64 = TSS_SIZE + 32 + 8192 + 1;
    /// What `VM86_TSS`, which has no size, means.
    pub const TSS_SIZE_OLD: u64 = 128;
    /// What it may read besides.
    pub const GUEST_READABLE: [u32; 3] = [STORE_PFN, CONSOLE_PFN, ALTP2M];
    /// Numbers that once had a meaning.
    pub const DEPRECATED: [u32; 10] = [4, 13, 20, 21, 22, 23, 24, 25, 26, 30];
}

/// Callback kind in bits 63:56 of `CALLBACK_IRQ`: bits 7:0 are a vector.
pub const CALLBACK_TYPE_VECTOR: u64 = 2;
