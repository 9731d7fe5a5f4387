//! `hvm_op` and HVM parameters (`public/hvm/hvm_op.h`, `public/hvm/params.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const SET_PARAM: u64 = 0;
    pub const GET_PARAM: u64 = 1;
    pub const SET_EVTCHN_UPCALL_VECTOR: u64 = 23;
}

/// Parameters.
#[allow(missing_docs)]
pub mod param {
    pub const CALLBACK_IRQ: u32 = 0;
    pub const STORE_PFN: u32 = 1;
    pub const STORE_EVTCHN: u32 = 2;
    pub const CONSOLE_PFN: u32 = 17;
    pub const CONSOLE_EVTCHN: u32 = 18;
    pub const COUNT: u32 = 39;
    /// What a domain may set for itself.
    pub const GUEST_WRITABLE: [u32; 8] = [0, 2, 15, 18, 19, 34, 36, 37];
    /// What it may read besides.
    pub const GUEST_READABLE: [u32; 3] = [1, 17, 35];
    /// Numbers that once had a meaning.
    pub const DEPRECATED: [u32; 10] = [4, 13, 20, 21, 22, 23, 24, 25, 26, 30];
}

/// Callback kind in bits 63:56 of `CALLBACK_IRQ`: bits 7:0 are a vector.
pub const CALLBACK_TYPE_VECTOR: u64 = 2;
