//! The turns of the daemon: take requests, deal with them, keep the outcome, and only then let anybody see it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use oxen_xenstore::store::{ConnectionId, Outgoing, Quotas, Store};
use oxen_xenstore::wire::{Kind, Message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::devices::{Devices, DomainState};
use crate::journal::{Journal, Record};
use crate::position::Position;
use crate::rings::{Arrival, Rings};
use crate::sockets::Sockets;

/// Events taken in one turn.
const EVENTS_PER_TURN: usize = 64;

/// The daemon.
pub struct Daemon<D> {
    store: Store,
    rings: Rings<D>,
    sockets: Sockets,
    journal: Journal,
    domain_ends: Option<u32>,
    look_at_domains: bool,
}

impl<D: Devices> Daemon<D> {
    /// Starts, from where an earlier daemon stopped if `records` say so.
    pub fn start(
        devices: D,
        sockets: Sockets,
        journal: Journal,
        records: Vec<Record>,
    ) -> Result<Self> {
        let restart = !records.is_empty();
        let (mut changes, mut positions) = (vec![], BTreeMap::new());
        for record in records {
            match record {
                Record::Store(change) => changes.push(change),
                record => Position::apply(&mut positions, record),
            }
        }
        let store = Store::restore(Quotas::default(), changes);
        let rings = Rings::new(devices);
        let mut daemon = Self {
            store,
            rings,
            sockets,
            journal,
            domain_ends: None,
            look_at_domains: true,
        };
        daemon.domain_ends = daemon
            .rings
            .devices
            .bind_domain_ends()
            .context("cannot bind VIRQ_DOM_EXC")?;
        if let Some((page, port)) = daemon
            .rings
            .devices
            .own_ring()
            .context("cannot reach the kernel's xenbus")?
        {
            daemon.store.connect(ConnectionId::Domain(0));
            daemon.rings.connect(0, page, port, positions.remove(&0))?;
        }
        daemon.reconnect(positions);
        if restart {
            log::info!(
                "taken up again with {} domains",
                daemon.store.domains().count()
            );
        } else {
            daemon.describe_dom0();
        }
        daemon.keep();
        daemon.show();
        Ok(daemon)
    }

    /// Serves until a failure that nothing can be done about.
    pub fn run(&mut self) -> Result<()> {
        loop {
            self.turn(None)?;
        }
    }

    fn reconnect(&mut self, mut positions: BTreeMap<u16, Position>) {
        let domains: Vec<_> = self.store.domains().collect();
        for (domain, gfn, port) in domains {
            let page = self
                .rings
                .devices
                .map(domain, gfn)
                .context("cannot map its ring");
            let connected = page.and_then(|page| {
                self.rings
                    .connect(domain, page, port, positions.remove(&domain))
            });
            if let Err(error) = connected {
                log::error!("domain {domain} is lost: {error:#}");
                let events = self.store.remove_domain(domain);
                self.deliver(events);
            }
        }
    }

    /// What every dom0 has in its store.
    fn describe_dom0(&mut self) {
        let program = ConnectionId::Socket(0);
        self.store.connect(program);
        for (path, value) in [
            ("/local/domain/0/domid", "0"),
            ("/local/domain/0/name", "Domain-0"),
            // The CPU pool: stock tools want its name.
            ("/local/pool/0/name", "Pool-0"),
            ("/tool/xenstored", ""),
        ] {
            let request =
                Message::request(Kind::Write, 0, 0, format!("{path}\0{value}").into_bytes());
            self.store.handle(program, &request, &mut self.rings);
        }
        self.store.disconnect(program);
    }

    /// One turn: waits at most `timeout` for something to do, and does it.
    pub fn turn(&mut self, timeout: Option<Timespec>) -> Result<()> {
        self.work(timeout)?;
        self.keep();
        self.show();
        Ok(())
    }

    /// Takes requests and deals with them. Nobody sees anything of it yet.
    pub fn work(&mut self, timeout: Option<Timespec>) -> Result<()> {
        let idle = self.rings.ready().is_empty()
            && self.sockets.backlog().is_empty()
            && !self.look_at_domains;
        let (connections, readable) = self.wait(if idle {
            timeout
        } else {
            Some(Timespec::default())
        })?;
        if connections {
            for number in self.sockets.accept() {
                self.store.connect(ConnectionId::Socket(number));
            }
        }
        // A guest can raise events as fast as they are taken: the rest waits for the next turn.
        for _ in 0..EVENTS_PER_TURN {
            let event = self.rings.devices.next_event();
            let Some(port) = event.context("cannot read events")? else {
                break;
            };
            self.look_at_domains |= Some(port) == self.domain_ends;
            self.rings.event(port);
        }
        if std::mem::take(&mut self.look_at_domains) {
            self.check_domains();
        }
        for domain in self.rings.ready() {
            match self.rings.take(domain) {
                Arrival::Requests(requests) => self.serve(ConnectionId::Domain(domain), &requests),
                Arrival::Reset => self.store.reset(ConnectionId::Domain(domain)),
            }
        }
        let mut due = self.sockets.backlog();
        due.extend(readable);
        due.sort_unstable();
        due.dedup();
        for number in due {
            let requests = self.sockets.take(number);
            self.serve(ConnectionId::Socket(number), &requests);
        }
        Ok(())
    }

    /// Whether somebody wants to connect, and which sockets have something.
    fn wait(&self, timeout: Option<Timespec>) -> Result<(bool, Vec<u32>)> {
        let polled: Vec<_> = self.sockets.polled().collect();
        let mut fds = vec![PollFd::new(&self.sockets.listener, PollFlags::IN)];
        fds.extend(
            polled
                .iter()
                .map(|(_, stream, flags)| PollFd::from_borrowed_fd(stream.as_fd(), *flags)),
        );
        fds.extend(
            self.rings
                .devices
                .events()
                .map(|events| PollFd::from_borrowed_fd(events, PollFlags::IN)),
        );
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, vec![])),
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        let has = |fd: &PollFd<'_>| {
            fd.revents()
                .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        };
        let readable = polled
            .iter()
            .zip(fds.iter().skip(1))
            .filter(|(_, fd)| has(fd))
            .map(|((number, ..), _)| *number);
        Ok((fds.first().is_some_and(has), readable.collect()))
    }

    fn serve(&mut self, from: ConnectionId, requests: &[Message]) {
        for request in requests {
            let out = self.store.handle(from, request, &mut self.rings);
            self.deliver(out);
        }
    }

    fn deliver(&mut self, out: Outgoing) {
        for (to, message) in out {
            match to {
                ConnectionId::Domain(domain) => self.rings.push(domain, &message),
                ConnectionId::Socket(number) => self.sockets.push(number, &message),
            }
        }
    }

    /// Some domain shut down, died, or went.
    fn check_domains(&mut self) {
        let domains: Vec<u16> = self.store.domains().map(|(domain, ..)| domain).collect();
        for domain in domains {
            let events = match self.rings.devices.state(domain) {
                Ok(DomainState::Alive) => continue,
                Ok(DomainState::ShutDown) => self.store.domain_ended(domain, true),
                Ok(DomainState::Gone) => {
                    log::info!("domain {domain} is gone");
                    self.rings.disconnect(domain);
                    self.store.remove_domain(domain)
                }
                Err(error) => {
                    log::error!("cannot tell how domain {domain} is: {error}");
                    continue;
                }
            };
            self.deliver(events);
        }
    }

    /// Keeps the turn's outcome.
    pub fn keep(&mut self) {
        let mut records: Vec<Record> = self
            .store
            .take_changes()
            .into_iter()
            .map(Record::Store)
            .collect();
        records.extend(self.rings.take_records());
        let kept = if self.journal.wants_rewrite() {
            self.rewrite()
        } else {
            self.journal.append(&records)
        };
        if let Err(error) = kept.or_else(|_| self.rewrite()) {
            // Guests go on; only a crash before the next attempt would lose something.
            log::error!("cannot keep the state: {error}");
        }
    }

    /// Lets domains and programs see the outcome.
    pub fn show(&mut self) {
        for domain in self.rings.flush() {
            self.store.reset(ConnectionId::Domain(domain));
        }
        for number in self.sockets.flush() {
            self.store.disconnect(ConnectionId::Socket(number));
        }
    }

    fn rewrite(&mut self) -> std::io::Result<()> {
        let mut records: Vec<Record> = self.store.dump().into_iter().map(Record::Store).collect();
        records.extend(self.rings.dump());
        self.journal.rewrite(&records)
    }
}
