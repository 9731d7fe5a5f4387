//! x87, SSE and AVX state of guests.
//!
//! The hypervisor itself is built without floating point, so a guest's state stays in the registers through its exits,
//! and is saved only when another vCPU takes the CPU. While a vCPU is loaded, XCR0 holds the guest's own value.

use core::arch::x86_64::{_fxrstor64, _fxsave64, _xgetbv, _xrstor64, _xsave64, _xsetbv};

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
        let size = cpuid::save_area_size(cpuid::xcr0_allowed()) as usize;
        let mut area = HostPages::new_zeroed(size.div_ceil(4096))?;
        let bytes = area.bytes_mut();
        bytes[0..2].copy_from_slice(&FCW_RESET.to_le_bytes());
        bytes[24..28].copy_from_slice(&MXCSR_RESET.to_le_bytes());
        // XSTATE_BV: x87 and SSE are in the area.
        bytes[512] = 0b11;
        Some(Self { area, xcr0: 1 })
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
        const X87: u64 = 1 << 0;
        const SSE: u64 = 1 << 1;
        const AVX: u64 = 1 << 2;
        const AVX512: u64 = 0b111 << 5;
        let avx_without_sse = value & AVX != 0 && value & SSE == 0;
        let part_of_avx512 = value & AVX512 != 0 && value & (AVX512 | AVX) != AVX512 | AVX;
        if value & !cpuid::xcr0_allowed() != 0
            || value & X87 == 0
            || avx_without_sse
            || part_of_avx512
        {
            return false;
        }
        self.xcr0 = value;
        // SAFETY: checked just above against what the CPU supports.
        unsafe { set_xcr0(value) };
        true
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
