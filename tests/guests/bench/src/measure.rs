//! Taking samples and reporting them.

use oxen_guest_runtime::{cpu, line};

/// Runs of each measurement.
pub const RUNS: usize = 101;

/// Samples of one measurement, in ticks.
pub type Samples = [u64; RUNS];

/// Prints median and maximum.
pub fn report(name: &str, mut samples: Samples) {
    samples.sort_unstable();
    line!("bench: {name}: {} {}", samples[RUNS / 2], samples[RUNS - 1]);
}

/// Ticks that an operation takes.
pub fn measure(mut operation: impl FnMut()) -> Samples {
    core::array::from_fn(|_| {
        let start = cpu::ticks();
        operation();
        cpu::ticks() - start
    })
}

/// Ticks from before the operation until the time that `arrival` reports for `vcpu`.
pub fn measure_arrival(
    vcpu: usize,
    operation: impl Fn(),
    arrival: impl Fn(usize) -> u64,
) -> Samples {
    core::array::from_fn(|_| {
        settle();
        cpu::clear_ticks(vcpu);
        let start = cpu::ticks();
        operation();
        loop {
            let ticks = arrival(vcpu);
            if ticks != 0 {
                return ticks - start;
            }
            core::hint::spin_loop();
        }
    })
}

/// Long enough for another vCPU to be halted again.
fn settle() {
    const TICKS: u64 = 20_000;
    let start = cpu::ticks();
    while cpu::ticks() - start < TICKS {
        core::hint::spin_loop();
    }
}
