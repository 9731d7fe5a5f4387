//! A machine made of memory, and guests on it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;

use oxen_xenstore::ring::{GuestRing, RingPage};
use oxen_xenstore::wire::{Decoder, Kind, Message};

use crate::devices::{Devices, DomainState, Page};

#[derive(Default)]
pub struct State {
    pub pages: BTreeMap<u16, Arc<RingPage>>,
    /// Local ports: domain and its port.
    pub ports: BTreeMap<u32, u16>,
    last_port: u32,
    events: VecDeque<u32>,
    pub notified: BTreeMap<u16, usize>,
    pub states: BTreeMap<u16, DomainState>,
}

#[derive(Clone, Default)]
pub struct Machine(pub Rc<RefCell<State>>);

pub const VIRQ_PORT: u32 = 1000;

impl Machine {
    pub fn add(&self, domain: u16) -> GuestRing<Arc<RingPage>> {
        let page = Arc::new(RingPage::default());
        let mut state = self.0.borrow_mut();
        state.pages.insert(domain, page.clone());
        state.states.insert(domain, DomainState::Alive);
        GuestRing(page)
    }

    /// The domain notifies the daemon.
    pub fn kick(&self, domain: u16) {
        let mut state = self.0.borrow_mut();
        let port = state
            .ports
            .iter()
            .find(|(_, of)| **of == domain)
            .map(|(&port, _)| port);
        state.events.extend(port);
    }

    pub fn set(&self, domain: u16, to: DomainState) {
        self.0.borrow_mut().states.insert(domain, to);
        self.0.borrow_mut().events.push_back(VIRQ_PORT);
    }
}

impl Devices for Machine {
    fn own_ring(&mut self) -> io::Result<Option<(Page, u32)>> {
        Ok(self
            .0
            .borrow()
            .pages
            .get(&0)
            .map(|page| (Box::new(page.clone()) as Page, 1)))
    }

    fn map(&mut self, domain: u16, _: u64) -> io::Result<Page> {
        let state = self.0.borrow();
        let page = state
            .pages
            .get(&domain)
            .ok_or_else(|| io::Error::other("no such domain"))?;
        Ok(Box::new(page.clone()))
    }

    fn bind(&mut self, domain: u16, _: u32) -> io::Result<u32> {
        let mut state = self.0.borrow_mut();
        state.last_port += 1;
        let port = state.last_port;
        state.ports.insert(port, domain);
        Ok(port)
    }

    fn unbind(&mut self, port: u32) {
        self.0.borrow_mut().ports.remove(&port);
    }

    fn notify(&mut self, port: u32) {
        let mut state = self.0.borrow_mut();
        if let Some(domain) = state.ports.get(&port).copied() {
            *state.notified.entry(domain).or_default() += 1;
        }
    }

    fn bind_domain_ends(&mut self) -> io::Result<Option<u32>> {
        Ok(Some(VIRQ_PORT))
    }

    fn next_event(&mut self) -> io::Result<Option<u32>> {
        Ok(self.0.borrow_mut().events.pop_front())
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn state(&mut self, domain: u16) -> io::Result<DomainState> {
        Ok(self
            .0
            .borrow()
            .states
            .get(&domain)
            .copied()
            .unwrap_or(DomainState::Gone))
    }
}

/// A guest that talks and listens.
pub struct Guest {
    domain: u16,
    pub ring: GuestRing<Arc<RingPage>>,
    decoder: Decoder,
    pub unsent: Vec<u8>,
    heard: Vec<Message>,
}

impl Guest {
    pub fn new(machine: &Machine, domain: u16) -> Self {
        Self {
            domain,
            ring: machine.add(domain),
            decoder: Decoder::default(),
            unsent: vec![],
            heard: vec![],
        }
    }

    pub fn say(&mut self, request: u32, kind: Kind, transaction: u32, payload: &[u8]) {
        self.unsent
            .extend(Message::request(kind, request, transaction, payload.to_vec()).encode());
    }

    /// Moves bytes both ways as far as they go.
    pub fn pump(&mut self, machine: &Machine) {
        let count = self.ring.send(&self.unsent);
        self.unsent.drain(..count);
        self.decoder.push(&self.ring.receive());
        while let Some(message) = self.decoder.next_message().expect("messages") {
            self.heard.push(message);
        }
        machine.kick(self.domain);
    }

    pub fn heard(&mut self) -> Vec<(u32, u32, String)> {
        let text = |message: Message| {
            (
                message.kind,
                message.request,
                String::from_utf8_lossy(&message.payload).into_owned(),
            )
        };
        self.heard.drain(..).map(text).collect()
    }
}
