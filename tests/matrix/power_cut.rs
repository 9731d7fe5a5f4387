//! The machine's power is cut while a guest writes a journal: what its disk had acknowledged is there afterwards.
//!
//! The guest writes a page, flushes, and tells that on its console, again and again. Its disk is a loop device in dom0, which keeps what is
//! written in dom0's memory until it is told to flush; under it is the machine's own disk, a file here. So a flush that is acknowledged
//! and not done shows up.

use std::env;

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::{Disk, DiskBus, Kind};

use crate::domains::{MEMORY, setup};
use crate::{Case, checks};

/// How often the power is cut, each time in a new boot.
const CUTS_VARIABLE: &str = "OXEN_POWER_CUTS";
const GUEST: &str = "journal";
/// Pages of the journal, after which it begins at the front again; as the guest has it.
const PAGES: u32 = 64;
const PAGE: usize = 4096;
/// Bytes of the machine's disk, as Bochs wants it: cylinders of 16 heads with 63 sectors.
const SIZE: usize = 8 * 16 * 63 * 512;

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "disks::power_cut", power_cuts))
        .collect()
}

fn power_cuts(name: &str, kind: Kind) -> Result<(), Failure> {
    let cuts = match env::var(CUTS_VARIABLE) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{CUTS_VARIABLE}={text}: a number is wanted"))?,
        Err(_) => 1,
    };
    (0..cuts).try_for_each(|cut| power_cut(name, kind, cut))
}

fn power_cut(name: &str, kind: Kind, cut: u32) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let image = setup.write_file("disk", &vec![0; SIZE])?;
    setup.machine.disks.push(Disk {
        bus: DiskBus::first(kind),
        image: image.clone(),
        keep: true,
    });
    let kernel = setup.add_guest("oxen-disk-guest")?;
    let mut dom0 = setup.boot()?;
    let last = write_journal(&mut dom0, &kernel, cut)?;
    drop(dom0);
    let content = std::fs::read(&image)?;
    for number in (last.saturating_sub(PAGES - 1)).max(1)..=last {
        holds(&content, number).map_err(|what| {
            Failure::from(format!("cut {cut}: entry {number} of {last}: {what}"))
        })?;
    }
    std::fs::remove_file(image)?;
    Ok(())
}

/// Lets the guest write for a while; the last entry of which it told that it is safe.
fn write_journal(dom0: &mut Dom0, kernel: &str, cut: u32) -> Result<u32, Failure> {
    dom0.run("modprobe loop; n=0; until [ -b /dev/sda ] || [ $n = 20 ]; do sleep 1; n=$((n+1)); done; losetup /dev/loop0 /dev/sda; n=0; until grep -q connected /var/log/xen/oxblk.log; do sleep 1; n=$((n+1)); [ $n = 60 ] && break; done")?;
    let lines = [
        "memory=64",
        "extra=\"role=journal\"",
        "disk=[\"/dev/loop0,raw,xvda,w\"]",
    ];
    checks::create_guest(dom0, GUEST, kernel, &lines)?;
    checks::guest_says(dom0, GUEST, "disk: safe 100 ", 240)?;
    let wait = cut % 5;
    let line = dom0.run(&format!(
        "sleep {wait}; grep '^disk: safe' /var/log/xen/console/guest-{GUEST}.log | tail -n 1"
    ))?;
    let number = line
        .split_whitespace()
        .nth(2)
        .and_then(|word| word.parse().ok());
    let number = number.ok_or_else(|| format!("the guest says {line:?}"))?;
    ensure!(number >= 100, "only {number} entries are safe");
    Ok(number)
}

/// A page has what an entry, or a later one at the same place, wrote there.
fn holds(content: &[u8], number: u32) -> Result<(), String> {
    let start = (number % PAGES) as usize * PAGE;
    let (words, _) = content[start..start + PAGE].as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let found = words[0];
    if found < number || found % PAGES != number % PAGES {
        return Err(format!("{found} is there"));
    }
    // A later entry may have been under way.
    let whole = words
        .iter()
        .zip(0..)
        .all(|(word, nth)| *word == found + nth);
    if !whole && found == number {
        return Err("it is there in part".to_owned());
    }
    Ok(())
}
