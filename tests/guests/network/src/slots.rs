//! What no guest should put on its rings.

use core::sync::atomic::Ordering;

use oxen_guest_runtime::{events, grants};
use oxen_netfront::Mac;
use oxen_netif::Status;
use oxen_netif::receive;
use oxen_netif::transmit::{Flags, REQUEST, Request, Response};

use crate::attacks::served;
use crate::card::{Card, RECEIVE_RING, RECEIVED_GRANT, SEND_RING, SENT_GRANT, look_again};
use crate::frames::{self, HEADER};

/// A grant that was never made.
const NOBODYS: u32 = 400;
/// Events that say nothing.
const EVENTS: u32 = 20_000;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The only kinds of extra slots that mean something here, and that another follows.
const GSO: u32 = 1;
const MULTICAST_ADD: u32 = 2;
const HASH: u32 = 4;
const ANOTHER: u32 = 1 << 8;

/// An attack: its name, and what it does once the card is connected.
type Attack = (&'static str, fn(&mut Card));

/// Each of these closes the card.
pub const FATAL: &[Attack] = &[
    ("index", |_| {
        SEND_RING.words()[0].store(1000, Ordering::SeqCst);
    }),
    ("index back", |_| {
        SEND_RING.words()[0].store(u32::MAX, Ordering::SeqCst);
    }),
    // Noticed when a frame arrives: the neighbour tells everybody that it is there.
    ("index of the receive ring", |card| {
        RECEIVE_RING.words()[0].store(1000, Ordering::SeqCst);
        events::send(card.ports.1);
    }),
    ("part beyond its page", |card| {
        raw(card, &[slot(4000, Flags::empty(), 97)]);
    }),
    ("65535 bytes of a page", |card| {
        raw(card, &[slot(0, Flags::empty(), 65535)]);
    }),
    ("65535 bytes of two pages", |card| {
        raw(
            card,
            &[
                slot(0, Flags::MORE_DATA, 65535),
                slot(0, Flags::empty(), 4096),
            ],
        );
    }),
    ("second part beyond its page", |card| {
        raw(
            card,
            &[
                slot(0, Flags::MORE_DATA, 60),
                slot(65535, Flags::empty(), 10),
            ],
        );
    }),
    ("parts without end", |card| {
        raw(card, &[slot(0, Flags::MORE_DATA, 1000); 30]);
    }),
    ("extra of no kind", |card| extras(card, &[[6, 0, 0]])),
    ("extra of kind 0", |card| extras(card, &[[0, 0, 0]])),
    ("extras without end", |card| {
        extras(card, &[[HASH | ANOTHER, 0, 0]; 30]);
    }),
    ("segments of no kind", |card| {
        extras(card, &[[GSO | 1448 << 16, 3, 0]]);
    }),
    ("segments of nothing", |card| extras(card, &[[GSO, 1, 0]])),
    ("multicast", |card| extras(card, &[[MULTICAST_ADD, 0, 0]])),
];

/// Each of these costs a frame, or nothing.
pub const DROPPED: &[Attack] = &[
    ("page that is not granted", |card| {
        let mut request = request(0, Flags::empty(), 60);
        request.reference = NOBODYS;
        raw(card, &[request.encode()]);
        answered(card, 1, Status::Error);
        request.reference = u32::MAX;
        raw(card, &[request.encode()]);
        answered(card, 1, Status::Error);
    }),
    ("grant taken back", |card| {
        for _ in 0..200 {
            raw(card, &[slot(0, Flags::empty(), 60)]);
            grants::revoke(SENT_GRANT);
            let _ = answer(card);
            card.grant_sent(0);
        }
        grants::revoke(SENT_GRANT);
        raw(card, &[slot(0, Flags::empty(), 60)]);
        answered(card, 1, Status::Error);
        card.grant_sent(0);
    }),
    ("false address", |card| {
        let false_own = Mac([2, 0, 0, 0, 0, 0x66]);
        let said = frames::announcement(false_own, [192, 168, 77, 66]);
        for _ in 0..20 {
            card.fill(0, 0, &said);
            raw(card, &[slot(0, Flags::empty(), said.len() as u16)]);
            answered(card, 1, Status::Dropped);
        }
    }),
    ("short frames", |card| {
        for size in [0, 1, 13] {
            raw(card, &[slot(0, Flags::empty(), size)]);
            answered(card, 1, Status::Error);
        }
    }),
    ("parts longer than the frame", |card| {
        let parts = [slot(0, Flags::MORE_DATA, 100), slot(0, Flags::empty(), 101)];
        raw(card, &parts);
        answered(card, 2, Status::Error);
    }),
    ("19 parts", |card| {
        let mut parts = [slot(0, Flags::MORE_DATA, 10); 19];
        parts[0] = slot(0, Flags::MORE_DATA, 1000);
        parts[18] = slot(0, Flags::empty(), 10);
        raw(card, &parts);
        answered(card, 19, Status::Error);
    }),
    ("segments with a checksum", |card| {
        let first = slot(0, Flags::EXTRA_INFO, 60);
        raw(card, &[first, [GSO | 1448 << 16, 1, 0]]);
        answered(card, 2, Status::Error);
    }),
    ("segments of something else", |card| {
        // UDP in IPv4 as TCP, and TCP in IPv4 as in IPv6.
        for (protocol, kind) in [(UDP, 1), (TCP, 2)] {
            let mut packet: [u8; 200] = frames::packet(card.mac, protocol);
            packet[HEADER + 20 + 12] = 0x50;
            card.fill(0, 0, &packet);
            let flags = Flags::EXTRA_INFO | Flags::CHECKSUM_BLANK;
            raw(card, &[slot(0, flags, 200), [GSO | 100 << 16, kind, 0]]);
            answered(card, 2, Status::Error);
        }
    }),
    ("checksum beyond the frame", |card| {
        // No IP at all, a header of options only, and TCP and UDP that are cut off.
        let plain = frames::plain(card.mac);
        blank(card, &plain);
        let mut options: [u8; 60] = frames::packet(card.mac, TCP);
        options[HEADER] = 0x4F;
        blank(card, &options);
        let mut tcp: [u8; 60] = frames::packet(card.mac, TCP);
        tcp[HEADER + 20 + 12] = 0xF0;
        blank(card, &tcp);
        let udp: [u8; HEADER + 27] = frames::packet(card.mac, UDP);
        blank(card, &udp);
    }),
    ("frame without end", |card| {
        raw(card, &[slot(0, Flags::MORE_DATA, 60)]);
        for _ in 0..50 {
            look_again();
        }
        assert!(take(card).is_none(), "half a frame is answered");
        raw(card, &[slot(0, Flags::empty(), 10)]);
        for _ in 0..2 {
            let _ = answer(card);
        }
    }),
    ("answers' index overwritten", |card| {
        // Who takes the ring up begins where that index is: so after that.
        served(card);
        SEND_RING.words()[2].store(12345, Ordering::SeqCst);
        SEND_RING.words()[3].store(777, Ordering::SeqCst);
        card.fill(0, 0, &frames::plain(card.mac));
        raw(card, &[slot(0, Flags::empty(), 60)]);
        while SEND_RING.words()[2].load(Ordering::SeqCst) != 2 {
            look_again();
        }
        answered(card, 1, Status::Okay);
    }),
    ("pages to be filled that are not granted", |card| {
        for _ in 0..3 {
            card.receiver.give(NOBODYS).expect("room");
        }
        card.publish_given();
        for _ in 0..3 {
            let frame = loop {
                match card.receiver.collect().expect("an honest back end") {
                    Some(frame) => break frame,
                    None => look_again(),
                }
            };
            assert!(frame.failed, "a page that nobody has was filled");
        }
        // A good one is filled after all.
        card.receiver.give(RECEIVED_GRANT).expect("room");
        card.publish_given();
        while card.receive(&mut [0; 60]).is_none() {
            look_again();
        }
        raw_given(card);
    }),
    ("events", |card| {
        for _ in 0..EVENTS {
            events::send(card.ports.0);
            events::send(card.ports.1);
        }
    }),
];

fn request(offset: u16, flags: Flags, size: u16) -> Request {
    Request {
        reference: SENT_GRANT,
        offset,
        flags,
        id: 7,
        size,
    }
}

/// A slot with bytes of the first page.
fn slot(offset: u16, flags: Flags, size: u16) -> [u32; REQUEST] {
    request(offset, flags, size).encode()
}

/// Puts slots on the ring, whatever they are.
fn raw(card: &mut Card, slots: &[[u32; REQUEST]]) {
    for slot in slots {
        card.sender.ring().ask(slot).expect("room");
    }
    let _ = card.sender.publish();
    card.notify();
}

/// A frame with extra slots.
fn extras(card: &mut Card, slots: &[[u32; REQUEST]]) {
    raw(card, &[slot(0, Flags::EXTRA_INFO, 60)]);
    raw(card, slots);
}

/// A frame whose checksum is to be completed, and cannot be.
fn blank(card: &mut Card, frame: &[u8]) {
    card.fill(0, 0, frame);
    raw(card, &[slot(0, Flags::CHECKSUM_BLANK, frame.len() as u16)]);
    answered(card, 1, Status::Error);
}

/// A request of the receive ring that is no grant's at all; nothing may come of it.
fn raw_given(card: &mut Card) {
    let request = receive::Request {
        id: 0xFFFF,
        reference: u32::MAX,
    };
    card.receiver.ring().ask(&request.encode()).expect("room");
    card.publish_given();
}

fn take(card: &mut Card) -> Option<Response> {
    let answer = card.sender.ring().take().expect("an honest back end");
    answer.map(Response::decode)
}

/// The next answer.
fn answer(card: &mut Card) -> Response {
    loop {
        match take(card) {
            Some(answer) => return answer,
            None => look_again(),
        }
    }
}

/// So many answers, all of the same kind but those to slots that were no requests.
fn answered(card: &mut Card, count: usize, wanted: Status) {
    for _ in 0..count {
        let status = answer(card).status;
        assert!(
            status == wanted || status == Status::Null,
            "{status:?} instead of {wanted:?}"
        );
    }
}
