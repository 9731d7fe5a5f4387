//! The poll loop.

mod changes;
mod host;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use host::{Host, XenHost};

use crate::console::Console;
use crate::ring::BadIndex;
use crate::store::{Keys, Store};

/// Where consoles are logged.
#[derive(Clone, Debug)]
pub struct Logs {
    /// Directory of the logs.
    pub directory: PathBuf,
    /// Bytes of a file; a guest has two.
    pub limit: u64,
}

/// A guest whose console is open.
#[derive(Debug)]
struct Guest<P> {
    keys: Keys,
    /// `None` once the guest broke the ring's rules: what it wrote until then can still be read.
    port: Option<u32>,
    console: Console<P>,
    /// An event came and is not handled yet; its port stays masked, so that there is no more than one.
    waiting: bool,
    published: bool,
}

/// All consoles, and the connections that they need.
pub struct Daemon<H: Host, S: Store, C: FnMut() -> io::Result<S>> {
    host: H,
    connect: C,
    store: Option<S>,
    /// Changes may have arrived that the store's descriptor does not show any more.
    store_is_busy: bool,
    retry_at: Instant,
    /// That there is no xenstored was said, once.
    complained: bool,
    logs: Logs,
    watched: BTreeSet<u16>,
    guests: BTreeMap<u16, Guest<H::Page>>,
}

impl<H: Host, S: Store, C: FnMut() -> io::Result<S>> Daemon<H, S, C> {
    /// Without guests yet. `connect` makes a connection to xenstored, again if one is lost.
    pub fn new(host: H, logs: Logs, connect: C) -> Self {
        Self {
            host,
            connect,
            store: None,
            store_is_busy: false,
            retry_at: Instant::now(),
            complained: false,
            logs,
            watched: BTreeSet::new(),
            guests: BTreeMap::new(),
        }
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// Polling or the event-channel device failed: nothing can go on then.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.turn(None)?;
        }
    }

    /// One turn: waits for something to do, at most for `timeout`, and does it.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.reconnect();
        let ready = self.poll(timeout)?;
        self.store_changes();
        self.take_events()?;
        for (domid, flags) in ready {
            self.serve_pty(domid, flags);
        }
        self.serve_rings();
        Ok(())
    }

    /// Waits; gives the guests whose ptys are ready.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<Vec<(u16, PollFlags)>> {
        let now = Instant::now();
        let retry = (self.store.is_none()).then(|| self.retry_at.saturating_duration_since(now));
        let refill = (self.guests.values_mut())
            .filter(|guest| guest.waiting && guest.port.is_some())
            .map(|guest| guest.console.wait(now))
            .min();
        let busy = self.store_is_busy.then_some(Duration::ZERO);
        let timeout = [timeout, retry, refill, busy].into_iter().flatten().min();
        let mut fds = vec![PollFd::from_borrowed_fd(self.host.fd(), PollFlags::IN)];
        fds.extend(
            (self.store.iter()).map(|store| PollFd::from_borrowed_fd(store.fd(), PollFlags::IN)),
        );
        let first_guest = fds.len();
        for guest in self.guests.values() {
            let mut flags = PollFlags::empty();
            flags.set(
                PollFlags::IN,
                guest.port.is_some() && guest.console.has_room(),
            );
            flags.set(PollFlags::OUT, guest.console.has_backlog());
            fds.push(PollFd::new(guest.console.pty(), flags));
        }
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = fds[first_guest..].iter().map(PollFd::revents);
        Ok((self.guests.keys().copied().zip(flags))
            .filter(|(_, flags)| !flags.is_empty())
            .collect())
    }

    fn take_events(&mut self) -> io::Result<()> {
        // Each port can be pending once: the loop ends.
        loop {
            match self.host.pending() {
                Ok(port) => {
                    let guest = self
                        .guests
                        .values_mut()
                        .find(|guest| guest.port == Some(port));
                    if let Some(guest) = guest {
                        guest.waiting = true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn serve_pty(&mut self, domid: u16, flags: PollFlags) {
        let Some(guest) = self.guests.get_mut(&domid) else {
            return;
        };
        if flags.contains(PollFlags::OUT) {
            guest.console.flush();
        }
        if flags.contains(PollFlags::IN)
            && let Some(port) = guest.port
        {
            let result = guest.console.feed();
            tell(&self.host, domid, guest, port, result);
        }
    }

    fn serve_rings(&mut self) {
        let now = Instant::now();
        for (&domid, guest) in &mut self.guests {
            let Some(port) = guest.port.filter(|_| guest.waiting) else {
                continue;
            };
            if guest.console.wait(now).is_zero() {
                guest.waiting = false;
                // First let events in, then look: what the guest writes in between announces itself.
                if let Err(error) = self.host.unmask(port) {
                    log::warn!("domain {domid}: port {port} cannot be unmasked: {error}");
                }
                let result = guest.console.drain(now);
                tell(&self.host, domid, guest, port, result);
            }
        }
    }
}

/// Tells the guest of a change in its ring, or gives the ring up.
fn tell<H: Host>(
    host: &H,
    domid: u16,
    guest: &mut Guest<H::Page>,
    port: u32,
    result: Result<bool, BadIndex>,
) {
    match result {
        Ok(false) => {}
        Ok(true) => {
            if let Err(error) = host.notify(port) {
                log::warn!("domain {domid}: port {port} cannot be notified: {error}");
            }
        }
        Err(error) => {
            log::error!("domain {domid}: its console is given up: {error}");
            guest.port = None;
            unbind(host, domid, port);
        }
    }
}

fn unbind(host: &impl Host, domid: u16, port: u32) {
    if let Err(error) = host.unbind(port) {
        log::warn!("domain {domid}: port {port} cannot be closed: {error}");
    }
}
