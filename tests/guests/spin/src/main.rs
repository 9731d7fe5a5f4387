//! Computes for ever and waits for nothing: what a scheduler shares out.
#![no_std]
#![no_main]

use oxen_guest_runtime::cpu;

#[unsafe(no_mangle)]
fn guest_main() {
    // Bochs 3.0 takes no interrupt of the machine's in a guest that is entered with interrupts off and never turns them on.
    cpu::interrupts(true);
    loop {
        // No PAUSE: a spin loop that hardware detects gives up the CPU.
        core::hint::black_box(());
    }
}
