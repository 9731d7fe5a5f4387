//! Taking samples, and keeping what they come to until all are taken.

use arrayvec::ArrayVec;
use oxen_guest_runtime::{cpu, line};

/// Runs of each measurement.
pub const RUNS: usize = 101;

/// Samples of one measurement, in ticks.
pub type Samples = [u64; RUNS];

/// Figures that are printed at the end: whoever writes a line down works meanwhile, perhaps on this CPU.
#[derive(Default)]
pub struct Results(ArrayVec<(&'static str, u64, u64), 64>);

impl Results {
    /// Keeps a measurement's samples.
    pub fn add(&mut self, name: &'static str, mut samples: Samples) {
        samples.sort_unstable();
        self.0.push((name, samples[RUNS / 2], samples[RUNS - 1]));
    }

    /// Prints name, median and maximum of each, and a last line.
    pub fn print(&self) {
        for (name, median, maximum) in &self.0 {
            line!("bench: {name}: {median} {maximum}");
        }
        line!("measured");
    }
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
