//! Address-space identifiers tag a CPU's cached translations with the vCPU that they are of (APM vol. 2, 15.16).
//!
//! Each CPU gives out its own, one after the other, and begins again when they are used up: what was given out before is
//! void then. So the few that there are serve any number of vCPUs, and a vCPU that comes from another CPU never meets
//! translations that it left here long ago, as it gets another identifier, which is flushed before its first use.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use oxen_core::id::CpuId;

use crate::cpu::MAX_CPUS;

/// What a CPU gives out. Only that CPU uses it: the atomics order nothing.
struct Supply {
    generation: AtomicU64,
    /// The last one given out; 0 is the hypervisor's own.
    last: AtomicU32,
}

static SUPPLIES: [Supply; MAX_CPUS] = [const {
    Supply {
        generation: AtomicU64::new(0),
        last: AtomicU32::new(0),
    }
}; MAX_CPUS];

/// An identifier on one CPU.
#[derive(Clone, Copy, Debug)]
pub struct Asid {
    cpu: CpuId,
    generation: u64,
    number: u32,
}

impl Asid {
    /// One for a vCPU that `cpu`, the calling one, loads, of the numbers below `count`; and whether it is another
    /// than `before`, so that it must be flushed before it is used.
    pub fn on(cpu: CpuId, before: Option<Self>, count: u32) -> (Self, bool) {
        let supply = &SUPPLIES[cpu.index()];
        let mut generation = supply.generation.load(Ordering::Relaxed);
        if let Some(before) = before.filter(|old| old.cpu == cpu && old.generation == generation) {
            return (before, false);
        }
        let mut number = supply.last.load(Ordering::Relaxed) + 1;
        if number >= count {
            number = 1;
            generation += 1;
            supply.generation.store(generation, Ordering::Relaxed);
        }
        supply.last.store(number, Ordering::Relaxed);
        let other = Self {
            cpu,
            generation,
            number,
        };
        (other, true)
    }

    /// Its number.
    pub const fn number(&self) -> u32 {
        self.number
    }
}
