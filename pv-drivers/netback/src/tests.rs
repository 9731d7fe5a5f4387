//! Both directions against a guest that is made up: its rings, its pages and an interface are memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use oxen_backend::Failure;
use oxen_config::vif::Mac;
use oxen_netif::extra::{Extra, Gso, GsoKind};
use oxen_netif::receive::{Flags, Request, Response};
use oxen_netif::transmit::{Flaw, slots};
use oxen_netif::{PAGE, Status};
use oxen_ring::FrontRing;
use proptest::prelude::*;

use crate::arena::Arena;
use crate::drops::{Drops, Reason};
use crate::fakes::{Granted, Wire};
use crate::job::Guest;
use crate::receive::{self, End, JOURNAL, Receive};
use crate::transmit::{self, Transmit};
use crate::vnet::{Checksum, Header};

type Memory = Arc<[AtomicU32]>;

const MAC: [u8; 6] = [0, 0x16, 0x3E, 1, 2, 3];
const ALL: Guest = Guest {
    scatter: true,
    gso4: true,
    gso6: true,
    blank4: true,
    blank6: true,
    tells: true,
};

fn drops() -> Drops {
    Drops::new("domain 3")
}

fn ring() -> Memory {
    (0..PAGE / 4).map(|_| AtomicU32::new(0)).collect()
}

/// Of a new ring.
fn journal() -> Memory {
    (0..JOURNAL).map(|_| AtomicU32::new(0)).collect()
}

/// An Ethernet packet of so many bytes from an address; TCP in IPv4, without its checksum.
fn packet(source: [u8; 6], size: usize) -> Vec<u8> {
    let mut packet = vec![0xFF; 6];
    packet.extend(source);
    packet.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0]);
    packet.extend([0; 8 + 12]);
    packet.extend([0x50, 0, 0, 0, 0, 0, 0, 0]);
    let head = packet.len();
    packet.extend((head..size).map(|byte| byte as u8));
    packet
}

/// The sending half of a guest.
struct Sender {
    front: FrontRing<Memory, 3, 1>,
    back: Transmit<Memory, Memory>,
    pages: Granted,
    wire: Wire,
    next: u32,
}

impl Sender {
    fn new() -> Self {
        let memory = ring();
        let front = FrontRing::new(memory.clone()).expect("room");
        Self {
            front,
            back: Transmit::attach(
                memory,
                journal(),
                Some(Mac(MAC)),
                drops(),
                Arena::new(transmit::PAGES),
            )
            .expect("room"),
            pages: Granted::default(),
            wire: Wire::default(),
            next: 100,
        }
    }

    /// Puts a packet into the ring, cut after the given lengths.
    fn send(&mut self, packet: &[u8], cuts: &[usize], blank: bool, gso: Option<Gso>) -> usize {
        let (mut parts, mut rest) = (Vec::new(), packet);
        for &cut in cuts.iter().chain([&PAGE; 16]) {
            let (now, later) = rest.split_at(cut.min(rest.len()).min(PAGE));
            if now.is_empty() {
                break;
            }
            let offset = PAGE - now.len();
            let mut page = vec![0; offset];
            page.extend(now);
            self.pages.0.insert(self.next, page);
            parts.push((self.next, offset as u16, now.len() as u16));
            (self.next, rest) = (self.next + 1, later);
        }
        let slots: Vec<_> = slots(&parts, blank, gso, 7).collect();
        for slot in &slots {
            self.front.ask(slot).expect("room");
        }
        let _ = self.front.publish();
        slots.len()
    }

    fn turn(&mut self) -> Result<crate::transmit::Turn, Failure> {
        (self.back).turn(&mut self.pages, &mut self.wire, || true, |_| {})
    }

    fn answers(&mut self) -> Vec<Status> {
        let mut answers = Vec::new();
        while let Some(words) = self.front.take().expect("honest") {
            answers.push(oxen_netif::transmit::Response::decode(words).status);
        }
        answers
    }
}

#[test]
fn packets_are_sent_whole_and_answered() {
    let mut guest = Sender::new();
    let small = packet(MAC, 60);
    let large = packet(MAC, 9000);
    let gso = Gso {
        kind: GsoKind::Tcp4,
        size: 1448,
    };
    guest.send(&small, &[], false, None);
    // Even the headers are cut.
    guest.send(&large, &[14, 20, 10], true, Some(gso));
    let turn = guest.turn().expect("an honest guest");
    assert_eq!((turn.packets, turn.notify), (2, true));
    let blank = Checksum::Blank {
        start: 34,
        place: 16,
    };
    let expected = Header {
        checksum: blank,
        gso: Some(gso),
        headers: 54,
    };
    assert_eq!(guest.wire.sent[0], (Header::default(), small));
    assert_eq!(guest.wire.sent[1], (expected, large));
    let okay = Status::Okay;
    assert_eq!(guest.answers()[..3], [okay, okay, Status::Null]);
    assert!(!guest.back.sleep().expect("an honest guest"));
}

#[test]
fn spoofed_flawed_and_revoked_packets_are_not_sent() {
    let mut guest = Sender::new();
    guest.send(&packet([2, 0, 0, 0, 0, 9], 60), &[], false, None);
    guest.send(&packet(MAC, 60)[..13], &[], false, None);
    let revoked = guest.next;
    guest.send(&packet(MAC, 60), &[], false, None);
    guest.pages.0.remove(&revoked);
    // Not IP: it has no checksum that could be blank.
    let mut other = packet(MAC, 60);
    other[12] = 0x88;
    guest.send(&other, &[], true, None);
    let good = packet(MAC, 200);
    guest.send(&good, &[100], true, None);
    guest.turn().expect("an honest guest");
    assert_eq!(guest.wire.sent.len(), 1);
    assert_eq!(guest.wire.sent[0].1, good);
    let (error, okay) = (Status::Error, Status::Okay);
    assert_eq!(
        guest.answers(),
        [Status::Dropped, error, error, error, okay, okay]
    );
    let source = Reason::Source(Mac([2, 0, 0, 0, 0, 9]));
    for reason in [
        source,
        Reason::Flaw(Flaw::Short),
        Reason::Grant,
        Reason::Headers,
    ] {
        assert_eq!(guest.back.drops().count(reason), 1, "{reason}");
    }
}

/// The kernel would take a packet for what it is said to be.
#[test]
fn what_is_to_be_cut_is_what_it_is_said_to_be() {
    let mut guest = Sender::new();
    let tcp = packet(MAC, 3000);
    let mut udp = tcp.clone();
    udp[23] = 17;
    for (kind, bytes) in [
        (GsoKind::Tcp6, &tcp),
        (GsoKind::Tcp4, &udp),
        (GsoKind::Tcp4, &tcp),
    ] {
        guest.send(bytes, &[], true, Some(Gso { kind, size: 1448 }));
    }
    guest.turn().expect("an honest guest");
    assert_eq!(guest.wire.sent.len(), 1);
    assert_eq!(guest.wire.sent[0].1, tcp);
    assert_eq!(guest.back.drops().count(Reason::Segments), 2);
}

#[test]
fn a_broken_ring_is_named() {
    let mut guest = Sender::new();
    guest.send(&packet(MAC, 60), &[], false, None);
    // The guest's own index runs away.
    let memory = ring();
    memory[0].store(300, Ordering::Relaxed);
    guest.back = Transmit::attach(
        memory,
        journal(),
        None,
        drops(),
        Arena::new(transmit::PAGES),
    )
    .expect("room");
    let failure = guest.turn().expect_err("no honest guest");
    assert!(
        matches!(&failure, Failure::Guest(text) if text.contains("transmit ring")),
        "{failure}"
    );
}

#[test]
fn a_successor_sends_what_was_not_answered() {
    let memory = ring();
    let mut guest = Sender::new();
    guest.front = FrontRing::new(memory.clone()).expect("room");
    guest.back = Transmit::attach(
        memory.clone(),
        journal(),
        None,
        drops(),
        Arena::new(transmit::PAGES),
    )
    .expect("room");
    for _ in 0..3 {
        guest.send(&packet(MAC, 60), &[], false, None);
    }
    guest.turn().expect("an honest guest");
    guest.answers();
    for size in [70, 80] {
        guest.send(&packet(MAC, size), &[50], false, None);
    }
    guest.back = Transmit::attach(
        memory,
        journal(),
        None,
        drops(),
        Arena::new(transmit::PAGES),
    )
    .expect("room");
    assert!(guest.back.sleep().expect("an honest guest"));
    guest.turn().expect("an honest guest");
    let sizes: Vec<usize> = guest.wire.sent.iter().map(|sent| sent.1.len()).collect();
    assert_eq!(sizes, [60, 60, 60, 70, 80]);
    assert_eq!(guest.answers().len(), 4);
}

/// Whoever served before may have died between its answers and their event.
#[test]
fn a_successor_tells_the_guest_although_there_is_nothing_to_do() {
    let memory = ring();
    let mut guest = Sender::new();
    guest.front = FrontRing::new(memory.clone()).expect("room");
    for _ in 0..2 {
        guest.back = Transmit::attach(
            memory.clone(),
            journal(),
            None,
            drops(),
            Arena::new(transmit::PAGES),
        )
        .expect("room");
        let turns = [(); 2].map(|()| guest.turn().expect("an honest guest"));
        assert_eq!(turns.map(|turn| turn.notify), [true, false]);
    }
    let mut guest = Receiver::new(ALL);
    let turns = [(); 2].map(|()| guest.turn());
    assert_eq!(turns.map(|turn| turn.notify), [true, false]);
}

/// The receiving half of a guest.
struct Receiver {
    front: FrontRing<Memory, 2, 2>,
    back: Receive<Memory, Memory>,
    pages: Granted,
    wire: Wire,
    given: u32,
}

impl Receiver {
    fn new(guest: Guest) -> Self {
        let memory = ring();
        let front = FrontRing::new(memory.clone()).expect("room");
        Self {
            front,
            back: Receive::attach(
                memory,
                journal(),
                guest,
                drops(),
                Arena::new(receive::PAGES),
            )
            .expect("room"),
            pages: Granted::default(),
            wire: Wire::default(),
            given: 0,
        }
    }

    fn give(&mut self, count: u32) {
        for _ in 0..count {
            let reference = 1000 + self.given;
            self.pages.0.insert(reference, vec![0; PAGE]);
            let id = (self.given & 255) as u16;
            (self.front.ask(&Request { id, reference }.encode())).expect("room");
            self.given += 1;
        }
        let _ = self.front.publish();
    }

    fn turn(&mut self) -> crate::receive::Turn {
        (self.back.turn(&mut self.pages, &mut self.wire)).expect("an honest guest")
    }

    /// Packets as a front end puts them together, which goes by the slots' places.
    fn packets(&mut self, taken: &mut u32) -> Vec<(Flags, Option<Gso>, Vec<u8>)> {
        let mut packets = Vec::new();
        let mut next = |front: &mut FrontRing<_, 2, 2>| {
            let words = front.take().expect("honest");
            *taken += u32::from(words.is_some());
            words.map(|words| (words, *taken - 1))
        };
        while let Some((words, place)) = next(&mut self.front) {
            let first = Response::decode(words);
            assert_eq!(u32::from(first.id), place & 255);
            let mut gso = None;
            if first.flags.contains(Flags::EXTRA_INFO) {
                let (words, _) = next(&mut self.front).expect("an extra slot");
                match Extra::decode(words) {
                    Ok((Extra::Gso(found), false)) => gso = Some(found),
                    other => panic!("{other:?}"),
                }
            }
            let mut bytes = Vec::new();
            let (mut slot, mut place) = (first, place);
            loop {
                let page = &self.pages.0[&(1000 + place)];
                bytes.extend(&page[..slot.status as usize]);
                if !slot.flags.contains(Flags::MORE_DATA) {
                    break;
                }
                let (words, at) = next(&mut self.front).expect("another part");
                (slot, place) = (Response::decode(words), at);
            }
            packets.push((first.flags, gso, bytes));
        }
        packets
    }
}

#[test]
fn packets_wait_until_the_guest_gives_pages() {
    let mut guest = Receiver::new(ALL);
    let packets: Vec<_> = [60, 9000, 100].map(|size| packet(MAC, size)).into();
    let arriving = packets
        .iter()
        .map(|packet| (Header::default(), packet.clone()));
    guest.wire.arriving.extend(arriving);
    guest.give(3);
    let turn = guest.turn();
    assert_eq!(
        (turn.end, turn.packets, turn.notify),
        (End::Starved, 1, true)
    );
    assert!(!guest.back.sleep().expect("an honest guest"));
    guest.give(1);
    let turn = guest.turn();
    assert_eq!((turn.end, turn.packets), (End::Starved, 1));
    guest.give(1);
    let turn = guest.turn();
    assert_eq!((turn.end, turn.packets), (End::Drained, 1));
    let got: Vec<_> = guest.packets(&mut 0).into_iter().map(|got| got.2).collect();
    assert_eq!(got, packets);
}

#[test]
fn what_comes_alone_does_not_wait_for_a_look_at_more() {
    let mut receiver = Receiver::new(ALL);
    receiver.give(40);
    let mut turns = |arriving: usize| {
        let packets = (0..arriving).map(|_| (Header::default(), packet([2; 6], 60)));
        receiver.wire.arriving.extend(packets);
        let mut turns = Vec::new();
        loop {
            let turn = receiver.turn();
            turns.push(turn.packets);
            if turn.end == End::Drained {
                return turns;
            }
        }
    };
    // The first is not known to be alone.
    assert_eq!(turns(1), [1]);
    assert_eq!(turns(1), [1, 0]);
    assert_eq!(turns(0), [0]);
    assert_eq!(turns(3), [1, 2]);
    assert_eq!(turns(3), [3]);
    assert_eq!(turns(1), [1]);
    assert_eq!(turns(2), [1, 1]);
    assert_eq!(turns(2), [2]);
}

/// Pages that were taken, and a packet that waits for more, are lost with whoever served; the pages come again.
#[test]
fn a_successor_gives_the_guest_pages_that_were_not_used() {
    let memory = ring();
    let mut guest = Receiver::new(ALL);
    guest.front = FrontRing::new(memory.clone()).expect("room");
    let attach = || {
        Receive::attach(
            memory.clone(),
            journal(),
            ALL,
            drops(),
            Arena::new(receive::PAGES),
        )
        .expect("room")
    };
    guest.back = attach();
    let arrives = |size| (Header::default(), packet(MAC, size));
    guest.wire.arriving.extend([arrives(60), arrives(20_000)]);
    guest.give(4);
    let turn = guest.turn();
    assert_eq!((turn.end, turn.packets), (End::Starved, 1));
    let mut taken = 0;
    assert_eq!(guest.packets(&mut taken).len(), 1);
    guest.back = attach();
    guest.wire.arriving.extend([arrives(70), arrives(5000)]);
    assert_eq!(guest.turn().packets, 2);
    let sizes: Vec<usize> = (guest.packets(&mut taken).iter())
        .map(|got| got.2.len())
        .collect();
    assert_eq!((sizes, taken), (vec![70, 5000], 4));
}

#[test]
fn a_guest_gets_nothing_that_it_cannot_take() {
    let mut guest = Receiver::new(Guest {
        scatter: false,
        gso4: false,
        gso6: false,
        blank4: false,
        blank6: false,
        tells: false,
    });
    let blank = Header {
        checksum: Checksum::Blank {
            start: 34,
            place: 16,
        },
        ..Header::default()
    };
    let cut = Header {
        gso: Some(Gso {
            kind: GsoKind::Tcp4,
            size: 1448,
        }),
        headers: 54,
        ..blank
    };
    let beyond = Header {
        checksum: Checksum::Blank {
            start: 34,
            place: 60,
        },
        ..Header::default()
    };
    guest.wire.arriving.extend([
        (blank, packet(MAC, 77)),
        (cut, packet(MAC, 3000)),
        (Header::default(), packet(MAC, 5000)),
        (beyond, packet(MAC, 77)),
    ]);
    guest.wire.unknown = 2;
    guest.give(20);
    assert_eq!(guest.turn().packets, 1);
    assert_eq!(guest.back.drops().count(Reason::Unfit), 5);
    let packets = guest.packets(&mut 0);
    let (flags, gso, bytes) = &packets[0];
    assert_eq!(
        (*flags, *gso, packets.len()),
        (Flags::DATA_VALIDATED, None, 1)
    );
    // The sum of all that counts is all ones now: its field had a pseudo header's sum of 0.
    assert_eq!(oxen_netif::headers::sum(&bytes[34..]), 0xFFFF);
}

/// Of packets, also those that end where the next one's header begins.
fn sizes() -> impl Strategy<Value = usize> {
    let near_an_end = (1_usize..17, 0_usize..12).prop_map(|(pages, less)| pages * PAGE - less);
    prop_oneof![60_usize..66_000, near_an_end]
}

proptest! {
    /// Whatever arrives, and however the guest gives pages, it gets all of it in order.
    #[test]
    fn nothing_is_lost(sizes in prop::collection::vec((sizes(), any::<bool>()), 1..40), steps in prop::collection::vec(1_u32..60, 200)) {
        let mut guest = Receiver::new(ALL);
        let gso = Gso { kind: GsoKind::Tcp4, size: 1448 };
        let checksum = Checksum::Blank { start: 34, place: 16 };
        let packets: Vec<_> = sizes.iter().map(|&(size, large)| {
            let header = Header { checksum, gso: large.then_some(gso), headers: 54 };
            (header, packet(MAC, size))
        }).collect();
        guest.wire.arriving.extend(packets.iter().cloned());
        let (mut got, mut taken) = (Vec::new(), 0);
        for step in steps {
            guest.give(step.min(guest.front.room()));
            guest.turn();
            got.extend(guest.packets(&mut taken));
            if got.len() == packets.len() {
                break;
            }
        }
        let expected: Vec<_> = packets.into_iter().map(|(header, bytes)| (header.gso, bytes)).collect();
        let found: Vec<_> = got.into_iter().map(|(_, gso, bytes)| (gso, bytes)).collect();
        prop_assert!(found == expected);
    }

    /// Any words on the ring: the guest's fault at worst, and as many answers as requests.
    #[test]
    fn any_slots_are_answered(words in prop::collection::vec((any::<u32>(), 0_u16..4200, 0_u16..16, 0_u16..5000), 1..200)) {
        let mut guest = Sender::new();
        guest.pages.0.insert(1, vec![7; PAGE]);
        for (reference, offset, flags, size) in words {
            let slot = [reference % 2, u32::from(offset) | u32::from(flags) << 16, u32::from(size) << 16];
            guest.front.ask(&slot).expect("room");
        }
        let _ = guest.front.publish();
        for _ in 0..100 {
            match guest.turn() {
                Ok(turn) if turn.packets > 0 => {}
                Ok(_) => break,
                Err(Failure::Guest(_)) => break,
                Err(other) => panic!("{other}"),
            }
        }
        prop_assert!(guest.wire.sent.is_empty(), "none has the guest's address");
    }

    #[test]
    fn headers_come_back(start: u16, place: u16, size in 1_u16.., headers: u16, six: bool) {
        let kind = if six { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        for checksum in [Checksum::Unknown, Checksum::Valid, Checksum::Blank { start, place }] {
            for gso in [None, Some(Gso { kind, size })] {
                let header = Header { checksum, gso, headers };
                prop_assert_eq!(Header::decode(header.encode()), Ok(header));
            }
        }
    }
}
