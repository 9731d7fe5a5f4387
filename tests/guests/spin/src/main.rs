//! Computes for ever on all of its vCPUs and waits for nothing: what a scheduler shares out.
//!
//! The command line may have `vcpus=` (1 unless it says) and `accounts=`: each so many milliseconds the first vCPU prints
//! what all of them have spent in which run state. With `obey=1` a letter that is typed on the console ends it, see
//! [`ends`]. With `naps=N` it sleeps N times instead, each time until a timer that comes about when it falls asleep, and ends.
#![no_std]
#![no_main]

mod accounts;
mod ends;
mod naps;

use oxen_guest_runtime::{command_line, cpu, events, line, others, ring};

#[unsafe(no_mangle)]
fn guest_main() {
    let naps = command_line::number("naps", 0);
    if naps > 0 {
        naps::take(naps);
        return;
    }
    let vcpus = (command_line::number("vcpus", 1) as usize).clamp(1, others::MOST);
    let period = command_line::number("accounts", 0) * 1_000_000;
    let obeys = command_line::number("obey", 0) != 0;
    accounts::register(vcpus);
    others::start(vcpus, |_| {
        cpu::load_interrupt_table();
        compute()
    });
    // Bochs 3.0 takes no interrupt of the machine's in a guest that is entered with interrupts off and never turns them on.
    cpu::interrupts(true);
    if period == 0 && !obeys {
        compute();
    }
    line!("spin: ready, faults at {:#018x}", ends::fault_address());
    let mut next = events::system_time();
    loop {
        if period != 0 && events::system_time() >= next {
            accounts::print(vcpus);
            next = events::system_time() + period;
        }
        if let Some(letter) = ring::read().filter(|_| obeys) {
            ends::obey(letter);
        }
    }
}

fn compute() -> ! {
    cpu::interrupts(true);
    loop {
        // No PAUSE: a spin loop that hardware detects gives up the CPU.
        core::hint::black_box(());
    }
}
