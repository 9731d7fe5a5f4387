//! What the small PVH guests share. They run as dom0's kernel or as a guest's, identity-mapped, with no other software.
#![no_std]

use core::arch::global_asm;
use core::panic::PanicInfo;

pub mod apic;
pub mod bytes;
pub mod command_line;
pub mod console;
pub mod cpu;
pub mod domain;
pub mod events;
pub mod grants;
pub mod hypercall;
pub mod others;
pub mod ring;
pub mod second;
pub mod xenstore;

use oxen_abi::sched;

global_asm!(include_str!("entry.S"));

unsafe extern "Rust" {
    /// The guest's own part; when it returns, the machine is powered off.
    safe fn guest_main();
}

#[unsafe(no_mangle)]
extern "C" fn runtime_main() {
    cpu::load_interrupt_table();
    events::init(0);
    guest_main();
    shut_down(sched::reason::POWEROFF);
}

/// Ends the domain.
pub fn shut_down(reason: u32) -> ! {
    hypercall::sched_op(sched::cmd::SHUTDOWN, &reason);
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    line!("guest panic: {info}");
    shut_down(sched::reason::CRASH)
}
