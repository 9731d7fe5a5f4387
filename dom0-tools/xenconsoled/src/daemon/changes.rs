//! What comes from xenstore: guests to open a console for, and guests that are gone.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::{Daemon, Guest, Host, unbind};
use crate::console::Console;
use crate::guest_log::GuestLog;
use crate::pty::Pty;
use crate::store::{Change, Keys, Store};

/// How often a lost xenstored is looked for.
const RECONNECT: Duration = Duration::from_secs(1);
/// Changes of the store handled before the guests' turn comes again.
const CHANGES: usize = 64;

impl<H: Host, S: Store, C: FnMut() -> io::Result<S>> Daemon<H, S, C> {
    pub(super) fn reconnect(&mut self) {
        let now = Instant::now();
        if self.store.is_some() || now < self.retry_at {
            return;
        }
        self.retry_at = now + RECONNECT;
        match (self.connect)() {
            Ok(store) => {
                log::info!("connected to xenstored");
                self.complained = false;
                self.store = Some(store);
                self.store_is_busy = true;
                self.watched.clear();
                self.guests
                    .values_mut()
                    .for_each(|guest| guest.published = false);
            }
            Err(error) if self.complained => log::debug!("{error}"),
            Err(error) => {
                log::warn!("{error}; trying again every second");
                self.complained = true;
            }
        }
    }

    pub(super) fn store_changes(&mut self) {
        self.store_is_busy = false;
        for _ in 0..CHANGES {
            let Some(store) = &mut self.store else {
                return;
            };
            let result = match store.change() {
                Ok(None) => return,
                Ok(Some(Change::Domains)) => self.domains_changed(),
                Ok(Some(Change::Console(domid))) => self.console_changed(domid),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                // Open consoles go on without it.
                log::warn!(
                    "{error}; the guests' consoles go on, new ones have to wait for xenstored"
                );
                self.store = None;
            }
        }
        self.store_is_busy = self.store.is_some();
    }

    fn domains_changed(&mut self) -> io::Result<()> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let domains: BTreeSet<u16> = store.domains()?.into_iter().collect();
        let watched = self.watched.clone();
        for &domid in domains.difference(&watched) {
            self.watched.insert(domid);
            store.watch(domid)?;
        }
        for domid in self
            .watched
            .difference(&domains)
            .copied()
            .collect::<Vec<_>>()
        {
            self.watched.remove(&domid);
            store.unwatch(domid)?;
        }
        let gone: Vec<u16> = (self.guests.keys().copied())
            .filter(|domid| !domains.contains(domid))
            .collect();
        gone.into_iter().for_each(|domid| self.close(domid));
        // What could not be opened before may be there now.
        for &domid in domains.intersection(&watched) {
            if !self.guests.contains_key(&domid) {
                self.console_changed(domid)?;
            }
        }
        Ok(())
    }

    fn console_changed(&mut self, domid: u16) -> io::Result<()> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let Some(keys) = store
            .console(domid)?
            .filter(|_| self.watched.contains(&domid))
        else {
            return Ok(());
        };
        let known = self.guests.get(&domid);
        if known.is_none_or(|guest| (guest.keys.gfn, guest.keys.port) != (keys.gfn, keys.port)) {
            self.close(domid);
            match self.open(domid, keys) {
                Ok(guest) => drop(self.guests.insert(domid, guest)),
                Err(error) => {
                    log::error!("domain {domid}: its console cannot be opened: {error}");
                    return Ok(());
                }
            }
        }
        if let (Some(guest), Some(store)) = (self.guests.get_mut(&domid), &mut self.store)
            && !guest.published
        {
            guest.published = true;
            store.publish(domid, guest.console.pty().name())?;
        }
        Ok(())
    }

    fn open(&self, domid: u16, keys: Keys) -> io::Result<Guest<H::Page>> {
        let page = self.host.map(domid)?;
        let pty = Pty::open()?;
        let log = GuestLog::open(&self.logs.directory, &keys.name, domid, self.logs.limit);
        let log = log
            .inspect_err(|error| {
                let directory = self.logs.directory.display();
                log::warn!("domain {domid}: its console is not logged in {directory}: {error}");
            })
            .ok();
        let port = self.host.bind(domid, keys.port)?;
        log::info!("domain {domid} ({}): console on {}", keys.name, pty.name());
        Ok(Guest {
            keys,
            port: Some(port),
            console: Console::new(page, pty, log, Instant::now()),
            // The first text was written before anybody listened.
            waiting: true,
            published: false,
        })
    }

    /// Closes a console, with its last words in the log.
    fn close(&mut self, domid: u16) {
        let Some(mut guest) = self.guests.remove(&domid) else {
            return;
        };
        if let Some(port) = guest.port {
            // A guest that lies in its last moment loses only its last words.
            let _ = guest.console.drain(Instant::now());
            unbind(&self.host, domid, port);
        }
        log::info!("domain {domid} ({}): console closed", guest.keys.name);
    }
}
