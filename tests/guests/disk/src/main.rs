//! A guest with a PV disk, `xvda`. With `role=honest` (the default) it writes and reads back for ever, and says `disk: N rounds` now
//! and then; with `role=journal` it writes and flushes; with `role=exchange` and `seed=N` it does the data test of disks; with `role=hostile`
//! it breaks the protocol in every way that it knows, and says how each ended. With `grants=kept` it tells the back end that its grants
//! stay.
#![no_std]
#![no_main]

mod attacks;
mod device;
mod exchange;

use oxen_blkif::{Kind, Status};
use oxen_guest_runtime::{command_line, events, line, shut_down};

use device::{DATA, Device, PAGES};

/// Pages of the journal.
const JOURNAL: u32 = 64;
/// Between two rounds: an emulated CPU that never sleeps takes the others' time.
const PAUSE_NANOS: u64 = 20_000_000;
/// Rounds between two reports.
const REPORT: u64 = 20;

#[unsafe(no_mangle)]
fn guest_main() {
    oxen_guest_runtime::grants::set_up();
    let mut device = Device::new();
    if command_line::value("role") == Some("hostile") {
        attacks::run(&mut device);
        // It stays, so that its end is its owner's doing.
        loop {
            events::nap(PAUSE_NANOS);
        }
    }
    let disk = device.connect();
    assert!(!disk.read_only && disk.sectors >= 8 * PAGES as u64);
    line!("disk: {} sectors", disk.sectors);
    match command_line::value("role") {
        Some("journal") => journal(&mut device),
        Some("exchange") => exchange::run(device, disk),
        _ => {}
    }
    for round in 1.. {
        let place = round * PAGES as u64 % (disk.sectors / 8 - PAGES as u64);
        write_and_read(&mut device, place * 8, round);
        if round % REPORT == 0 {
            line!("disk: {round} rounds");
        }
        events::nap(PAUSE_NANOS);
    }
}

/// Entry after entry, each flushed before it is told that it is safe.
fn journal(device: &mut Device) -> ! {
    let mut number: u32 = 1;
    loop {
        DATA.fill(0, number);
        device.ask(Kind::Write, u64::from(number % JOURNAL) * 8, 0);
        device.wait(1);
        device.flush();
        line!("disk: safe {number} ");
        number += 1;
    }
}

/// All pages at once there and back, with a flush in between.
fn write_and_read(device: &mut Device, sector: u64, round: u64) {
    for page in 0..PAGES {
        DATA.fill(page, pattern(page, round));
        device.ask(Kind::Write, sector + 8 * page as u64, page);
    }
    device.wait(PAGES);
    device.flush();
    for page in 0..PAGES {
        DATA.fill(page, 0);
        device.ask(Kind::Read, sector + 8 * page as u64, page);
    }
    device.wait(PAGES);
    for page in 0..PAGES {
        if !DATA.holds(page, pattern(page, round)) {
            line!("disk: FAILED: page {page} of round {round} is not what was written");
            shut_down(oxen_abi::sched::reason::CRASH);
        }
    }
}

fn pattern(page: usize, round: u64) -> u32 {
    (round as u32).wrapping_mul(0x9E37_79B9) ^ page as u32
}

/// A status that ends the guest unless it is fine.
fn fine(status: Status) {
    if status != Status::Okay {
        line!("disk: FAILED: an honest request ended with {status:?}");
        shut_down(oxen_abi::sched::reason::CRASH);
    }
}
