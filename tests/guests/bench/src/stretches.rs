//! How long a call with much to do keeps others waiting: a timer comes due at moments spread over the call, and what counts is
//! when its handler runs. A domain of any size takes more such stretches, not longer ones.

use oxen_abi::domctl::cmd;
use oxen_abi::memory;
use oxen_guest_runtime::domain::{self, DEFAULT, domctl};
use oxen_guest_runtime::{cpu, events, hypercall};

use crate::measure::{RUNS, Results};

/// Extents of a domain's memory.
struct Memory {
    /// What populating and destroying it is called.
    names: [&'static str; 2],
    order: u32,
    count: u64,
}

const LARGE: Memory = Memory {
    names: [
        "wait for a timer while populating 16 MiB in large pages",
        "wait for a timer while destroying 16 MiB in large pages",
    ],
    order: 9,
    count: 8,
};
const SMALL: Memory = Memory {
    names: [
        "wait for a timer while populating 4 MiB in small pages",
        "wait for a timer while destroying 4 MiB in small pages",
    ],
    order: 0,
    count: 1024,
};

/// Where their extents are.
static FRAMES: [[u64; 1024]; 2] = [frames(&LARGE), frames(&SMALL)];

const fn frames(memory: &Memory) -> [u64; 1024] {
    let mut list = [0; 1024];
    let mut index = 0;
    while index < memory.count {
        list[index as usize] = index << memory.order;
        index += 1;
    }
    list
}

/// Measures with both.
pub fn run(results: &mut Results) {
    cpu::interrupts(true);
    for (memory, frames) in [LARGE, SMALL].iter().zip(&FRAMES) {
        let (mut populating, mut destroying) = ([0; RUNS], [0; RUNS]);
        let mut long = [0; 2];
        for run in 0..=RUNS {
            // The first one tells how long it takes.
            let due = |long: u64| (long / (RUNS as u64 + 1) * run as u64).max(1);
            let id = make(memory);
            let (length, wait) = interrupted(due(long[0]), || populate(id, memory, frames));
            let (other, other_wait) = interrupted(due(long[1]), || domain::destroy(id));
            match run.checked_sub(1) {
                None => long = [length, other],
                Some(run) => (populating[run], destroying[run]) = (wait, other_wait),
            }
        }
        for (name, waits) in memory.names.into_iter().zip([populating, destroying]) {
            results.add(name, waits);
        }
    }
}

/// Does something with a timer due so many ticks after its begin: how long it takes, and how late the handler is.
fn interrupted(due: u64, act: impl FnOnce()) -> (u64, u64) {
    cpu::clear_ticks(0);
    let deadline = events::set_timer(events::nanos(due));
    let start = cpu::ticks();
    act();
    let length = cpu::ticks() - start;
    loop {
        let ticks = cpu::callback_ticks(0);
        if ticks != 0 {
            return (length, ticks.saturating_sub(deadline));
        }
        core::hint::spin_loop();
    }
}

fn make(memory: &Memory) -> u16 {
    let (result, id) = domain::create(DEFAULT);
    assert!(result == 0, "createdomain: {result}");
    let kib = memory.count << memory.order << 2;
    let (result, ..) = domctl(cmd::MAX_MEM, id, kib.to_le_bytes());
    assert!(result == 0, "max_mem: {result}");
    id
}

fn populate(id: u16, memory: &Memory, frames: &[u64; 1024]) {
    let mut reservation = [
        frames.as_ptr() as u64,
        memory.count,
        memory.order.into(),
        id.into(),
    ];
    let made = hypercall::memory_op(memory::cmd::POPULATE_PHYSMAP, &mut reservation);
    assert!(made == memory.count as i64, "populate_physmap: {made}");
}
