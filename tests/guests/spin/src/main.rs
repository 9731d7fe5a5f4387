//! Computes for ever and waits for nothing: what a scheduler shares out. With `naps=N` it sleeps N times instead, each time until
//! a timer that comes about when it falls asleep, and ends.
#![no_std]
#![no_main]

mod naps;

use oxen_guest_runtime::{command_line, cpu};

#[unsafe(no_mangle)]
fn guest_main() {
    let naps = command_line::number("naps", 0);
    if naps > 0 {
        naps::take(naps);
        return;
    }
    // Bochs 3.0 takes no interrupt of the machine's in a guest that is entered with interrupts off and never turns them on.
    cpu::interrupts(true);
    loop {
        // No PAUSE: a spin loop that hardware detects gives up the CPU.
        core::hint::black_box(());
    }
}
