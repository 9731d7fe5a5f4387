//! A PVH guest that measures what operations cost in TSC ticks and prints a line for each: `bench: NAME: MEDIAN MAXIMUM`. On
//! Bochs a tick is an instruction, so the figures are path lengths. What an empty pair of readings costs is a row of its own,
//! and is not taken off the others.
//!
//! It takes dom0's place, or is a guest: of Oxen or of Xen, whose figures are measured so. `role=` on its command line says
//! what it does then: `guest` measures all that needs no other domain, `answer` and `ask` are two for each other, which
//! `partner=` names.
#![no_std]
#![no_main]

mod copies;
mod interrupts;
mod measure;
mod neighbour;
mod operations;
mod partner;
mod stretches;
mod turns;

use measure::{Results, measure};
use oxen_guest_runtime::{apic, command_line, cpu, events, second};

/// Nanoseconds that a guest lets dom0's tools have to end what they did to start it.
const SETTLE: u64 = 1_000_000_000;

#[unsafe(no_mangle)]
fn guest_main() {
    let mut results = Results::default();
    let partner = command_line::number("partner", 0) as u16;
    match command_line::value("role") {
        None => {
            alone(&mut results);
            // By turns with another domain: all of it on one CPU.
            if !second::exists() {
                stretches::run(&mut results);
                neighbour::run(&mut results);
            }
        }
        Some("answer") => partner::answer(partner),
        Some("ask") => {
            cpu::interrupts(true);
            events::nap(SETTLE);
            partner::ask(partner, &mut results);
        }
        Some(_) => {
            events::nap(SETTLE);
            operations::unbacked_page(&mut results);
            alone(&mut results);
        }
    }
    cpu::interrupts(false);
    results.print();
}

/// All that needs no other domain. The local APIC is used through its page first, then through MSRs.
fn alone(results: &mut Results) {
    results.add("empty", measure(|| {}));
    operations::run(results);
    copies::run(results);
    apic::enable();
    operations::apic_page(results);
    interrupts::own(results);
    if second::exists() {
        interrupts::between_vcpus(results);
    }
    apic::use_msrs();
    operations::apic_msrs(results);
    interrupts::own_by_msr(results);
}
