//! The machine's power is cut while a guest writes a journal: what its disk had acknowledged is there afterwards.
//!
//! The guest writes a page, flushes, and tells that on its console, again and again. Its disk is a loop device in dom0, which keeps what is
//! written in dom0's memory until it is told to flush; under it is the machine's own disk, a file here. So a flush that is acknowledged
//! and not done shows up.
//!
//! The emulator is killed once, by the last cut. For each of the others it is stopped while its disk's file is read: what a kill at that
//! moment had left.

use std::fs;
use std::thread;
use std::time::Duration;

use oxen_tests::{Dom0, Failure, Setup, ensure, journal};
use xtask::machine::{Disk, DiskBus, Kind};

use crate::domains::{MEMORY, setup};
use crate::hostile::number;
use crate::{Case, checks};

/// How often the power is cut.
const CUTS_VARIABLE: &str = "OXEN_POWER_CUTS";
const GUEST: &str = "journal";
/// Bytes of the machine's disk, as Bochs wants it: cylinders of 16 heads with 63 sectors.
const SIZE: usize = 8 * 16 * 63 * 512;
/// Entries that are safe before the first cut: each page of the journal has been written more than once.
const FIRST: u32 = 2 * journal::PAGES;
/// Between two cuts there are up to so many milliseconds, in steps that have no factor in common with it.
const MOST_BETWEEN: u64 = 400;
const STEP: u64 = 37;

pub fn cases() -> Vec<Case> {
    [(Kind::Tcg, 8), (Kind::Bochs, 4), (Kind::Kvm, 8)]
        .into_iter()
        .map(|(kind, cuts)| {
            Case::new(kind, "disks::power_cut", move |name, kind| {
                power_cuts(name, kind, number(CUTS_VARIABLE)?.unwrap_or(cuts))
            })
        })
        .collect()
}

fn power_cuts(name: &str, kind: Kind, cuts: u64) -> Result<(), Failure> {
    ensure!(cuts > 0, "{CUTS_VARIABLE}=0: at least 1 is wanted");
    let mut setup = setup(name, kind, MEMORY)?;
    let image = setup.write_file("disk", &vec![0; SIZE])?;
    setup.machine.disks.push(Disk {
        bus: DiskBus::first(kind),
        image: image.clone(),
        keep: true,
    });
    let kernel = setup.add_guest("oxen-disk-guest")?;
    let mut dom0 = setup.boot()?;
    start_journal(&mut dom0, &kernel)?;
    let mut last = FIRST;
    for cut in 1..cuts {
        thread::sleep(Duration::from_millis(cut * STEP % MOST_BETWEEN));
        last = last_safe(&mut dom0, last)?;
        let content = dom0.running().paused(|| fs::read(&image))??;
        check(&setup, cut, &content, last)?;
    }
    last = last_safe(&mut dom0, last)?;
    drop(dom0);
    check(&setup, cuts, &fs::read(&image)?, last)?;
    fs::remove_file(image)?;
    Ok(())
}

/// Starts the guest; its journal is full when this returns.
fn start_journal(dom0: &mut Dom0, kernel: &str) -> Result<(), Failure> {
    dom0.run("modprobe loop; n=0; until [ -b /dev/sda ] || [ $n = 20 ]; do sleep 1; n=$((n+1)); done; losetup /dev/loop0 /dev/sda; n=0; until grep -q connected /var/log/xen/oxblk.log; do sleep 1; n=$((n+1)); [ $n = 60 ] && break; done")?;
    let lines = [
        "memory=64",
        "extra=\"role=journal\"",
        "disk=[\"/dev/loop0,raw,xvda,w\"]",
    ];
    checks::create_guest(dom0, GUEST, kernel, &lines)?;
    checks::guest_says(dom0, GUEST, &format!("disk: safe {FIRST} "), 240)?;
    Ok(())
}

/// The last entry of which the guest has told that it is safe: a later one than `before`.
fn last_safe(dom0: &mut Dom0, before: u32) -> Result<u32, Failure> {
    let log = checks::console_log(GUEST);
    // The end only: it grows all the time, and goes on in a new file now and then.
    let line = dom0.run(&format!(
        "for log in {log}.1 {log}; do [ -e $log ] && tail -c 200 $log; done | grep '^disk: safe [0-9]* ' | tail -n 1"
    ))?;
    let number = line.split_whitespace().nth(2);
    let number = number.and_then(|word| word.parse().ok());
    let number = number.ok_or_else(|| format!("the guest says {line:?}"))?;
    ensure!(
        number > before,
        "the guest has stopped writing: entry {number} is safe, {before} was at the cut before"
    );
    Ok(number)
}

/// Looks at what a cut has left; keeps that if entries are lost.
fn check(setup: &Setup, cut: u64, content: &[u8], last: u32) -> Result<(), Failure> {
    let Err(what) = journal::check(content, last) else {
        return Ok(());
    };
    let kept = setup.write_file("lost", content)?;
    Err(format!(
        "cut {cut}: {last} entries were told safe: {what} ({} has the disk)",
        kept.display()
    )
    .into())
}
