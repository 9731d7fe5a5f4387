//! An unprivileged guest that makes every hypercall with arguments that no guest should pass, from several vCPUs, and its
//! neighbour that finds out whether it was disturbed by that.
//!
//! The command line has `role=hostile` (the default) with `seed=`, `calls=` (of all vCPUs together) and `vcpus=`, or
//! `role=witness`. A seed's calls are the same each time, vCPU by vCPU; with `vcpus=1` the whole run is.
#![no_std]
#![no_main]

mod arguments;
mod calls;
mod guard;
mod random;
mod traps;
mod vcpus;
mod witness;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use oxen_abi::sched;
use oxen_guest_runtime::{apic, command_line, cpu, line, others, shut_down};

use calls::Caller;

/// Most vCPUs that make calls.
pub const MOST_VCPUS: usize = others::MOST;
/// How often the whole run says how far it is.
const REPORTS: u64 = 10;
/// The first vCPU looks after the others each so many of its calls.
const CARE: u64 = 64;

static SEED: AtomicU64 = AtomicU64::new(0);
/// Calls that each vCPU makes.
static SHARE: AtomicU64 = AtomicU64::new(0);
/// vCPUs that have made theirs.
static DONE: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
fn guest_main() {
    traps::load();
    apic::enable();
    vcpus::settle(0);
    if command_line::value("role") == Some("witness") {
        witness::watch();
    }
    let seed = command_line::number("seed", 1);
    let calls = command_line::number("calls", 100_000);
    // The last one never runs: it is there for calls about it.
    let vcpus = (command_line::number("vcpus", 1) as usize).clamp(1, MOST_VCPUS - 1);
    SEED.store(seed, Ordering::Relaxed);
    SHARE.store(calls.div_ceil(vcpus as u64), Ordering::Relaxed);
    line!("hostile: seed={seed} calls={calls} vcpus={vcpus}");
    arguments::prepare();
    others::start(vcpus, others_main);
    attack(0, vcpus);
    // Stopped ones are started again, or they would never be done.
    while (DONE.load(Ordering::Acquire) as usize) < vcpus {
        vcpus::revive(vcpus);
        cpu::interrupts(true);
    }
    /// So many calls miss none of some hundred commands.
    const ENOUGH: u64 = 50_000;
    if let Some((number, command)) = calls::left_out().filter(|_| calls >= ENOUGH) {
        line!("hostile: FAILED: command {command} of hypercall {number} was never called");
    }
    line!("hostile: finished seed={seed} calls={calls} vcpus={vcpus}");
    // It stays, so that its end is its owner's doing.
    loop {
        vcpus::rest();
    }
}

fn others_main(vcpu: usize) -> ! {
    vcpus::begin(vcpu);
    attack(vcpu, 0);
    loop {
        vcpus::rest();
    }
}

/// Makes a vCPU's share of the calls. The first vCPU passes how many there are, and keeps the others going.
fn attack(vcpu: usize, others: usize) {
    let share = SHARE.load(Ordering::Relaxed);
    let mut caller = Caller::new(SEED.load(Ordering::Relaxed), vcpu);
    let step = (share / REPORTS).max(1);
    for number in 0..share {
        caller.call();
        if !guard::own_memory_is_intact() {
            line!(
                "hostile: FAILED: memory that no call named has changed, at or before call {number} of vCPU {vcpu}"
            );
            shut_down(sched::reason::CRASH);
        }
        if others > 0 && number % CARE == 0 {
            vcpus::revive(others);
        }
        if vcpu == 0 && number % step == step - 1 {
            line!(
                "hostile: call {} of {share}, {}",
                number + 1,
                caller.summary()
            );
        }
    }
    DONE.fetch_add(1, Ordering::Release);
}
