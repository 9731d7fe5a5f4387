//! Computes for ever and waits for nothing: what a scheduler shares out.
#![no_std]
#![no_main]

// Its entry is what runs first.
use oxen_guest_runtime as _;

#[unsafe(no_mangle)]
fn guest_main() {
    loop {
        // No PAUSE: a spin loop that hardware detects gives up the CPU.
        core::hint::black_box(());
    }
}
