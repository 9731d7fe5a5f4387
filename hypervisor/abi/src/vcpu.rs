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
/// Set in the entry time while an update is in progress, if the guest asked for it.
pub const RUNSTATE_UPDATE: u64 = 1 << 63;
