//! `vcpu_op` (`public/vcpu.h`).

/// Sub-operations.
#[allow(missing_docs)]
pub mod cmd {
    pub const INITIALISE: u64 = 0;
    pub const UP: u64 = 1;
    pub const DOWN: u64 = 2;
    pub const IS_UP: u64 = 3;
    pub const GET_RUNSTATE_INFO: u64 = 4;
    pub const REGISTER_RUNSTATE_AREA: u64 = 5;
    pub const SET_PERIODIC_TIMER: u64 = 6;
    pub const STOP_PERIODIC_TIMER: u64 = 7;
    pub const SET_SINGLESHOT_TIMER: u64 = 8;
    pub const STOP_SINGLESHOT_TIMER: u64 = 9;
    pub const REGISTER_VCPU_INFO: u64 = 10;
    pub const SEND_NMI: u64 = 11;
    pub const GET_PHYSID: u64 = 12;
    pub const REGISTER_VCPU_TIME_AREA: u64 = 13;
}

/// Bytes of a `vcpu_runstate_info`: state i32, padding, entry time u64, four times u64.
pub const RUNSTATE_SIZE: usize = 48;
/// The same of 32-bit guests, without the padding.
pub const RUNSTATE_SIZE_NARROW: usize = 44;
/// `vcpu_set_singleshot_timer`: time u64, flags u32.
pub const SINGLE_SHOT_SIZE: usize = 16;
/// The same in 32-bit mode.
pub const SINGLE_SHOT_NARROW: &crate::Narrow = &[(0, 0, 8), (8, 8, 4)];
/// Set in the entry time while an update is in progress, if the guest asked for it.
pub const RUNSTATE_UPDATE: u64 = 1 << 63;

/// Bytes of a `vcpu_register_runstate_memory_area` or `vcpu_register_time_memory_area`: an address.
pub const AREA_SIZE: usize = 8;

/// `vcpu_hvm_context` (`public/hvm/hvm_vcpu.h`): offsets in it.
#[allow(missing_docs)]
pub mod context {
    pub const SIZE: usize = 128;
    pub const MODE: usize = 0;
    pub const MODE_32: u32 = 0;
    pub const MODE_64: u32 = 1;
    /// Registers begin here; the offsets below count from it. General-purpose registers come first, in x86 order.
    pub const REGISTERS: usize = 8;
    pub const IP_32: usize = 32;
    pub const FLAGS_32: usize = 36;
    pub const CR0_32: usize = 40;
    pub const CR3_32: usize = 44;
    pub const CR4_32: usize = 48;
    pub const EFER_32: usize = 56;
    /// Five each, for CS, DS, SS, ES and TR.
    pub const BASES_32: usize = 64;
    pub const LIMITS_32: usize = 84;
    pub const RIGHTS_32: usize = 104;
    pub const IP_64: usize = 64;
    pub const FLAGS_64: usize = 72;
    pub const CR0_64: usize = 80;
    pub const CR3_64: usize = 88;
    pub const CR4_64: usize = 96;
    pub const EFER_64: usize = 104;
}
