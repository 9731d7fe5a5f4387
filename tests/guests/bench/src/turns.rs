//! What it costs to let another domain run: by turns with this one, and woken by events. The other one shares a page of
//! words: while [`ANSWERS`] is 0 it yields again and again and counts its turns, then it sends back for each event.

use core::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::{numbers, sched};
use oxen_guest_runtime::{cpu, events, hypercall, line};

use crate::measure::{RUNS, Results, Samples};

/// Where this domain, whose RAM ends before, sees the words.
pub const WORDS: u64 = 0x3000_1000;
/// Places of words in the page.
pub const ANSWERS: u64 = 0;
/// Turns that the other domain had.
pub const TURNS: u64 = 4;

/// A word of the shared page.
pub fn at(word: u64) -> &'static AtomicU32 {
    let pointer = core::ptr::with_exposed_provenance::<AtomicU32>((WORDS + word) as usize);
    // SAFETY: the page is mapped before anybody measures, and stays; both domains touch its words atomically.
    unsafe { &*pointer }
}

/// Measures both, with the other domain having its turns and events on `port`; the names are those of the figures.
pub fn measure(port: u32, names: [&'static str; 2], results: &mut Results) {
    results.add(names[0], turns());
    at(ANSWERS).store(1, Ordering::SeqCst);
    results.add(names[1], round_trips(port));
}

/// Ticks of yields in which the other domain had one turn: two switches.
fn turns() -> Samples {
    /// Calls that are tried for one sample.
    const PATIENCE: usize = 1000;
    core::array::from_fn(|_| {
        for _ in 0..PATIENCE {
            let before = at(TURNS).load(Ordering::SeqCst);
            let start = cpu::ticks();
            yield_now();
            let ticks = cpu::ticks() - start;
            if at(TURNS).load(Ordering::SeqCst) == before.wrapping_add(1) {
                return ticks;
            }
        }
        line!("bench: error: a yield never gives the other domain one turn");
        0
    })
}

/// Ticks from a send, over the other domain, to the handler of what it sends back. This vCPU halts meanwhile.
fn round_trips(port: u32) -> Samples {
    // The first ones may find it before its wait.
    for _ in 0..RUNS {
        round_trip(port);
    }
    core::array::from_fn(|_| round_trip(port))
}

fn round_trip(port: u32) -> u64 {
    cpu::interrupts(false);
    cpu::clear_ticks(0);
    let start = cpu::ticks();
    events::send(port);
    loop {
        let ticks = cpu::callback_ticks(0);
        if ticks != 0 {
            cpu::interrupts(true);
            return ticks - start;
        }
        // Interrupts come in with the halt, not before: none is missed.
        cpu::halt();
        cpu::interrupts(false);
    }
}

/// Lets others run.
pub fn yield_now() {
    hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0);
}
