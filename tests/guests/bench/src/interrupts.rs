//! How long events and interrupts take to their handlers, on the same vCPU and on another.

use core::sync::atomic::{AtomicBool, Ordering};

use oxen_guest_runtime::apic::{self, register};
use oxen_guest_runtime::{cpu, events, second};

use crate::measure::{Results, Samples, measure, measure_arrival};

/// Whether the second vCPU halts between events, or spins.
static HALT: AtomicBool = AtomicBool::new(false);

/// To the calling vCPU itself.
pub fn own(results: &mut Results) {
    cpu::interrupts(true);
    let port = events::bind_ipi(0);
    results.add(
        "event send to the own handler",
        measure_arrival(0, || drop_result(events::send(port)), cpu::callback_ticks),
    );
    results.add(
        "APIC page, self-IPI to the handler",
        measure_arrival(
            0,
            || apic::write(register::COMMAND, apic::self_interrupt()),
            cpu::apic_ticks,
        ),
    );
    results.add(
        "APIC page, self-IPI and back after EOI",
        measure(|| apic::write(register::COMMAND, apic::self_interrupt())),
    );
    results.add("timer expiry, vCPU halted", timer());
}

/// The same by MSR.
pub fn own_by_msr(results: &mut Results) {
    let send = || {
        cpu::write_msr(apic::msr(register::COMMAND), apic::self_interrupt().into());
    };
    results.add(
        "x2APIC, self-IPI to the handler",
        measure_arrival(0, send, cpu::apic_ticks),
    );
    results.add("x2APIC, self-IPI and back after EOI", measure(send));
}

/// From the deadline to the callback's first reading.
fn timer() -> Samples {
    /// Far enough for the vCPU to be halted by then, in nanoseconds.
    const AHEAD: u64 = 1_000_000;
    events::bind_timer();
    core::array::from_fn(|_| {
        cpu::clear_ticks(0);
        let deadline = events::set_timer(AHEAD);
        loop {
            let ticks = cpu::callback_ticks(0);
            if ticks != 0 {
                return ticks.saturating_sub(deadline);
            }
            cpu::halt();
        }
    })
}

/// From the first vCPU to the second.
pub fn between_vcpus(results: &mut Results) {
    second::start(wait_for_interrupts);
    let port = events::bind_ipi(1);
    for (halt, name) in [
        (false, "event IPI to a running vCPU"),
        (true, "event IPI to a halted vCPU"),
    ] {
        HALT.store(halt, Ordering::Release);
        results.add(
            name,
            measure_arrival(1, || drop_result(events::send(port)), cpu::callback_ticks),
        );
    }
}

fn wait_for_interrupts() -> ! {
    cpu::interrupts(true);
    loop {
        if HALT.load(Ordering::Acquire) {
            cpu::halt();
        }
    }
}

fn drop_result(_: i64) {}
