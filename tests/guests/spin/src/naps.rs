//! Sleeps that end with a timer, and no time between the timer's setting and the sleep to speak of: an interrupt that comes too
//! early by one instruction is taken before the `hlt` of `sti; hlt`, and nothing is left to wake the vCPU.

use oxen_abi::vcpu::{RUNSTATE_SIZE, cmd};
use oxen_guest_runtime::{cpu, events, hypercall, line};

/// Timers are set so many nanoseconds ahead at most, or more where it takes longer to fall asleep: see [`longest`].
const LEAST_LONGEST: u64 = 60_000;
/// A prime number, so that all lengths come up.
const STEP: u64 = 7_919;

/// Sleeps so many times. Then the run states must add up: all of the time that went by is in them. How long that was is told by the least
/// and the most that it can have been: the host may keep the vCPU away between a look at the clock and one at the run states.
pub fn take(naps: u64) {
    events::bind_timer();
    let longest = longest();
    let (first, began) = accounts();
    let mut ahead = 1;
    for _ in 0..naps {
        ahead = (ahead + STEP) % longest;
        nap(ahead);
    }
    let (last, ended) = accounts();
    let least = events::nanos(ended[0] - began[1]);
    let most = events::nanos(ended[1] - began[0]);
    let spent: u64 = (0..STATES).map(|state| last[state] - first[state]).sum();
    line!(
        "naps: {naps} taken, {least} to {most} ns passed, {spent} ns in run states, {} ns blocked",
        last[BLOCKED] - first[BLOCKED]
    );
}

/// How far timers are to be set ahead so that some come when the guest sleeps and some before it does: on a busy host an emulator may take
/// a millisecond from the one to the other.
fn longest() -> u64 {
    const TRIES: u64 = 64;
    let began = cpu::ticks();
    (0..TRIES).for_each(|_| nap(1));
    let one = events::nanos(cpu::ticks() - began) / TRIES;
    LEAST_LONGEST.max(2 * one)
}

fn nap(ahead: u64) {
    cpu::interrupts(false);
    events::forget();
    cpu::clear_ticks(0);
    events::set_timer(ahead);
    while cpu::callback_ticks(0) == 0 {
        cpu::halt();
        cpu::interrupts(false);
    }
}

const STATES: usize = 4;
const BLOCKED: usize = 2;

/// Nanoseconds in each run state until now, and the clock before and after they were read.
fn accounts() -> ([u64; STATES], [u64; 2]) {
    let before = cpu::ticks();
    let mut info = [0u64; RUNSTATE_SIZE / 8];
    // SAFETY: as large as the structure that the call writes.
    let result = unsafe {
        hypercall::call(
            oxen_abi::numbers::VCPU_OP,
            cmd::GET_RUNSTATE_INFO,
            0,
            info.as_mut_ptr() as u64,
        )
    };
    assert!(result == 0, "get_runstate_info: {result}");
    ([info[2], info[3], info[4], info[5]], [before, cpu::ticks()])
}
