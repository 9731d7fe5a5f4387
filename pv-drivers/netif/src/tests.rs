//! Layouts, honest packets, and any slots at all.

use proptest::prelude::*;

use crate::extra::{Extra, Gso, GsoKind, Nonsense};
use crate::headers::{complete, sum, transport};
use crate::receive::{self, Filled, layout, slots_for};
use crate::transmit::{self, Assembler, Broken, Flaw, Packet, slots};
use crate::{PAGE, Status};

fn assemble(words: impl IntoIterator<Item = [u32; 3]>) -> Result<Vec<Packet>, Broken> {
    let mut assembler = Assembler::new();
    let mut packets = Vec::new();
    for slot in words {
        if assembler.slot(slot)? {
            packets.push(assembler.packet().clone());
        }
    }
    Ok(packets)
}

/// Slots as a peer writes them: page 7, then offset, flags, id and size.
fn slot(offset: u16, flags: u16, id: u16, size: u16) -> [u32; 3] {
    [
        7,
        u32::from(offset) | u32::from(flags) << 16,
        u32::from(id) | u32::from(size) << 16,
    ]
}

#[test]
fn fields_are_where_the_public_header_has_them() {
    let request = transmit::Request::decode([0x0102_0304, 0x0005_0607, 0x0809_0A0B]);
    assert_eq!(request.reference, 0x0102_0304);
    assert_eq!((request.offset, request.flags.bits()), (0x0607, 5));
    assert_eq!((request.id, request.size), (0x0A0B, 0x0809));
    let response = transmit::Response {
        id: 3,
        status: Status::Dropped,
    };
    assert_eq!(response.encode(), [0xFFFE_0003]);
    let request = receive::Request::decode([0xFFFF_0009, 77]);
    assert_eq!((request.id, request.reference), (9, 77));
    let response = receive::Response {
        id: 9,
        offset: 2,
        flags: receive::Flags::MORE_DATA | receive::Flags::DATA_VALIDATED,
        status: -1,
    };
    assert_eq!(response.encode(), [0x0002_0009, 0xFFFF_0005]);
    let gso = Gso {
        kind: GsoKind::Tcp6,
        size: 1448,
    };
    assert_eq!(gso.encode(), [0x05A8_0001, 2]);
    assert_eq!(Extra::decode(gso.encode()), Ok((Extra::Gso(gso), false)));
    assert_eq!(
        Extra::decode([0x2211_0102, 0x6655_4433]),
        Ok((
            Extra::MulticastAdd([0x11, 0x22, 0x33, 0x44, 0x55, 0x66]),
            true
        ))
    );
}

#[test]
fn every_slot_is_answered_in_its_place() {
    let gso = Gso {
        kind: GsoKind::Tcp4,
        size: 1448,
    };
    let parts = [(1, 100, 66), (2, 0, 4096), (3, 0, 10)];
    let packets = assemble(slots(&parts, true, Some(gso), 40)).expect("an honest peer");
    let [packet] = &packets[..] else {
        panic!("one packet: {packets:?}");
    };
    let answers: Vec<_> = packet.head.responses(&packet.parts, Status::Okay).collect();
    let answers: Vec<_> = answers.iter().map(|a| (a.id, a.status)).collect();
    let okay = Status::Okay;
    assert_eq!(
        answers,
        [(40, okay), (0, Status::Null), (41, okay), (42, okay)]
    );
}

#[test]
fn what_no_kernel_does_is_the_peers_end() {
    let cases: [(&[[u32; 3]], Broken); 6] = [
        (
            &[slot(4000, 0, 1, 97)],
            Broken::Page {
                offset: 4000,
                length: 97,
            },
        ),
        (
            &[slot(0, 4, 1, 200), slot(4096, 0, 2, 1)],
            Broken::Page {
                offset: 4096,
                length: 1,
            },
        ),
        (
            &[slot(0, 8, 1, 100), [0x0000_0006, 0, 0]],
            Broken::Extra(Nonsense::Kind(6)),
        ),
        (
            &[slot(0, 8, 1, 100), [0x0000_0001, 1, 0]],
            Broken::Extra(Nonsense::NoPayload),
        ),
        (
            &[slot(0, 8, 1, 100), [0x0010_0001, 3, 0]],
            Broken::Extra(Nonsense::GsoKind(3)),
        ),
        (&[slot(0, 8, 1, 100), [2, 0, 0]], Broken::Multicast),
    ];
    for (words, broken) in cases {
        assert_eq!(assemble(words.iter().copied()), Err(broken), "{words:x?}");
    }
    let endless = std::iter::once(slot(0, 4, 1, 1000)).chain(std::iter::repeat(slot(0, 4, 2, 1)));
    assert_eq!(assemble(endless), Err(Broken::Slots));
    let hashes = std::iter::once(slot(0, 8, 1, 100)).chain(std::iter::repeat([0x0104, 0, 0]));
    assert_eq!(assemble(hashes), Err(Broken::Extras));
}

#[test]
fn a_packet_with_a_flaw_costs_only_itself() {
    let gso = [0x0064_0001, 1, 0];
    let many = |count: usize| {
        let rest = std::iter::repeat_n(slot(0, 4, 2, 10), count - 2);
        let first = std::iter::once(slot(0, 4, 1, 1000));
        first
            .chain(rest)
            .chain([slot(0, 0, 3, 10)])
            .collect::<Vec<_>>()
    };
    let cases = [
        (vec![slot(0, 0, 1, 13)], Some(Flaw::Short)),
        (vec![slot(0, 0, 1, 0)], Some(Flaw::Short)),
        (
            vec![slot(0, 4, 1, 100), slot(0, 0, 2, 101)],
            Some(Flaw::Parts),
        ),
        (vec![slot(0, 8, 1, 100), gso], Some(Flaw::Checksum)),
        (many(18), None),
        (many(19), Some(Flaw::Slots)),
        (many(20), Some(Flaw::Slots)),
    ];
    for (words, flaw) in cases {
        let count = words.len();
        let packets = assemble(words).expect("no fault of the peer");
        assert_eq!(packets.len(), 1);
        assert_eq!(packets[0].head.flaw, flaw);
        assert_eq!(
            packets[0]
                .head
                .responses(&packets[0].parts, Status::Error)
                .count(),
            count
        );
    }
}

/// An IPv4 or IPv6 packet with a TCP or UDP header, the pseudo header's sum in the checksum's place, tags before it.
fn example(six: bool, tcp: bool, tags: usize, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x52; 12];
    for _ in 0..tags {
        packet.extend([0x81, 0, 0, 7]);
    }
    let header = if tcp { 20 } else { 8 };
    let length = (header + payload.len()) as u16;
    let protocol = if tcp { 6 } else { 17 };
    let addresses: Vec<u8> = (1..=if six { 32 } else { 8 }).collect();
    if six {
        packet.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
        packet.extend((length + 8).to_be_bytes());
        // A header of options stands between.
        packet.extend([60, 64]);
        packet.extend(&addresses);
        packet.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
    } else {
        packet.extend([0x08, 0, 0x45, 0]);
        packet.extend((length + 20).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(&addresses);
    }
    let mut transport = vec![0; header];
    if tcp {
        transport[12] = 0x50;
    }
    let mut pseudo = addresses;
    pseudo.extend(length.to_be_bytes());
    pseudo.extend([0, protocol]);
    let place = if tcp { 16 } else { 6 };
    transport[place..place + 2].copy_from_slice(&sum(&pseudo).to_be_bytes());
    packet.extend(transport);
    packet.extend(payload);
    packet
}

/// The sum of the packet with its pseudo header: all ones if its checksum is right.
fn checks(packet: &[u8], six: bool, start: usize) -> bool {
    let protocol = if packet.len() > start && packet[start + 12] == 0x50 {
        6
    } else {
        17
    };
    let addresses = if six { start - 40 } else { start - 8 };
    let count = if six { 32 } else { 8 };
    let mut all = packet[addresses..addresses + count].to_vec();
    all.extend(((packet.len() - start) as u16).to_be_bytes());
    all.extend([0, protocol]);
    all.extend(&packet[start..]);
    sum(&all) == 0xFFFF
}

proptest! {
    #[test]
    fn checksums_are_found_and_completed(
        six: bool, tcp: bool, tags in 0_usize..3, payload in prop::collection::vec(any::<u8>(), 16..200),
    ) {
        let mut packet = example(six, tcp, tags, &payload);
        // The first byte of the payload tells the two protocols apart for `checks`.
        if !tcp {
            let at = packet.len() - payload.len() + 4;
            packet[at] = 0;
        }
        let found = transport(&packet).expect("it has one");
        prop_assert_eq!(usize::from(found.payload), packet.len() - payload.len());
        let start = usize::from(found.start);
        prop_assert!(complete(&mut packet, start, found.checksum.into()));
        prop_assert!(checks(&packet, six, start));
        // A header that is cut off is none.
        prop_assert_eq!(transport(&packet[..usize::from(found.payload) - 1]), None);
    }

    #[test]
    fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..300), start: u8, place: u8) {
        if let Some(found) = transport(&bytes) {
            prop_assert!(usize::from(found.payload) <= bytes.len());
            prop_assert!(found.start + found.checksum + 2 <= found.payload);
        }
        let mut copy = bytes.clone();
        let (start, place) = (usize::from(start), usize::from(place));
        prop_assert_eq!(complete(&mut copy, start, place), start + place + 2 <= bytes.len());
    }

    #[test]
    fn honest_packets_come_back(
        parts in prop::collection::vec((any::<u32>(), 0_u16..2000, 14_u16..2000), 1..=18),
        blank: bool,
        size in prop::option::of(1_u16..),
    ) {
        let gso = size.filter(|_| blank).map(|size| Gso { kind: GsoKind::Tcp4, size });
        let packets = assemble(slots(&parts, blank, gso, 0xFFF0)).expect("an honest peer");
        prop_assert_eq!(packets.len(), 1);
        let packet = &packets[0];
        prop_assert_eq!(packet.head.flaw, None);
        prop_assert_eq!((packet.head.checksum_blank, packet.head.gso), (blank, gso));
        let found: Vec<_> = packet.parts.iter().map(|p| (p.reference, p.offset, p.length)).collect();
        prop_assert_eq!(found, parts);
    }

    #[test]
    fn any_slots_make_sound_packets_or_a_broken_peer(
        words in prop::collection::vec((any::<u32>(), any::<u16>(), 0_u16..16, any::<u16>(), 0_u16..9000), 1..60),
    ) {
        let mut assembler = Assembler::new();
        let mut open = 0;
        for (reference, offset, flags, id, size) in words {
            open += 1;
            let mut words = slot(offset % 5000, flags, id, size);
            words[0] = reference;
            match assembler.slot(words) {
                Ok(false) => {}
                Ok(true) => {
                    let packet = assembler.packet();
                    sound(packet);
                    prop_assert_eq!(packet.head.responses(&packet.parts, Status::Okay).count(), open);
                    open = 0;
                }
                Err(_) => break,
            }
        }
    }

    #[test]
    fn received_packets_are_laid_out_without_gaps(size in 1_usize..70_000, gso: bool) {
        let gso = gso.then_some(Gso { kind: GsoKind::Tcp6, size: 1 });
        let mut at = 0;
        let all: Vec<_> = layout(size, receive::Flags::CHECKSUM_BLANK, gso).collect();
        prop_assert_eq!(all.len(), slots_for(size, gso));
        for (nth, filled) in all.iter().enumerate() {
            match *filled {
                Filled::Data { start, length, flags } => {
                    prop_assert_eq!(start, at);
                    at += usize::from(length);
                    prop_assert!(usize::from(length) <= PAGE);
                    prop_assert_eq!(flags.contains(receive::Flags::MORE_DATA), at < size);
                    prop_assert_eq!(flags.contains(receive::Flags::EXTRA_INFO), nth == 0 && gso.is_some());
                    prop_assert_eq!(flags.contains(receive::Flags::CHECKSUM_BLANK), nth == 0);
                }
                Filled::Extra(extra) => prop_assert_eq!((nth, Some(extra)), (1, gso)),
            }
        }
        prop_assert_eq!(at, size);
    }
}

/// What holds of every packet that is to be sent.
fn sound(packet: &Packet) {
    if packet.head.flaw.is_some() {
        return;
    }
    let total: usize = packet.parts.iter().map(|part| part.length as usize).sum();
    assert_eq!(total, usize::from(packet.head.size));
    for part in &packet.parts {
        assert!(part.offset as usize + part.length as usize <= PAGE);
    }
}
