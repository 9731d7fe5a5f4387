//! Two vCPUs on one CPU keep different values in all registers that the hypervisor switches, give up the CPU to each other
//! again and again, and look whether the values are still theirs. Each prints `registers: vcpu N: …` at its end.
#![no_std]
#![no_main]

mod extended;
mod others;

use core::sync::atomic::{AtomicU32, Ordering};

use extended::Extended;
use oxen_abi::{numbers, sched};
use oxen_guest_runtime::{cpu, hypercall, line, second, shut_down};

/// How often each vCPU loads fresh values.
const ROUNDS: u64 = 50;
/// How often it gives up the CPU in a round.
const YIELDS: u32 = 20;

/// vCPUs that are done.
static DONE: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
fn guest_main() {
    second::start_by_hypercall(second_main);
    check(0);
    while DONE.load(Ordering::Acquire) < 2 {
        yield_now();
    }
}

fn second_main() -> ! {
    check(1);
    loop {
        yield_now();
    }
}

fn check(vcpu: u64) {
    let components = extended::enable();
    let mut extended = Extended::new(vcpu as usize);
    for round in 0..ROUNDS {
        let seed = round << 8 | vcpu << 4 | 1;
        extended.load(seed);
        others::load(seed);
        for turn in 0..YIELDS {
            yield_now();
            // An exit that switches nothing, and time for a slice to end by itself.
            cpu::cpuid(turn);
            spin();
        }
        if let Some(place) = extended.difference() {
            line!("registers: vcpu {vcpu}: FAILED: byte {place} of the XSAVE area has changed");
            shut_down(sched::reason::CRASH);
        }
        if let Some(name) = others::difference(seed) {
            line!("registers: vcpu {vcpu}: FAILED: {name} has changed");
            shut_down(sched::reason::CRASH);
        }
    }
    line!("registers: vcpu {vcpu}: kept, XCR0 {components:#x}, {ROUNDS} rounds");
    DONE.fetch_add(1, Ordering::Release);
}

fn yield_now() {
    hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0);
}

/// Longer than some slices are.
fn spin() {
    const TICKS: u64 = 20_000;
    let start = cpu::ticks();
    while cpu::ticks() - start < TICKS {
        core::hint::spin_loop();
    }
}
