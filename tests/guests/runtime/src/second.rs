//! The second vCPU: started by INIT and a start-up interrupt, it runs one function.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use oxen_abi::vcpu::{cmd, context};
use oxen_abi::{Errno, numbers, sched};

use crate::apic::{self, register};
use crate::{cpu, events, hypercall};

static FUNCTION: AtomicUsize = AtomicUsize::new(0);
static UP: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static page_root: u8;
    static second_stack_top: u8;
    fn second_by_hypercall();
}

/// Whether the domain has a second vCPU.
pub fn exists() -> bool {
    hypercall::vcpu_op(cmd::IS_UP, 1, &()) >= 0
}

/// Starts the second vCPU in `function`, which must not return; returns when it has its interrupts set up. The local APIC
/// must be on, and used through its page.
pub fn start(function: fn() -> !) {
    const PLACE: usize = 0x8000;
    const INIT: u32 = 5 << 8;
    const STARTUP: u32 = 6 << 8;
    FUNCTION.store(function as usize, Ordering::Release);
    let (from, to) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: the code's own bounds; conventional memory is the guest's, and nothing else uses it.
    unsafe {
        let length = to.offset_from_unsigned(from);
        core::ptr::with_exposed_provenance_mut::<u8>(PLACE).copy_from_nonoverlapping(from, length);
    }
    for command in [INIT, STARTUP | (PLACE >> 12) as u32] {
        apic::write(register::COMMAND, command | apic::ASSERT | apic::TO_OTHERS);
    }
    while !UP.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

/// Starts the second vCPU in `function` by `VCPUOP_initialise` and `VCPUOP_up`; returns when it has its interrupts set up.
pub fn start_by_hypercall(function: fn() -> !) {
    const PAGING: u64 = 1 << 31 | 1 << 5 | 1 << 4 | 1;
    const PAE_AND_SSE: u64 = 0x620;
    const LONG_MODE: u64 = 1 << 8 | 1 << 10;
    FUNCTION.store(function as usize, Ordering::Release);
    let mut bytes = [0; context::SIZE];
    bytes[context::MODE..][..4].copy_from_slice(&context::MODE_64.to_le_bytes());
    let stack = 8 * 4;
    for (field, value) in [
        (stack, &raw const second_stack_top as u64),
        (context::IP_64, second_by_hypercall as *const () as u64),
        (context::CR0_64, PAGING),
        (context::CR3_64, &raw const page_root as u64),
        (context::CR4_64, PAE_AND_SSE),
        (context::EFER_64, LONG_MODE),
    ] {
        bytes[context::REGISTERS + field..][..8].copy_from_slice(&value.to_le_bytes());
    }
    let early = hypercall::vcpu_op(cmd::UP, 1, &());
    let made = hypercall::vcpu_op(cmd::INITIALISE, 1, &bytes);
    let again = hypercall::vcpu_op(cmd::INITIALISE, 1, &bytes);
    let up = hypercall::vcpu_op(cmd::UP, 1, &());
    assert!(
        (early, made, again, up)
            == (
                Errno::Inval.encode() as i64,
                0,
                Errno::Exist.encode() as i64,
                0
            ),
        "vcpu_op: up {early}, initialise {made}, again {again}, up {up}"
    );
    while !UP.load(Ordering::Acquire) {
        hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0);
    }
}

#[unsafe(no_mangle)]
extern "C" fn runtime_second() -> ! {
    cpu::load_interrupt_table();
    events::init(1);
    apic::enable();
    let address = FUNCTION.load(Ordering::Acquire);
    // SAFETY: `start` stored a function of this type before the start-up interrupt.
    let function = unsafe { core::mem::transmute::<usize, fn() -> !>(address) };
    UP.store(true, Ordering::Release);
    function()
}
