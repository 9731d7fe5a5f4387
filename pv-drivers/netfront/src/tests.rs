//! Against the back end's own code, with memory for rings, pages and the wire; and against a back end that says anything.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use oxen_backend::store::Changed;
use oxen_config::vif::Mac as Address;
use oxen_frontend::Text;
use oxen_netback::arena::Arena;
use oxen_netback::driver;
use oxen_netback::drops::Drops;
use oxen_netback::fakes::{Granted, Wire};
use oxen_netback::job::{self, Events};
use oxen_netback::receive::{self, End, Receive};
use oxen_netback::transmit::{self, Transmit};
use oxen_netback::vnet::{Checksum, Header};
use oxen_netif::extra::{Gso, GsoKind};
use oxen_netif::{PAGE, Status};
use oxen_ring::BackRing;
use proptest::prelude::*;

use super::*;

type Memory = Arc<[AtomicU32]>;

const OWN: [u8; 6] = [0, 0x16, 0x3E, 1, 2, 3];
const BACK: &str = "/local/domain/0/backend/oxvif/3/0";
const FRONT: &str = "device/vif/0";

fn ring() -> Memory {
    (0..PAGE / 4).map(|_| AtomicU32::new(0)).collect()
}

/// Xenstore, for both ends.
#[derive(Clone, Default)]
struct Map(BTreeMap<String, String>);

impl Store for Map {
    fn read(&mut self, path: &str) -> Option<Text> {
        Text::from(self.0.get(path)?).ok()
    }

    fn write(&mut self, path: &str, value: &str) -> bool {
        self.0.insert(path.to_owned(), value.to_owned());
        true
    }
}

impl oxen_backend::Store for Map {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&mut self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn write(&mut self, base: &str, nodes: &[(String, String)]) -> io::Result<()> {
        for (name, value) in nodes {
            self.0.insert(format!("{base}/{name}"), value.clone());
        }
        Ok(())
    }

    fn watch(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn unwatch(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn changed(&mut self) -> io::Result<Option<Changed>> {
        Ok(None)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        input()
    }
}

fn input() -> BorrowedFd<'static> {
    use std::os::fd::AsFd;
    static INPUT: std::sync::LazyLock<io::Stdin> = std::sync::LazyLock::new(io::stdin);
    INPUT.as_fd()
}

impl Map {
    fn back(&mut self, name: &str, value: &str) {
        Store::write(self, &format!("{BACK}/{name}"), value);
    }

    /// What the back end reads of the front end's nodes.
    fn agreed(&mut self, queues: u32) -> Result<(job::Guest, Vec<job::Queue>), String> {
        let mut ends = oxen_backend::Ends::new(self, BACK, FRONT);
        let mut front = ends.front();
        let guest = driver::guest(&mut front, true).map_err(|error| error.to_string())?;
        let queues = driver::queues(&mut front, queues).map_err(|error| error.to_string())?;
        Ok((guest, queues))
    }
}

/// A store with an offer of everything.
fn offering() -> (Map, Ends) {
    let mut store = Map::default();
    Store::write(&mut store, &format!("{FRONT}/backend"), BACK);
    Store::write(&mut store, &format!("{FRONT}/mac"), "00:16:3e:01:02:03");
    for (name, value) in [
        ("feature-rx-copy", "1"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("feature-no-csum-offload", "0"),
        ("feature-split-event-channels", "1"),
        ("multi-queue-max-queues", "4"),
    ] {
        store.back(name, value);
    }
    let ends = Ends::of(&mut store, KIND, 0).expect("a card");
    (store, ends)
}

#[test]
fn the_ends_come_together() {
    assert_eq!(
        Ends::of(&mut Map::default(), KIND, 0),
        Err(Refused::NoDevice)
    );
    let (mut store, ends) = offering();
    assert_eq!(offered(&mut store, &ends), Ok(None));
    store.back("state", "2");
    let offer = Offer {
        mac: Mac(OWN),
        scatter: true,
        blank4: true,
        blank6: true,
        gso4: true,
        gso6: true,
        split_channels: true,
        queues: 4,
    };
    assert_eq!(offered(&mut store, &ends), Ok(Some(offer)));
    let wants = Wants {
        scatter: true,
        gso4: true,
        blank4: true,
        ..Wants::default()
    };
    let queue = |nth: u32, channels| Queue {
        send: 8 + 2 * nth,
        receive: 9 + 2 * nth,
        channels,
    };
    let one = queue(0, Channels::One(5));
    announce(&mut store, &ends, &[one], wants).expect("taken");
    let (guest, queues) = store.agreed(4).expect("an honest guest");
    let expected = job::Guest {
        scatter: true,
        gso4: true,
        gso6: false,
        blank4: true,
        blank6: false,
        tells: true,
    };
    assert_eq!(guest, expected);
    let theirs = |nth: u32, events| job::Queue {
        transmit: 8 + 2 * nth,
        receive: 9 + 2 * nth,
        events,
    };
    assert_eq!(queues, [theirs(0, Events::One(5))]);

    let split = |port: u32| Channels::Split {
        send: port,
        receive: port + 1,
    };
    let both = [queue(1, split(6)), queue(2, split(8))];
    announce(&mut store, &ends, &both, wants).expect("taken");
    let events = |transmit| Events::Split {
        transmit,
        receive: transmit + 1,
    };
    let (_, queues) = store.agreed(4).expect("an honest guest");
    assert_eq!(queues, [theirs(1, events(6)), theirs(2, events(8))]);
    assert!(store.agreed(1).expect_err("too many").contains("2, where"));

    // Linux's back end waits for this state before it serves.
    let state = Store::read(&mut store, &format!("{FRONT}/state"));
    assert_eq!(state.as_deref(), Some("4"));
    assert_eq!(connected(&mut store, &ends), Ok(false));
    store.back("state", "4");
    assert_eq!(connected(&mut store, &ends), Ok(true));
    store.back("state", "6");
    assert_eq!(connected(&mut store, &ends), Err(Refused::Closed));
    assert_eq!(offered(&mut store, &ends), Err(Refused::Closed));
}

#[test]
fn a_back_end_that_cannot_copy_is_refused() {
    let (mut store, ends) = offering();
    store.back("state", "2");
    store.back("feature-rx-copy", "0");
    assert_eq!(offered(&mut store, &ends), Err(Refused::Nonsense));
}

#[test]
fn addresses_are_read_as_the_tools_write_them() {
    assert_eq!("00:16:3e:01:02:03".parse(), Ok(Mac(OWN)));
    assert_eq!(Mac(OWN).to_string(), "00:16:3e:01:02:03");
    for wrong in [
        "",
        "00:16:3e:01:02",
        "00:16:3e:01:02:03:04",
        "00:16:3e:01:02:103",
        "00:16:3e:01:02:+3",
        "00:16:3e:01:02:0g",
    ] {
        assert_eq!(wrong.parse::<Mac>(), Err(Refused::Nonsense), "{wrong:?}");
    }
}

/// TCP in IPv4 in so many bytes, without its checksum.
fn frame(size: usize, seed: u8) -> Vec<u8> {
    let mut frame = vec![0xFF; 6];
    frame.extend(OWN);
    frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend([0; 8 + 12]);
    frame.extend([0x50, 0, 0, 0, 0, 0, 0, 0]);
    let head = frame.len();
    frame.extend((head..size).map(|byte| (byte as u8).wrapping_add(seed)));
    frame
}

const GSO: Gso = Gso {
    kind: GsoKind::Tcp4,
    size: 1448,
};

/// A guest that sends, and its back end.
struct Sending {
    front: Sender<Memory>,
    back: Transmit<Memory, Memory>,
    pages: Granted,
    wire: Wire,
}

impl Sending {
    fn new() -> Self {
        let memory = ring();
        let front = Sender::new(memory.clone()).expect("a page");
        let back = Transmit::attach(
            memory,
            ring(),
            Some(Address(OWN)),
            Drops::new(""),
            Arena::new(transmit::PAGES),
        )
        .expect("a page");
        Self {
            front,
            back,
            pages: Granted::default(),
            wire: Wire::default(),
        }
    }

    /// Sends a frame in parts of the given lengths, in pages of its own from `grant` on, at the pages' ends.
    fn send(
        &mut self,
        bytes: &[u8],
        lengths: &[usize],
        grant: u32,
        offloads: Offloads,
    ) -> Result<FrameId, Unsent> {
        let (mut parts, mut rest, mut grants) = (Vec::new(), bytes, grant..);
        for &length in lengths.iter().chain([&PAGE; 17]) {
            let (now, later) = rest.split_at(length.min(rest.len()));
            let (false, Some(grant)) = (now.is_empty(), grants.next()) else {
                break;
            };
            let offset = PAGE - now.len();
            let mut page = vec![0; offset];
            page.extend(now);
            self.pages.0.insert(grant, page);
            parts.push(Part {
                grant,
                offset: offset as u16,
                length: now.len() as u16,
            });
            rest = later;
        }
        self.front.send(&parts, offloads)
    }

    fn turn(&mut self) {
        loop {
            let turn = (self.back)
                .turn(&mut self.pages, &mut self.wire, || true, |_| {})
                .expect("an honest guest");
            if turn.packets == 0 {
                return;
            }
        }
    }
}

#[test]
fn what_is_no_frame_is_not_sent() {
    let mut front = Sender::new(ring()).expect("a page");
    let none = Offloads::default();
    let cut = Offloads {
        checksum: false,
        gso: Some(GSO),
    };
    let part = |offset, length| Part {
        grant: 1,
        offset,
        length,
    };
    let cases: [(&[Part], Offloads, Unsent); 7] = [
        (&[], none, Unsent::Short),
        (&[part(0, 13)], none, Unsent::Short),
        (&[part(0, 60), part(7, 0)], none, Unsent::Page),
        (&[part(4095, 60)], none, Unsent::Page),
        (&[part(0, 4096); 16], none, Unsent::Long),
        (&[part(0, 60); 19], none, Unsent::Parts),
        (&[part(0, 60)], cut, Unsent::Checksum),
    ];
    for (parts, offloads, why) in cases {
        assert_eq!(front.send(parts, offloads), Err(why));
    }
    for _ in 0..256 {
        front.send(&[part(0, 60)], none).expect("room");
    }
    assert_eq!(front.send(&[part(0, 60)], none), Err(Unsent::Full));
}

#[test]
fn each_frame_is_told_how_it_ended() {
    let mut guest = Sending::new();
    let large = Offloads {
        checksum: true,
        gso: Some(GSO),
    };
    let whole = frame(9000, 1);
    let good = guest.send(&whole, &[14, 100], 10, large).expect("room");
    let mut false_address = frame(60, 2);
    false_address[6] = 2;
    let false_address = (guest.send(&false_address, &[], 20, Offloads::default())).expect("room");
    let revoked = (guest.send(&frame(5000, 3), &[], 30, Offloads::default())).expect("room");
    guest.pages.0.remove(&31);
    assert!(guest.front.publish());
    guest.turn();
    let mut collect = || guest.front.collect().expect("an honest back end");
    assert_eq!(collect(), Some((good, Status::Okay)));
    assert_eq!(collect(), Some((false_address, Status::Dropped)));
    assert_eq!(collect(), Some((revoked, Status::Error)));
    assert_eq!(collect(), None);
    let header = Header {
        checksum: Checksum::Blank {
            start: 34,
            place: 16,
        },
        gso: Some(GSO),
        headers: 54,
    };
    assert_eq!(guest.wire.sent, [(header, whole)]);
    assert!(!guest.front.sleep().expect("an honest back end"));
}

/// A guest that receives, and its back end. Grants count from 1000 on.
struct Receiving {
    front: Receiver<Memory>,
    back: Receive<Memory, Memory>,
    pages: Granted,
    wire: Wire,
    free: Vec<u32>,
}

impl Receiving {
    fn new(pages: u32) -> Self {
        let memory = ring();
        let all = job::Guest {
            scatter: true,
            gso4: true,
            gso6: true,
            blank4: true,
            blank6: true,
            tells: true,
        };
        let free: Vec<u32> = (1000..1000 + pages).collect();
        let memories = free.iter().map(|grant| (*grant, vec![0; PAGE])).collect();
        Self {
            front: Receiver::new(memory.clone()).expect("a page"),
            back: Receive::attach(
                memory,
                ring(),
                all,
                Drops::new(""),
                Arena::new(receive::PAGES),
            )
            .expect("a page"),
            pages: Granted(memories),
            wire: Wire::default(),
            free,
        }
    }

    fn give(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(grant) = self.free.pop() {
                self.front.give(grant).expect("room");
            }
        }
        let _ = self.front.publish();
    }

    fn turn(&mut self) -> End {
        let turn = self.back.turn(&mut self.pages, &mut self.wire);
        turn.expect("an honest guest").end
    }

    /// The next frame, and its bytes; its pages are free again.
    fn collect(&mut self) -> Option<(Frame, Vec<u8>)> {
        let frame = self.front.collect().expect("an honest back end")?;
        let mut bytes = Vec::new();
        for part in &frame.parts {
            let (offset, length) = (usize::from(part.offset), usize::from(part.length));
            bytes.extend(&self.pages.0[&part.grant][offset..][..length]);
            self.free.push(part.grant);
        }
        self.free.extend(&frame.unused);
        Some((frame, bytes))
    }
}

#[test]
fn a_frame_whose_page_cannot_be_filled_has_failed() {
    let mut guest = Receiving::new(4);
    guest.pages.0.remove(&1002);
    let plain = Header::default();
    for size in [5000, 60] {
        guest.wire.arriving.push_back((plain, frame(size, 0)));
    }
    guest.give(4);
    assert_eq!(guest.turn(), End::Drained);
    let (bad, _) = guest.collect().expect("a frame");
    assert!(bad.failed);
    assert_eq!((bad.parts.len(), bad.unused.as_slice()), (1, &[1002][..]));
    let (good, bytes) = guest.collect().expect("a frame");
    assert!(!good.failed && bytes == frame(60, 0));
    assert_eq!(guest.collect(), None);
}

/// A frame of one direction: how long its first parts are, its size, and whether it is to be cut.
fn frames() -> impl Strategy<Value = Vec<(Vec<usize>, usize, bool)>> {
    let lengths = prop::collection::vec(1_usize..=PAGE, 0..3);
    prop::collection::vec((lengths, 60_usize..60_000, any::<bool>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Frames of any parts come out at the back end as they went in, in order, and each is told.
    #[test]
    fn all_that_is_sent_arrives(frames in frames(), pause in 1_usize..20) {
        let mut guest = Sending::new();
        let (mut expected, mut ids, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for (nth, (lengths, size, cut)) in frames.into_iter().enumerate() {
            let bytes = frame(size, nth as u8);
            let offloads = Offloads { checksum: cut, gso: cut.then_some(GSO) };
            let id = loop {
                match guest.send(&bytes, &lengths, 32 * nth as u32, offloads) {
                    Ok(id) => break id,
                    Err(Unsent::Full) => {
                        let _ = guest.front.publish();
                        guest.turn();
                        while let Some((id, status)) = guest.front.collect().expect("honest") {
                            prop_assert_eq!(status, Status::Okay);
                            told.push(id);
                        }
                    }
                    Err(why) => panic!("{why}"),
                }
            };
            ids.push(id);
            expected.push((cut.then_some(GSO), bytes));
            if nth % pause == 0 {
                let _ = guest.front.publish();
                guest.turn();
            }
        }
        let _ = guest.front.publish();
        guest.turn();
        while let Some((id, status)) = guest.front.collect().expect("honest") {
            prop_assert_eq!(status, Status::Okay);
            told.push(id);
        }
        prop_assert_eq!(told, ids);
        let sent: Vec<_> = guest.wire.sent.into_iter().map(|(header, bytes)| (header.gso, bytes)).collect();
        prop_assert!(sent == expected);
    }

    /// Whatever arrives is received as it is, in order, however pages are given; none is lost.
    #[test]
    fn all_that_arrives_is_received(frames in frames(), steps in prop::collection::vec(1_usize..60, 1..20)) {
        const PAGES: u32 = 64;
        let mut guest = Receiving::new(PAGES);
        let checksum = Checksum::Blank { start: 34, place: 16 };
        let packets: Vec<_> = frames.into_iter().enumerate().map(|(nth, (_, size, cut))| {
            let header = Header { checksum, gso: cut.then_some(GSO), headers: 54 };
            (header, frame(size, nth as u8))
        }).collect();
        guest.wire.arriving.extend(packets.iter().cloned());
        let mut got = Vec::new();
        for step in steps.into_iter().cycle().take(2000) {
            guest.give(step);
            guest.turn();
            while let Some((frame, bytes)) = guest.collect() {
                prop_assert!(!frame.failed && frame.checksum_blank && frame.checked);
                got.push((frame.gso, bytes));
            }
            if got.len() == packets.len() {
                break;
            }
        }
        let expected: Vec<_> = packets.into_iter().map(|(header, bytes)| (header.gso, bytes)).collect();
        prop_assert!(got == expected);
        let mut free = guest.free.clone();
        free.sort_unstable();
        free.dedup();
        prop_assert_eq!(free.len(), guest.free.len(), "a page came back twice");
    }

    /// A back end that says anything is a fault at worst: no frame is told twice, no page comes back twice.
    #[test]
    fn any_answers_are_survived(
        answers in prop::collection::vec((0_u16..300, any::<i16>(), 0_u16..5000, 0_u16..16), 1..200),
    ) {
        let memory = ring();
        let mut front = Sender::new(memory.clone()).expect("a page");
        let mut back = BackRing::<_, _, 3, 1>::attach(memory, ring()).expect("a page");
        let mut open: Vec<_> = (0..60).map(|_| {
            front.send(&[Part { grant: 1, offset: 0, length: 60 }; 2], Offloads { checksum: true, gso: Some(GSO) }).expect("room")
        }).collect();
        let _ = front.publish();
        for &(id, status, ..) in &answers {
            if back.take().expect("honest").is_none() {
                break;
            }
            back.respond(&[u32::from(id) | u32::from(status.cast_unsigned() % 3) << 16]).expect("asked");
        }
        let _ = back.publish();
        while let Ok(Some((id, _))) = front.collect() {
            let before = open.len();
            open.retain(|other| *other != id);
            prop_assert_eq!(open.len() + 1, before);
        }

        let memory = ring();
        let mut front = Receiver::new(memory.clone()).expect("a page");
        let mut back = BackRing::<_, _, 2, 2>::attach(memory, ring()).expect("a page");
        for grant in 0..256 {
            front.give(grant).expect("room");
        }
        let _ = front.publish();
        for (nth, &(id, status, offset, flags)) in answers.iter().enumerate() {
            back.take().expect("honest").expect("given");
            // Right ids now and then, or no frame would ever be whole.
            let id = if id < 280 { nth as u16 } else { id };
            let words = [
                u32::from(id) | u32::from(offset) << 16,
                u32::from(flags) | u32::from((status % 4200).cast_unsigned()) << 16,
            ];
            back.respond(&words).expect("asked");
        }
        let _ = back.publish();
        let mut seen = std::collections::BTreeSet::new();
        while let Ok(Some(frame)) = front.collect() {
            for part in &frame.parts {
                prop_assert!(usize::from(part.offset) + usize::from(part.length) <= PAGE);
                prop_assert!(seen.insert(part.grant));
            }
            for grant in frame.unused {
                prop_assert!(seen.insert(grant));
            }
        }
    }
}
