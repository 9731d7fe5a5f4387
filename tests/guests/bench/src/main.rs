//! A PVH guest that takes dom0's place, measures what operations cost in TSC ticks and prints a line for each:
//! `bench: NAME: MEDIAN MAXIMUM`. On Bochs a tick is an instruction, so the figures are path lengths. What an empty pair
//! of readings costs is a row of its own, and is not taken off the others.
#![no_std]
#![no_main]

mod interrupts;
mod measure;
mod neighbour;
mod operations;

use measure::{measure, report};
use oxen_guest_runtime::{apic, cpu, second};

#[unsafe(no_mangle)]
fn guest_main() {
    report("empty", measure(|| {}));
    operations::run();
    apic::enable();
    operations::apic_page();
    interrupts::own();
    if second::exists() {
        interrupts::between_vcpus();
    }
    apic::use_msrs();
    operations::apic_msrs();
    interrupts::own_by_msr();
    // By turns with another domain: all of it on one CPU.
    if !second::exists() {
        neighbour::run();
    }
    cpu::interrupts(false);
}
