//! Where the vCPUs' time went, as the hypervisor writes it into the guest's memory (`vcpu_runstate_info`).

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayString;
use oxen_abi::vcpu::{RUNSTATE_SIZE, cmd};
use oxen_guest_runtime::others::MOST;
use oxen_guest_runtime::{events, hypercall, line};

/// State, when it was entered, and the times spent in each state before.
type Info = [u64; RUNSTATE_SIZE / 8];

/// In a cache line of its own, so that it is on one page.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Area(Info);

static mut AREAS: [Area; MOST] = [Area([0; RUNSTATE_SIZE / 8]); MOST];

fn area(vcpu: usize) -> *mut Area {
    (&raw mut AREAS).cast::<Area>().wrapping_add(vcpu % MOST)
}

/// Has the hypervisor keep the accounts.
pub fn register(vcpus: usize) {
    for vcpu in 0..vcpus {
        let address = area(vcpu) as u64;
        let result = hypercall::vcpu_op(cmd::REGISTER_RUNSTATE_AREA, vcpu as u32, &address);
        assert!(result == 0, "run states of vCPU {vcpu}: {result}");
    }
}

/// A vCPU's times in all states up to a moment of system time, which comes first.
fn read(vcpu: usize) -> (u64, [u64; 4]) {
    // SAFETY: the area's own words, which the hypervisor alone writes.
    let look = || unsafe { area(vcpu).read_volatile().0 };
    loop {
        let before = look();
        let now = events::system_time();
        // Another vCPU's may change meanwhile.
        if before != look() {
            continue;
        }
        let [state, entered, mut times @ ..] = before;
        let present = &mut times[state as u32 as usize % 4];
        *present += now.saturating_sub(entered);
        return (now, times);
    }
}

/// Prints a line: `spin: accounts N`, then for each vCPU a bar, the moment, and the times spent running, runnable, blocked and
/// offline, in nanoseconds.
pub fn print(vcpus: usize) {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let mut text = ArrayString::<224>::new();
    for vcpu in 0..vcpus {
        let (now, [running, runnable, blocked, offline]) = read(vcpu);
        // What does not fit is missed by who reads it.
        let _ = write!(text, " | {now} {running} {runnable} {blocked} {offline}");
    }
    line!("spin: accounts {round}{text}");
}
