//! The disk's front end in this guest: its pages, its event channel, its way to xenstore.

use core::sync::atomic::{AtomicU32, Ordering};

use oxen_blkfront::{Disk, Ends, Front, KIND, Refused, Unasked};
use oxen_blkif::Kind;
use oxen_guest_runtime::xenstore::Xenstore;
use oxen_guest_runtime::{command_line, events, grants};

/// `xvda`
const NUMBER: u32 = 51712;
const BACK_END: u16 = 0;
/// Pages of data.
pub const PAGES: usize = 16;
const WORDS: usize = 1024;

/// Grants of the ring, and of the first page of data.
pub const RING_GRANT: u32 = grants::FIRST;
pub const DATA_GRANT: u32 = grants::FIRST + 1;

/// Pages that the back end sees.
#[repr(C, align(4096))]
pub struct Shared<const WORDS: usize>([AtomicU32; WORDS]);

pub static RING: Shared<WORDS> = Shared([const { AtomicU32::new(0) }; WORDS]);
pub static DATA: Shared<{ WORDS * PAGES }> = Shared([const { AtomicU32::new(0) }; WORDS * PAGES]);

impl<const N: usize> Shared<N> {
    fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// Its words.
    pub fn words(&self) -> &[AtomicU32] {
        &self.0
    }

    /// Those of a page.
    pub fn page(&self, page: usize) -> &[AtomicU32] {
        &self.0[page * WORDS..][..WORDS]
    }

    /// Fills a page with a number that is another in each word.
    pub fn fill(&self, page: usize, seed: u32) {
        for (nth, word) in self.page(page).iter().enumerate() {
            word.store(seed.wrapping_add(nth as u32), Ordering::Relaxed);
        }
    }

    /// Whether that is there.
    pub fn holds(&self, page: usize, seed: u32) -> bool {
        let mut words = self.page(page).iter().enumerate();
        words.all(|(nth, word)| word.load(Ordering::Relaxed) == seed.wrapping_add(nth as u32))
    }
}

/// The device.
pub struct Device {
    pub nodes: Xenstore,
    pub ends: Ends,
    pub port: u32,
    pub front: Front<&'static [AtomicU32]>,
    /// Grants stay as they are, and the back end may keep their pages mapped.
    pub keep_grants: bool,
}

impl Device {
    /// With all its pages granted; the back end does not know of them yet.
    pub fn new() -> Self {
        let mut nodes = Xenstore::open();
        let ends = Ends::of(&mut nodes, KIND, NUMBER).expect("this guest has no disk xvda");
        grants::grant(RING_GRANT, BACK_END, RING.address());
        for page in 0..PAGES {
            grants::grant(
                DATA_GRANT + page as u32,
                BACK_END,
                DATA.address() + page as u64 * 4096,
            );
        }
        Self {
            nodes,
            ends,
            port: events::new_port(BACK_END),
            front: Front::new(RING.words()).expect("a page"),
            keep_grants: command_line::value("grants") == Some("kept"),
        }
    }

    /// Waits for the back end's offer, and says where everything is.
    pub fn announce(&mut self) -> Result<(), Refused> {
        while !oxen_blkfront::offered(&mut self.nodes, &self.ends)? {
            look_again();
        }
        self.front = Front::new(RING.words()).expect("a page");
        let keep = self.keep_grants;
        let used = oxen_blkfront::keep_grants(&mut self.nodes, &self.ends, keep)?;
        if keep {
            assert!(used, "the back end does not offer to keep grants");
        }
        oxen_blkfront::announce(&mut self.nodes, &self.ends, RING_GRANT, self.port)
    }

    /// Waits until the disk is there.
    pub fn connect(&mut self) -> Disk {
        self.announce().expect("an offer");
        loop {
            match oxen_blkfront::connected(&mut self.nodes, &self.ends) {
                Ok(Some(disk)) => return disk,
                Ok(None) => look_again(),
                Err(error) => panic!("no disk: {error}"),
            }
        }
    }

    /// Asks for a page.
    pub fn ask(&mut self, kind: Kind, sector: u64, page: usize) {
        self.ask_part(kind, sector, page, (0, 7));
    }

    /// Asks for sectors of a page.
    pub fn ask_part(&mut self, kind: Kind, sector: u64, page: usize, sectors: (u8, u8)) {
        let grant = DATA_GRANT + page as u32;
        match self.front.ask(kind, sector, grant, sectors) {
            Ok(_) => {}
            Err(Unasked::Full) => panic!("more was asked than a ring holds"),
            Err(Unasked::Wrong(reason)) => panic!("a wrong request: {reason:?}"),
        }
    }

    /// Asks for a flush, and waits for it.
    pub fn flush(&mut self) {
        self.front.flush().expect("room");
        self.wait(1);
    }

    /// Shows what was asked, and waits for so many answers, all of which must be good.
    pub fn wait(&mut self, count: usize) {
        self.publish();
        for _ in 0..count {
            loop {
                if let Some((_, status)) = self.front.collect().expect("an honest back end") {
                    crate::fine(status);
                    break;
                }
                look_again();
            }
        }
    }

    /// Shows what was asked.
    pub fn publish(&mut self) {
        if self.front.publish() {
            self.notify();
        }
    }

    /// Sends an event.
    pub fn notify(&self) {
        events::send(self.port);
    }
}

/// Lets a moment pass before the next look at what is waited for.
pub fn look_again() {
    const LOOK_NANOS: u64 = 1_000_000;
    events::nap(LOOK_NANOS);
}
