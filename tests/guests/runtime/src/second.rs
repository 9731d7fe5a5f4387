//! The second vCPU: started by INIT and a start-up interrupt, it runs one function.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::apic::{self, register};
use crate::{cpu, events};

static FUNCTION: AtomicUsize = AtomicUsize::new(0);
static UP: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// Whether the domain has a second vCPU.
pub fn exists() -> bool {
    crate::hypercall::vcpu_op(oxen_abi::vcpu::cmd::IS_UP, 1, &()) >= 0
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
