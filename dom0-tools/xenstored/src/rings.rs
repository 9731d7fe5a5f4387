//! The rings of domains: what comes in and goes out of each, and what of that is to be kept.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use oxen_xenstore::outbox::Outbox;
use oxen_xenstore::ring::{Fault, Released, ServerRing};
use oxen_xenstore::store::Host;
use oxen_xenstore::wire::{Decoder, Errno, Message};

use crate::devices::{Devices, Page};
use crate::journal::Record;
use crate::position::Position;

/// Requests of one peer in one turn; the others' come in between.
pub const REQUESTS_PER_TURN: usize = 16;
/// Nothing more is taken from a peer with more bytes than this waiting for it.
pub const WAITING_HIGH: usize = 64 << 10;
/// Bytes that may wait for an unprivileged domain before it loses watch events.
const GUEST_LIMIT: usize = 256 << 10;
/// dom0's kernel loses none. What guests do makes events for it, so nothing is taken from them while more bytes than this wait for it.
const KERNEL_HIGH: usize = 256 << 10;

/// One domain's ring.
struct Peer {
    ring: ServerRing<Page>,
    port: u32,
    decoder: Decoder,
    outbox: Outbox,
    /// Something may have come.
    ready: bool,
    fault: Option<Fault>,
    /// The log has a complaint about it; a guest must not be able to fill the log with more.
    complained: bool,
}

/// What came of looking at a ring.
pub enum Arrival {
    /// These requests.
    Requests(Vec<Message>),
    /// The domain begins anew, or its ring is given up: watches and transactions go.
    Reset,
}

/// All rings.
pub struct Rings<D> {
    /// The machine.
    pub devices: D,
    peers: BTreeMap<u16, Peer>,
    records: Vec<Record>,
}

impl<D: Devices> Rings<D> {
    /// None yet.
    pub fn new(devices: D) -> Self {
        Self {
            devices,
            peers: BTreeMap::new(),
            records: vec![],
        }
    }

    /// Connects a ring: where the page says it is, or where `position` does.
    pub fn connect(
        &mut self,
        domain: u16,
        page: Page,
        remote_port: u32,
        position: Option<Position>,
    ) -> Result<()> {
        self.disconnect(domain);
        let port = self.devices.bind(domain, remote_port);
        let port = port.with_context(|| {
            format!("cannot bind to event channel {remote_port} of domain {domain}")
        })?;
        let (mut decoder, mut outbox) = (Decoder::default(), empty_outbox(domain));
        let ring =
            match position.and_then(|position| position.at(ServerRing::shown_producer(&page))) {
                Some((position, produced)) => {
                    decoder.push(&position.partial);
                    outbox.push_raw(position.waiting);
                    ServerRing::resume(page, position.consumed, produced)
                }
                None => ServerRing::connect(page),
            };
        let peer = Peer {
            ring,
            port,
            decoder,
            outbox,
            ready: true,
            fault: None,
            complained: false,
        };
        self.records.push(peer.record(domain));
        self.peers.insert(domain, peer);
        // The domain may wait for its responses, or for somebody to listen at all.
        self.devices.notify(port);
        Ok(())
    }

    /// Forgets a ring and unmaps it.
    pub fn disconnect(&mut self, domain: u16) {
        if let Some(peer) = self.peers.remove(&domain) {
            self.devices.unbind(peer.port);
        }
    }

    /// An event came on a local port.
    pub fn event(&mut self, port: u32) {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.port == port) {
            peer.ready = true;
        }
    }

    /// Domains whose rings are to be looked at now.
    pub fn ready(&self) -> Vec<u16> {
        let kernel = self.peers.get(&0);
        let is_behind = kernel.is_some_and(|kernel| kernel.outbox.waiting() > KERNEL_HIGH);
        self.peers
            .iter()
            .filter(|(domain, peer)| peer.can_take() && (**domain == 0 || !is_behind))
            .map(|(&domain, _)| domain)
            .collect()
    }

    /// Looks at one ring.
    pub fn take(&mut self, domain: u16) -> Arrival {
        let Some(peer) = self.peers.get_mut(&domain) else {
            return Arrival::Requests(vec![]);
        };
        if peer.ring.wants_reconnection() {
            log::debug!("domain {domain} begins its xenstore connection anew");
            peer.ring.reconnect();
            (peer.decoder, peer.fault, peer.ready) = (Decoder::default(), None, false);
            peer.outbox = empty_outbox(domain);
            self.records.push(peer.record(domain));
            self.devices.notify(peer.port);
            return Arrival::Reset;
        }
        match peer.requests() {
            Ok(requests) => {
                let (consumed, partial) = (peer.ring.consumed(), peer.decoder.partial().to_vec());
                self.records.push(Record::Received {
                    domain,
                    consumed,
                    partial,
                });
                Arrival::Requests(requests)
            }
            Err(fault) => {
                peer.give_up(domain, fault);
                self.devices.notify(peer.port);
                Arrival::Reset
            }
        }
    }

    /// Puts a message at the end of what waits for a domain.
    pub fn push(&mut self, domain: u16, message: &Message) {
        let Some(peer) = self
            .peers
            .get_mut(&domain)
            .filter(|peer| peer.fault.is_none())
        else {
            return;
        };
        let bytes = peer.outbox.push(message).to_vec();
        if !bytes.is_empty() {
            self.records.push(Record::Sent { domain, bytes });
        }
    }

    /// What there is to keep of this turn.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// All that there is to keep.
    pub fn dump(&self) -> Vec<Record> {
        self.peers
            .iter()
            .map(|(&domain, peer)| peer.record(domain))
            .collect()
    }

    /// Lets the domains see this turn's outcome. Call it when the turn is kept. Gives the domains whose rings had to be
    /// given up: their watches and transactions go.
    pub fn flush(&mut self) -> Vec<u16> {
        let mut given_up = vec![];
        for (&domain, peer) in &mut self.peers {
            if peer.fault.is_some() {
                continue;
            }
            let Released { mut news, more } = peer.ring.release();
            peer.ready |= more;
            while !peer.outbox.front().is_empty() {
                match peer.ring.send(peer.outbox.front()) {
                    Ok(0) => break,
                    Ok(count) => {
                        peer.outbox.advance(count);
                        news = true;
                    }
                    Err(fault) => {
                        peer.give_up(domain, fault);
                        given_up.push(domain);
                        news = true;
                        break;
                    }
                }
            }
            let lost = peer.outbox.take_lost();
            if lost > 0 {
                peer.complain(&format!(
                    "domain {domain} does not read its ring and lost {lost} watch events"
                ));
            }
            if news {
                self.devices.notify(peer.port);
            }
        }
        given_up
    }
}

impl Peer {
    fn can_take(&self) -> bool {
        self.ready && (self.outbox.waiting() <= WAITING_HIGH || self.ring.wants_reconnection())
    }

    fn requests(&mut self) -> Result<Vec<Message>, Fault> {
        if self.fault.is_some() {
            self.ready = false;
            return Ok(vec![]);
        }
        let mut requests = vec![];
        let mut received = false;
        while requests.len() < REQUESTS_PER_TURN {
            match self.decoder.next_message() {
                Ok(Some(message)) => requests.push(message),
                Ok(None) if received => {
                    self.ready = false;
                    break;
                }
                Ok(None) => {
                    self.decoder.push(&self.ring.receive()?);
                    received = true;
                }
                Err(_) => return Err(Fault::Protocol),
            }
        }
        Ok(requests)
    }

    fn give_up(&mut self, domain: u16, fault: Fault) {
        self.complain(&format!(
            "the xenstore ring of domain {domain} is given up: {fault}"
        ));
        self.ring.show_fault(fault);
        self.fault = Some(fault);
        self.ready = false;
        self.decoder = Decoder::default();
        self.outbox = empty_outbox(domain);
    }

    /// The first complaint is a warning, later ones are for debugging only.
    fn complain(&mut self, text: &str) {
        let level = if self.complained {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        log::log!(level, "{text}");
        self.complained = true;
    }

    fn record(&self, domain: u16) -> Record {
        Record::Ring {
            domain,
            consumed: self.ring.consumed(),
            partial: self.decoder.partial().to_vec(),
            produced: self.ring.produced(),
            waiting: self.outbox.bytes(),
        }
    }
}

fn empty_outbox(domain: u16) -> Outbox {
    Outbox::new(if domain == 0 { usize::MAX } else { GUEST_LIMIT })
}

impl<D: Devices> Host for Rings<D> {
    fn introduce(&mut self, domain: u16, gfn: u64, port: u32) -> Result<(), Errno> {
        let page = self
            .devices
            .map(domain, gfn)
            .with_context(|| format!("cannot map frame {gfn:#x} of domain {domain}"));
        page.and_then(|page| self.connect(domain, page, port, None))
            .map_err(|error| {
                log::error!("domain {domain} is not introduced: {error:#}");
                Errno::Invalid
            })
    }

    fn release(&mut self, domain: u16) {
        self.disconnect(domain);
    }
}
