//! The data test of disks with the front end of this guest.

use core::convert::Infallible;
use core::sync::atomic::Ordering;

use oxen_blkfront::Disk;
use oxen_blkif::{Kind, SECTORS_PER_PAGE};
use oxen_exchange::disk::{self, MOST, Plan, SECTOR};
use oxen_guest_runtime::{command_line, events, line};

use crate::device::{DATA, Device, PAGES};

const PER_PAGE: usize = SECTORS_PER_PAGE as usize;
const WORD: usize = size_of::<u32>();
/// Between two looks of a guest that has nothing to do any more.
const PAUSE_NANOS: u64 = 500_000_000;

/// The disk as the test wants it.
struct Tested {
    device: Device,
    flush: bool,
}

/// Does the test, says how it ended, and stays: its end is its owner's doing.
pub fn run(device: Device, disk: Disk) -> ! {
    let seed = command_line::value("seed").and_then(|seed| seed.parse().ok());
    let plan = Plan::new(seed.expect("seed=N is missing"), disk.sectors);
    let mut tested = Tested {
        device,
        flush: disk.flush,
    };
    match plan.exchange(&mut tested, &mut [0; MOST * SECTOR]) {
        Ok(()) => line!("exchange: fine: {} sectors", disk.sectors),
        Err(wrong) => line!("exchange: FAILED: {wrong}"),
    }
    loop {
        events::nap(PAUSE_NANOS);
    }
}

/// A request's sectors in one page: the place of the first in the whole, the page, and the first and the last sector there. They lie in
/// pages as they do on the disk, so that pages are cut in the middle at both ends. Where there is one page more than this guest has, it has
/// its sectors in the first one, before those of the beginning.
fn pieces(sector: u64, bytes: usize) -> impl Iterator<Item = (usize, usize, (u8, u8))> {
    let begin = sector as usize % PER_PAGE;
    let end = begin + bytes / SECTOR;
    let pages = begin / PER_PAGE..end.div_ceil(PER_PAGE);
    pages.map(move |page| {
        let first = begin.max(page * PER_PAGE);
        let last = end.min((page + 1) * PER_PAGE) - 1;
        let in_page = |sector: usize| (sector - page * PER_PAGE) as u8;
        (first - begin, page % PAGES, (in_page(first), in_page(last)))
    })
}

impl Tested {
    /// Asks for sectors in as many requests as they have pages, and waits for all.
    fn transfer(&mut self, kind: Kind, sector: u64, bytes: usize) {
        let mut count = 0;
        for (place, page, sectors) in pieces(sector, bytes) {
            let sector = sector + place as u64;
            self.device.ask_part(kind, sector, page, sectors);
            count += 1;
        }
        self.device.wait(count);
    }
}

/// The words of a page that sectors of it are.
fn words((first, last): (u8, u8)) -> core::ops::Range<usize> {
    const WORDS: usize = SECTOR / WORD;
    usize::from(first) * WORDS..(usize::from(last) + 1) * WORDS
}

impl disk::Disk for Tested {
    type Error = Infallible;

    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.transfer(Kind::Read, sector, bytes.len());
        for (place, page, sectors) in pieces(sector, bytes.len()) {
            let words = &DATA.page(page)[words(sectors)];
            let bytes = &mut bytes[place * SECTOR..];
            for (bytes, word) in bytes.chunks_exact_mut(WORD).zip(words) {
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), Infallible> {
        for (place, page, sectors) in pieces(sector, bytes.len()) {
            let words = &DATA.page(page)[words(sectors)];
            let bytes = &bytes[place * SECTOR..];
            for (bytes, word) in bytes.chunks_exact(WORD).zip(words) {
                let bytes = bytes.try_into().unwrap_or_default();
                word.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
            }
        }
        self.transfer(Kind::Write, sector, bytes.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        if self.flush {
            self.device.flush();
        }
        Ok(())
    }
}
