//! One guest's console: its ring on one side, its pty and its log on the other.

use std::time::{Duration, Instant};

use crate::backlog::Backlog;
use crate::budget::Budget;
use crate::guest_log::GuestLog;
use crate::pty::Pty;
use crate::ring::{BadIndex, ConsoleRing, Page};

/// Bytes kept for who attaches later, besides what the pty itself holds.
const BACKLOG: usize = 256 << 10;

/// A guest's console. Its operations never block; those that return `true` changed the ring, and the guest is to be told.
#[derive(Debug)]
pub struct Console<P> {
    ring: ConsoleRing<P>,
    pty: Pty,
    log: Option<GuestLog>,
    backlog: Backlog,
    budget: Budget,
}

impl<P: Page> Console<P> {
    /// A console on a page that was just mapped; without a log if there is none to be had.
    pub fn new(page: P, pty: Pty, log: Option<GuestLog>, now: Instant) -> Self {
        Self {
            ring: ConsoleRing::new(page),
            pty,
            log,
            backlog: Backlog::new(BACKLOG),
            budget: Budget::new(now),
        }
    }

    /// Its pty.
    pub const fn pty(&self) -> &Pty {
        &self.pty
    }

    /// How long it is not to be drained, because it wrote too much.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.budget.wait(now)
    }

    /// Takes what the guest wrote: to the log, and to the pty as far as that takes it.
    ///
    /// # Errors
    /// The guest's index makes no sense.
    pub fn drain(&mut self, now: Instant) -> Result<bool, BadIndex> {
        let bytes = self.ring.take()?;
        self.budget.spend(bytes.len(), now);
        if bytes.is_empty() {
            return Ok(false);
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(&bytes)
        {
            log::warn!("no more log of this guest's console: {error}; make room on the disk");
            self.log = None;
        }
        self.backlog.push(&bytes);
        self.flush();
        Ok(true)
    }

    /// Whether something waits for room in the pty.
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Gives the pty what it takes.
    pub fn flush(&mut self) {
        while !self.backlog.is_empty() {
            match self.pty.write(self.backlog.front()) {
                Ok(0) => return,
                Ok(count) => self.backlog.consume(count),
                Err(error) => {
                    // The slave is open as long as we are: this is a pty gone bad, and what it cannot show is in the log.
                    log::warn!("{}: {error}", self.pty.name());
                    self.backlog.consume(usize::MAX);
                    return;
                }
            }
        }
    }

    /// Whether the guest has room for more input. A guest with an index that makes no sense has not.
    pub fn has_room(&self) -> bool {
        self.ring.room().is_ok_and(|room| room > 0)
    }

    /// Gives the guest what was typed, as far as it has room; the rest stays in the pty.
    ///
    /// # Errors
    /// The guest's index makes no sense.
    pub fn feed(&mut self) -> Result<bool, BadIndex> {
        let mut bytes = [0; 1024];
        let room = self.ring.room()?.min(bytes.len());
        if room == 0 {
            return Ok(false);
        }
        let count = match self.pty.read(&mut bytes[..room]) {
            Ok(count) => count,
            Err(error) => {
                log::warn!("{}: {error}", self.pty.name());
                0
            }
        };
        Ok(self.ring.put(&bytes[..count])? > 0)
    }

    /// As if the guest had written so much.
    #[cfg(test)]
    pub(crate) fn charge(&mut self, bytes: usize, now: Instant) {
        self.budget.spend(bytes, now);
    }

    #[cfg(test)]
    pub(crate) const fn ring(&self) -> &ConsoleRing<P> {
        &self.ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::guest;
    use std::fs::File;
    use std::io::{Read, Write};

    fn console() -> (Console<guest::Memory>, File) {
        let pty = Pty::open().expect("a pty");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(pty.name())
            .expect("its slave");
        let console = Console::new(guest::page(), pty, None, Instant::now());
        (console, slave)
    }

    #[test]
    fn text_goes_both_ways() {
        let (mut console, mut slave) = console();
        let mut bytes = [0; 16];
        guest::write(console.ring(), b"login: ");
        assert_eq!(console.drain(Instant::now()), Ok(true));
        assert_eq!(slave.read(&mut bytes).expect("a prompt"), 7);
        assert_eq!(console.drain(Instant::now()), Ok(false));
        assert_eq!(console.feed(), Ok(false));
        slave.write_all(b"root\r").expect("room");
        assert_eq!(console.feed(), Ok(true));
        assert_eq!(guest::read(console.ring(), 100), b"root\r");
    }

    #[test]
    fn a_guest_that_nobody_reads_is_drained_all_the_same() {
        let (mut console, mut slave) = console();
        let mut written = 0;
        while written < 1 << 20 {
            written += guest::write(console.ring(), &[b'x'; 2048]);
            console.drain(Instant::now()).expect("an honest guest");
        }
        assert!(console.has_backlog());
        guest::write(console.ring(), b"THE END");
        console.drain(Instant::now()).expect("an honest guest");
        // Who attaches late sees the newest text.
        let (mut seen, mut bytes) = (vec![], [0; 4096]);
        while !seen.ends_with(b"THE END") {
            let count = slave.read(&mut bytes).expect("text");
            seen.extend_from_slice(&bytes[..count]);
            console.flush();
        }
        assert!(seen.len() <= BACKLOG + (128 << 10), "{} bytes", seen.len());
    }

    #[test]
    fn a_guest_that_does_not_read_leaves_input_in_the_pty() {
        let (mut console, mut slave) = console();
        slave.write_all(&[b'y'; 1500]).expect("room");
        assert_eq!(console.feed(), Ok(true));
        while console.has_room() && console.feed() == Ok(true) {}
        assert!(!console.has_room());
        assert_eq!(console.feed(), Ok(false));
        let mut read = guest::read(console.ring(), 2000).len();
        console.feed().expect("an honest guest");
        read += guest::read(console.ring(), 2000).len();
        assert_eq!(read, 1500);
    }
}
