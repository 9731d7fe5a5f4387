//! The shared information page (`public/xen.h`, `public/arch-x86/xen.h`): offsets in bytes, as it is reached through
//! atomics only.

/// vCPUs whose `vcpu_info` lies in the page.
pub const LEGACY_VCPUS: usize = 32;
/// Bytes of a `vcpu_info`.
pub const VCPU_INFO_SIZE: usize = 64;
/// `evtchn_pending`.
pub const EVTCHN_PENDING: usize = 2048;
/// `evtchn_mask`.
pub const EVTCHN_MASK: usize = 2560;
/// `evtchn_mask` of 32-bit guests, whose words are half as long and half as many. What they have pending begins where all have it.
pub const EVTCHN_MASK_NARROW: usize = 2176;
/// `wc_version` of 32-bit guests, followed by `wc_sec` and `wc_nsec`.
pub const WALLCLOCK_NARROW: usize = 2304;
/// `arch.wc_sec_hi` of 32-bit guests.
pub const WALLCLOCK_HIGH_NARROW: usize = 2340;
/// `wc_version`, followed by `wc_sec`, `wc_nsec` and `wc_sec_hi`.
pub const WALLCLOCK: usize = 3072;
/// `wc_sec_hi`.
pub const WALLCLOCK_HIGH: usize = 3084;

/// Offsets in a `vcpu_info`.
pub mod vcpu_info {
    /// `evtchn_upcall_pending`.
    pub const UPCALL_PENDING: usize = 0;
    /// `evtchn_pending_sel`.
    pub const PENDING_SEL: usize = 8;
    /// `evtchn_pending_sel` of 32-bit guests.
    pub const PENDING_SEL_NARROW: usize = 4;
    /// `time`.
    pub const TIME: usize = 32;
}

/// Offsets in a `vcpu_time_info`.
#[allow(missing_docs)]
pub mod time {
    /// Bytes of the structure.
    pub const SIZE: usize = 32;
    pub const VERSION: usize = 0;
    pub const TSC_TIMESTAMP: usize = 8;
    pub const SYSTEM_TIME: usize = 16;
    pub const MULTIPLIER: usize = 24;
    pub const SHIFT: usize = 28;
    pub const FLAGS: usize = 29;
    /// The flag that TSCs agree on all CPUs.
    pub const FLAG_STABLE: u8 = 1;
}
