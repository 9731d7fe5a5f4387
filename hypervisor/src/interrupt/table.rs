//! The interrupt descriptor table and the way from a vector to its handler.

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use spin::Once;
use x86_64::structures::DescriptorTablePointer;
use x86_64::{PrivilegeLevel, VirtAddr};

use super::{exception, vectors};
use crate::cpu::{self, descriptors};

global_asm!(include_str!("entry.S"));

/// Distance between stubs in `entry.S`.
const STUB_SIZE: u64 = 16;

/// Registers at an interrupt, as `entry.S` pushes them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// A 64-bit gate descriptor (SDM vol. 3, 6.14.1).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate(u64, u64);

impl Gate {
    const fn interrupt(handler: u64, selector: u16, ist: u16) -> Self {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8E00;
        let low = (handler & 0xFFFF)
            | (selector as u64) << 16
            | (ist as u64) << 32
            | PRESENT_INTERRUPT_GATE << 32
            | (handler >> 16 & 0xFFFF) << 48;
        Self(low, handler >> 32)
    }
}

static TABLE: Once<[Gate; 256]> = Once::new();

unsafe extern "C" {
    static interrupt_stubs: u8;
}

/// Loads the table on the calling CPU, whose GDT is loaded.
pub fn load() {
    let table = TABLE.call_once(build);
    let pointer = DescriptorTablePointer {
        base: VirtAddr::from_ptr(table),
        limit: (size_of_val(table) - 1) as u16,
    };
    // SAFETY: the table is 'static and every gate leads to a stub.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}

/// Linear address of the table.
pub fn base() -> u64 {
    TABLE.get().map_or(0, |table| table.as_ptr() as u64)
}

fn build() -> [Gate; 256] {
    use x86_64::instructions::segmentation::{CS, Segment};
    let selector = CS::get_reg();
    debug_assert_eq!(selector.rpl(), PrivilegeLevel::Ring0);
    let stubs = (&raw const interrupt_stubs) as u64;
    core::array::from_fn(|vector| {
        let ist = match vector as u64 {
            exception::NMI => descriptors::IST_NMI + 1,
            exception::DOUBLE_FAULT => descriptors::IST_DOUBLE_FAULT + 1,
            exception::MACHINE_CHECK => descriptors::IST_MACHINE_CHECK + 1,
            _ => 0,
        };
        Gate::interrupt(stubs + vector as u64 * STUB_SIZE, selector.0, ist)
    })
}

/// Called by every stub.
#[unsafe(no_mangle)]
extern "C" fn interrupt_dispatch(frame: &mut Frame) {
    if frame.vector < 32 {
        exception::handle(frame);
        return;
    }
    cpu::current().interrupts.fetch_add(1, Ordering::Relaxed);
    vectors::dispatch(frame.vector as u8);
}
