//! The card's front end in this guest: its pages, its event channels, its way to xenstore.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use arrayvec::ArrayVec;
use oxen_guest_runtime::xenstore::Xenstore;
use oxen_guest_runtime::{events, grants};
use oxen_netfront::{
    Channels, Ends, KIND, Mac, Offer, Offloads, Part, Queue, Receiver, Sender, Unsent, Wants,
    announce, connected, offered,
};
use oxen_netif::{PAGE, SLOTS_MIN, Status};

const BACK_END: u16 = 0;
const WORDS: usize = PAGE / 4;
/// Pages of frames, in each direction.
pub const PAGES: usize = 32;

/// Grants of the rings, and of the first page in each direction.
pub const SEND_RING_GRANT: u32 = grants::FIRST;
pub const RECEIVE_RING_GRANT: u32 = grants::FIRST + 1;
pub const SENT_GRANT: u32 = grants::FIRST + 2;
pub const RECEIVED_GRANT: u32 = SENT_GRANT + PAGES as u32;

/// Memory that the back end sees, from a page's beginning on.
#[repr(C, align(4096))]
pub struct Shared<T, const N: usize>([T; N]);

pub static SEND_RING: Shared<AtomicU32, WORDS> = Shared([const { AtomicU32::new(0) }; WORDS]);
pub static RECEIVE_RING: Shared<AtomicU32, WORDS> = Shared([const { AtomicU32::new(0) }; WORDS]);
static SENT: Shared<AtomicU8, { PAGES * PAGE }> =
    Shared([const { AtomicU8::new(0) }; PAGES * PAGE]);
static RECEIVED: Shared<AtomicU8, { PAGES * PAGE }> =
    Shared([const { AtomicU8::new(0) }; PAGES * PAGE]);

impl<T, const N: usize> Shared<T, N> {
    fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// All of it.
    pub fn words(&self) -> &[T] {
        &self.0
    }
}

/// A frame that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its bytes.
    pub length: usize,
    /// Its checksum is not complete.
    pub blank: bool,
}

/// The card.
pub struct Card {
    pub store: Xenstore,
    pub ends: Ends,
    pub mac: Mac,
    wants: Wants,
    /// What the back end offered last.
    offer: Option<Offer>,
    /// For sent frames, and for received ones.
    pub ports: (u32, u32),
    pub sender: Sender<&'static [AtomicU32]>,
    pub receiver: Receiver<&'static [AtomicU32]>,
    /// Where the next frame is put.
    next: usize,
    /// Frames without an answer.
    in_flight: usize,
}

impl Card {
    /// With its rings granted; the back end does not know of them yet.
    pub fn new(wants: Wants) -> Self {
        let mut store = Xenstore::open();
        let ends = Ends::of(&mut store, KIND, 0).expect("this guest has no network card");
        let ports = (events::new_port(BACK_END), events::new_port(BACK_END));
        events::mask(ports.0, true);
        events::mask(ports.1, true);
        Self {
            store,
            ends,
            mac: Mac([0; 6]),
            wants,
            offer: None,
            ports,
            sender: Sender::new(SEND_RING.words()).expect("a page"),
            receiver: Receiver::new(RECEIVE_RING.words()).expect("a page"),
            next: 0,
            in_flight: 0,
        }
    }

    /// Waits for the back end's offer, says where everything is, and waits until the card is served. All pages are given.
    pub fn connect(&mut self) {
        self.connect_bare();
        for page in 0..PAGES as u32 {
            self.receiver.give(RECEIVED_GRANT + page).expect("room");
        }
        self.publish_given();
    }

    /// Connects without giving a page.
    pub fn connect_bare(&mut self) {
        let offer = loop {
            match offered(&mut self.store, &self.ends) {
                Ok(Some(offer)) => break offer,
                Ok(None) => look_again(),
                Err(error) => panic!("no network card: {error}"),
            }
        };
        assert!(offer.split_channels);
        self.mac = offer.mac;
        self.offer = Some(offer);
        self.grant_all();
        self.sender = Sender::new(SEND_RING.words()).expect("a page");
        self.in_flight = 0;
        self.receiver = Receiver::new(RECEIVE_RING.words()).expect("a page");
        let queue = Queue {
            send: SEND_RING_GRANT,
            receive: RECEIVE_RING_GRANT,
            channels: Channels::Split {
                send: self.ports.0,
                receive: self.ports.1,
            },
        };
        announce(&mut self.store, &self.ends, &[queue], self.wants).expect("own nodes");
        self.become_connected();
    }

    /// Waits until the back end serves what was announced.
    pub fn become_connected(&mut self) {
        loop {
            match connected(&mut self.store, &self.ends) {
                Ok(true) => return,
                Ok(false) => look_again(),
                Err(error) => panic!("the card is not served: {error}"),
            }
        }
    }

    fn grant_all(&self) {
        grants::grant(SEND_RING_GRANT, BACK_END, SEND_RING.address());
        grants::grant(RECEIVE_RING_GRANT, BACK_END, RECEIVE_RING.address());
        for (first, pages) in [(SENT_GRANT, &SENT), (RECEIVED_GRANT, &RECEIVED)] {
            for page in 0..PAGES as u32 {
                let address = pages.address() + u64::from(page) * PAGE as u64;
                grants::grant(first + page, BACK_END, address);
            }
        }
    }

    /// Grants a page of sent frames, again where it was revoked.
    pub fn grant_sent(&self, page: u32) {
        let address = SENT.address() + u64::from(page) * PAGE as u64;
        grants::grant(SENT_GRANT + page, BACK_END, address);
    }

    /// Puts bytes into a page of sent frames.
    pub fn fill(&self, page: usize, offset: usize, bytes: &[u8]) {
        let place = &SENT.words()[page * PAGE + offset..(page + 1) * PAGE];
        for (place, byte) in place.iter().zip(bytes) {
            place.store(*byte, Ordering::Relaxed);
        }
    }

    /// What the back end offers, once the card is connected.
    pub fn offer(&self) -> Offer {
        self.offer.expect("a connected card")
    }

    /// Sends a frame, in several parts where it is long and the back end takes that: the headers by themselves, the rest from an odd byte
    /// of a page on. Earlier frames' answers must be good.
    pub fn send(&mut self, frame: &[u8], offloads: Offloads) {
        const HEADERS: usize = 34;
        const ODD: usize = 777;
        self.collect();
        let mut parts = ArrayVec::<Part, SLOTS_MIN>::new();
        if frame.len() > 128 && self.offer().scatter {
            let (headers, rest) = frame.split_at(HEADERS);
            let (first, others) = rest.split_at(rest.len().min(PAGE - ODD));
            parts.push(self.put(0, headers));
            parts.push(self.put(ODD, first));
            parts.extend(others.chunks(PAGE).map(|bytes| self.put(0, bytes)));
        } else {
            parts.push(self.put(0, frame));
        }
        match self.sender.send(&parts, offloads) {
            Ok(_) => self.in_flight += 1,
            Err(Unsent::Full) => {}
            Err(why) => panic!("a wrong frame: {why}"),
        }
        if self.sender.publish() {
            self.notify();
        }
    }

    /// Puts a part of a frame into the next page.
    fn put(&mut self, offset: usize, bytes: &[u8]) -> Part {
        let page = self.next;
        self.next = (page + 1) % PAGES;
        self.fill(page, offset, bytes);
        Part {
            grant: SENT_GRANT + page as u32,
            offset: offset as u16,
            length: bytes.len() as u16,
        }
    }

    /// Takes the answers to frames that were sent; how many there were.
    pub fn collect(&mut self) -> usize {
        let mut count = 0;
        while let Some((_, status)) = self.sender.collect().expect("an honest back end") {
            assert!(
                status == Status::Okay,
                "an honest frame ended with {status:?}"
            );
            count += 1;
        }
        self.in_flight -= count;
        count
    }

    /// Frames whose pages are the back end's.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes a frame into `bytes`, as far as it fits, and gives its pages again.
    pub fn receive(&mut self, bytes: &mut [u8]) -> Option<Received> {
        let frame = self.receiver.collect().expect("an honest back end")?;
        let mut length = 0;
        for part in &frame.parts {
            let page = (part.grant - RECEIVED_GRANT) as usize;
            let from = &RECEIVED.words()[page * PAGE + usize::from(part.offset)..];
            let from = from.iter().take(part.length.into());
            for (place, byte) in bytes.iter_mut().skip(length).zip(from) {
                *place = byte.load(Ordering::Relaxed);
            }
            length += usize::from(part.length);
        }
        let parts = frame.parts.iter().map(|part| part.grant);
        for grant in parts.chain(frame.unused) {
            self.receiver.give(grant).expect("room");
        }
        self.publish_given();
        assert!(!frame.failed, "an honest page could not be filled");
        let large = frame.gso.is_some() || frame.parts.len() > 1;
        assert!(
            (self.wants.gso4 || !large) && (self.wants.blank4 || !frame.checksum_blank),
            "a frame that this guest does not want"
        );
        Some(Received {
            length,
            blank: frame.checksum_blank,
        })
    }

    /// Shows the back end what pages it has.
    pub fn publish_given(&mut self) {
        if self.receiver.publish() {
            events::send(self.ports.1);
        }
    }

    /// Waits for a frame, or until a system time.
    pub fn wait(&mut self, until: u64) {
        if self.receiver.sleep().expect("an honest back end") {
            return;
        }
        let result = events::poll(&[self.ports.1], until);
        assert!(result == 0, "poll: {result}");
        events::take(self.ports.1);
    }

    /// Sends an event about sent frames.
    pub fn notify(&self) {
        events::send(self.ports.0);
    }
}

/// Lets a moment pass before the next look at what is waited for.
pub fn look_again() {
    const LOOK_NANOS: u64 = 1_000_000;
    events::nap(LOOK_NANOS);
}
