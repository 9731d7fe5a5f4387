//! What `XEN_DOMCTL_getvcpucontext` tells (`vcpu_guest_context`, `public/arch-x86/xen.h`): made for PV guests, of which an HVM
//! one fills a part.

use alloc::boxed::Box;

use oxen_abi::domctl::guest_context as layout;

use super::cpu::{Cpu, LEGACY_STATE};
use super::put;
use crate::registers::segment;

impl Cpu {
    /// The structure, for a vCPU that is up or down.
    pub fn to_guest_context(&self, is_up: bool) -> Box<[u8; layout::SIZE]> {
        /// By x86 encoding.
        const GENERAL: [usize; 15] = [15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7];
        const RSP: usize = 4;
        const SELECTORS: [usize; 5] = [
            segment::SS,
            segment::ES,
            segment::DS,
            segment::FS,
            segment::GS,
        ];
        let mut bytes = Box::new([0; layout::SIZE]);
        let registers = &self.registers;
        let mut flags = 0;
        if let Some(state) = &self.legacy {
            bytes[layout::FPU..layout::FPU + LEGACY_STATE].copy_from_slice(state);
            flags |= layout::FLAG_FPU;
        }
        if is_up {
            flags |= layout::FLAG_ONLINE;
        }
        let mut put = |at: usize, value: u64| put(&mut *bytes, at, value);
        put(layout::FLAGS, flags);
        for (index, register) in GENERAL.into_iter().enumerate() {
            put(layout::GENERAL + 8 * index, registers.general[register]);
        }
        for (index, name) in SELECTORS.into_iter().enumerate() {
            let selector = registers.segments[name].selector;
            put(layout::SELECTORS + 8 * index, selector.into());
        }
        let code = &registers.segments[segment::CS];
        let gs = registers.segments[segment::GS].base;
        let other = registers.msrs.kernel_gs_base;
        // SWAPGS has been executed, or will be.
        let (kernel, user) = if code.selector & 3 == 0 {
            (gs, other)
        } else {
            (other, gs)
        };
        for (at, value) in [
            (layout::RIP, registers.rip),
            (layout::CS, code.selector.into()),
            (layout::RFLAGS, registers.rflags),
            (layout::RSP, registers.general[RSP]),
            (layout::CONTROL, registers.cr0),
            (layout::CONTROL + 16, registers.cr2),
            (layout::CONTROL + 24, registers.cr3),
            (layout::CONTROL + 32, registers.cr4),
            (layout::DEBUG + 48, registers.dr6),
            (layout::DEBUG + 56, registers.dr7),
            (layout::FS_BASE, registers.segments[segment::FS].base),
            (layout::GS_BASE_KERNEL, kernel),
            (layout::GS_BASE_USER, user),
        ] {
            put(at, value);
        }
        for (index, value) in registers.debug.into_iter().enumerate() {
            put(layout::DEBUG + 8 * index, value);
        }
        bytes
    }
}
