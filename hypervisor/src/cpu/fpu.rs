//! x87, SSE and AVX state of guests.
//!
//! The hypervisor itself is built without floating point, so a guest's state stays in the registers through its exits,
//! and is saved only when another vCPU takes the CPU. While a vCPU is loaded, XCR0 holds the guest's own value.

use core::arch::x86_64::{_fxrstor64, _fxsave64, _xgetbv, _xrstor64, _xsave64, _xsetbv};

use alloc::vec::Vec;

use oxen_core::context::Extended;
use oxen_core::context::cpu::LEGACY_STATE;
use oxen_core::context::fpu::is_xcr0;

use crate::memory::HostPages;
use crate::vcpu::cpuid;

/// x87 control word and MXCSR at reset (SDM vol. 1, 13.6).
const FCW_RESET: u16 = 0x37F;
const MXCSR_RESET: u32 = 0x1F80;

/// One vCPU's saved state.
pub struct State {
    area: HostPages,
    /// The guest's XCR0.
    xcr0: u64,
}

impl State {
    /// State as after reset; `None` without memory.
    pub fn new() -> Option<Self> {
        let area = HostPages::new_zeroed(area_size().div_ceil(4096))?;
        let mut state = Self { area, xcr0: 1 };
        state.reset();
        Some(state)
    }

    fn reset(&mut self) {
        let bytes = self.area.bytes_mut();
        bytes.fill(0);
        bytes[0..2].copy_from_slice(&FCW_RESET.to_le_bytes());
        bytes[24..28].copy_from_slice(&MXCSR_RESET.to_le_bytes());
        // XSTATE_BV: x87 and SSE are in the area.
        bytes[LEGACY_STATE] = 0b11;
        self.xcr0 = 1;
    }

    /// What of a loaded vCPU's state FXSAVE would save.
    pub fn legacy(&mut self) -> [u8; LEGACY_STATE] {
        self.refresh();
        let mut state = [0; LEGACY_STATE];
        state.copy_from_slice(&self.area.bytes_mut()[..LEGACY_STATE]);
        state
    }

    /// A loaded vCPU's whole state as a record; empty on a CPU without XSAVE.
    pub fn record(&mut self) -> Vec<u8> {
        let allowed = cpuid::xcr0_allowed();
        if allowed == 0 {
            return Vec::new();
        }
        self.refresh();
        let xcr0 = self.xcr0;
        Extended::to_record(xcr0, allowed, &self.area.bytes_mut()[..area_size()])
    }

    /// Replaces a loaded vCPU's x87 and SSE state, which was checked, and resets all other; without one resets all.
    pub fn replace_legacy(&mut self, state: Option<&[u8; LEGACY_STATE]>) {
        self.reset();
        if let Some(state) = state {
            self.area.bytes_mut()[..LEGACY_STATE].copy_from_slice(state);
        }
        self.load();
    }

    /// Replaces a loaded vCPU's whole state, which was checked.
    pub fn replace(&mut self, xcr0: u64, area: &[u8]) {
        let size = area_size().min(area.len());
        self.area.bytes_mut()[..size].copy_from_slice(&area[..size]);
        self.xcr0 = xcr0;
        self.load();
    }

    /// Brings the area up to date with the registers of a loaded vCPU.
    fn refresh(&mut self) {
        self.save();
        self.load();
    }

    /// Puts the state into the registers.
    pub fn load(&self) {
        let allowed = cpuid::xcr0_allowed();
        let area = self.area.pointer().as_ptr();
        // SAFETY: the area is page-aligned and large enough for all components in `allowed`, its header was zeroed or
        // written by XSAVE; XCR0 is set to bits that the CPU supports.
        unsafe {
            if allowed == 0 {
                restore_legacy(area);
            } else {
                set_xcr0(allowed);
                restore(area, allowed);
                set_xcr0(self.xcr0);
            }
        }
    }

    /// Takes the state out of the registers.
    pub fn save(&mut self) {
        let allowed = cpuid::xcr0_allowed();
        let area = self.area.pointer().as_ptr();
        // SAFETY: as for `load`.
        unsafe {
            if allowed == 0 {
                save_legacy(area);
            } else {
                // QEMU's own emulation (7.2) lets an intercepted XSETBV through: what is in the register counts.
                self.xcr0 = read_xcr0();
                set_xcr0(allowed);
                save(area, allowed);
            }
        }
    }

    /// The loaded guest sets XCR0; refuses what the architecture refuses (SDM vol. 1, 13.3).
    pub fn write_xcr0(&mut self, value: u64) -> bool {
        if !is_xcr0(value, cpuid::xcr0_allowed()) {
            return false;
        }
        self.xcr0 = value;
        // SAFETY: checked just above against what the CPU supports.
        unsafe { set_xcr0(value) };
        true
    }
}

/// Bytes of an area for all components that guests may have.
pub fn area_size() -> usize {
    cpuid::save_area_size(cpuid::xcr0_allowed()) as usize
}

/// Bits of MXCSR that the CPU has (SDM vol. 1, 11.6.6).
pub fn mxcsr_mask() -> u32 {
    const MASK: usize = 28;
    const FIRST_CPUS: u32 = 0xFFBF;
    #[repr(align(16))]
    struct Area([u8; LEGACY_STATE]);
    let mut area = Area([0; LEGACY_STATE]);
    // SAFETY: aligned and large enough; saving changes no register.
    unsafe { save_legacy(area.0.as_mut_ptr()) };
    let [a, b, c, d] = [0, 1, 2, 3].map(|byte| area.0[MASK + byte]);
    match u32::from_le_bytes([a, b, c, d]) {
        0 => FIRST_CPUS,
        mask => mask,
    }
}

#[target_feature(enable = "xsave")]
fn read_xcr0() -> u64 {
    // SAFETY: XCR0 exists where XSAVE does.
    unsafe { _xgetbv(0) }
}

/// # Safety
/// `value` holds only supported components, in a combination that the architecture allows.
#[target_feature(enable = "xsave")]
unsafe fn set_xcr0(value: u64) {
    // SAFETY: by the caller's promise.
    unsafe {
        if _xgetbv(0) != value {
            _xsetbv(0, value);
        }
    }
}

/// # Safety
/// `area` is 64-byte aligned and large enough for `mask`.
#[target_feature(enable = "xsave")]
unsafe fn save(area: *mut u8, mask: u64) {
    // SAFETY: by the caller's promise.
    unsafe { _xsave64(area, mask) };
}

/// # Safety
/// As for `save`, and the area holds a valid image.
#[target_feature(enable = "xsave")]
unsafe fn restore(area: *const u8, mask: u64) {
    // SAFETY: by the caller's promise.
    unsafe { _xrstor64(area, mask) };
}

/// # Safety
/// `area` is 16-byte aligned and holds 512 bytes.
#[target_feature(enable = "fxsr")]
unsafe fn save_legacy(area: *mut u8) {
    // SAFETY: by the caller's promise.
    unsafe { _fxsave64(area) };
}

/// # Safety
/// As for `save_legacy`, and the area holds a valid image.
#[target_feature(enable = "fxsr")]
unsafe fn restore_legacy(area: *const u8) {
    // SAFETY: by the caller's promise.
    unsafe { _fxrstor64(area) };
}
