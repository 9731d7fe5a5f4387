//! The neighbour: it fills its memory, sleeps and looks whether all is as it left it, and whether time goes on.

use oxen_abi::sched;
use oxen_guest_runtime::{cpu, events, line, shut_down};

const FIRST: usize = 32 << 20;
const END: usize = 48 << 20;
const PAUSE_NANOS: u64 = 20_000_000;
/// Words looked at in a round, and rounds between two lines.
const WORDS: usize = 32 << 10;
const LINE: u64 = 25;

/// Watches for ever.
pub fn watch() -> ! {
    for address in (FIRST..END).step_by(8) {
        // SAFETY: memory of the guest's that nothing else uses.
        unsafe { word(address).write_volatile(pattern(address)) };
    }
    events::bind_timer();
    let mut address = FIRST;
    for round in 1.. {
        let start = cpu::ticks();
        events::forget();
        events::set_timer(PAUSE_NANOS);
        cpu::halt();
        cpu::interrupts(false);
        let now = cpu::ticks();
        if now < start {
            fail(format_args!("time went back from {start} to {now}"));
        }
        for _ in 0..WORDS {
            // SAFETY: as above.
            let value = unsafe { word(address).read_volatile() };
            if value != pattern(address) {
                fail(format_args!("{address:#x} holds {value:#x}"));
            }
            address += 8;
            if address == END {
                address = FIRST;
            }
        }
        if round % LINE == 0 {
            line!("witness: {round} rounds");
        }
    }
    shut_down(sched::reason::POWEROFF)
}

fn word(address: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(address)
}

fn pattern(address: usize) -> u64 {
    (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn fail(what: core::fmt::Arguments<'_>) -> ! {
    line!("witness: FAILED: {what}");
    shut_down(sched::reason::CRASH)
}
