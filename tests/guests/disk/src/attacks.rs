//! What no guest should do. After each the back end has closed the disk, said why, and takes it up again when this guest begins anew.

use core::fmt::Display;
use core::sync::atomic::Ordering;

use oxen_blkif::{Abi, Body, Kind, REQUEST_WORDS_64, Request, Status};
use oxen_guest_runtime::{grants, line};

use crate::device::{DATA, DATA_GRANT, Device, RING, RING_GRANT, look_again};

/// A grant that was never made.
const NOBODYS: u32 = 400;
/// Requests that are answered and lead nowhere.
const FLOOD: u32 = 3000;

/// An attack: its name, and what it does once the disk is connected.
type Attack = (&'static str, fn(&mut Device));

const ON_THE_RING: &[Attack] = &[
    ("index", |_| RING.words()[0].store(1000, Ordering::SeqCst)),
    ("index back", |_| {
        RING.words()[0].store(u32::MAX, Ordering::SeqCst);
    }),
    ("segment beyond its page", |device| {
        // One segment, sectors 0 to 8.
        raw(device, Kind::Write.number(), 1, DATA_GRANT, 0x0800);
    }),
    ("segments beyond a request", |device| {
        raw(device, Kind::Write.number(), 200, DATA_GRANT, 0x0700);
    }),
    ("indirect flush", |device| raw(device, 6, 3, DATA_GRANT, 0)),
    ("page that is not granted", |device| {
        raw(device, Kind::Write.number(), 1, NOBODYS, 0x0700);
    }),
    ("grant taken back", |device| {
        grants::revoke(DATA_GRANT + 3);
        raw(device, Kind::Read.number(), 1, DATA_GRANT + 3, 0x0700);
    }),
    ("kept page that is not granted", |device| {
        raw(device, Kind::Write.number(), 1, NOBODYS, 0x0700);
    }),
    ("list of nonsense", |device| {
        DATA.fill(0, 0xFFFF_0000);
        let body = Body::Indirect {
            kind: Kind::Read,
            count: 200,
            pages: [DATA_GRANT].into_iter().collect(),
        };
        let request = Request {
            id: 1,
            sector: 0,
            body,
        };
        put(device, &Abi::X86_64.entry(&request));
    }),
];

/// Nodes that are written instead of the right ones.
const IN_THE_STORE: &[(&str, &str)] = &[
    ("ring-ref", "400"),
    ("ring-ref", "-1"),
    ("ring-ref", "99999999999999999999"),
    ("event-channel", "4000"),
    ("event-channel", "x"),
    ("protocol", "arm-abi"),
    ("ring-page-order", "30"),
    ("multi-queue-num-queues", "4294967295"),
    ("multi-queue-num-queues", "4"),
];

/// All of them.
pub fn run(device: &mut Device) {
    for (name, attack) in ON_THE_RING {
        device.keep_grants = name.starts_with("kept");
        device.connect();
        attack(device);
        device.notify();
        closed(device, name);
    }
    for (node, value) in IN_THE_STORE {
        // Begun anew without having closed, with one node that is wrong.
        device.connect();
        write(device, "state", 1);
        again(device);
        write(device, node, value);
        write(device, "state", 3);
        closed(device, node);
        let right = if *node == "event-channel" {
            device.port
        } else {
            RING_GRANT
        };
        match *node {
            "protocol" => write(device, node, Abi::X86_64.name()),
            "ring-page-order" => write(device, node, 0),
            "multi-queue-num-queues" => write(device, node, 1),
            node => write(device, node, right),
        }
    }
    flood(device);
    line!("disk: attacks are over");
}

/// Unknown operations and places that the disk has not are answered as errors; the device stays.
fn flood(device: &mut Device) {
    grants::grant(DATA_GRANT + 3, 0, DATA.words()[3 * 1024..].as_ptr() as u64);
    let disk = device.connect();
    let mut refused = 0;
    for nth in 0..FLOOD {
        if nth % 2 == 0 {
            device.ask(Kind::Write, disk.sectors - 1, 0);
        } else {
            device.ask(Kind::Read, u64::MAX - 3, 1);
        }
        device.publish();
        if device.front.ring().room() < 8 || nth == FLOOD - 1 {
            while device.front.ring().room() < 32 {
                match device.front.collect().expect("an honest back end") {
                    Some((_, Status::Error)) => refused += 1,
                    Some(other) => panic!("the back end took it: {other:?}"),
                    None => look_again(),
                }
            }
        }
    }
    raw(device, 77, 1, DATA_GRANT, 0x0700);
    device.notify();
    let answer = loop {
        match device.front.ring().take().expect("an honest back end") {
            Some(entry) => break Abi::X86_64.parse_answer(&entry),
            None => look_again(),
        }
    };
    assert!(
        answer.is_some_and(|answer| answer.status == Status::NotSupported),
        "an unknown operation is answered with {answer:?}"
    );
    line!("disk: flood: {refused} refused, still served");
}

/// A request by its fields: operation, number of segments, and the first segment's words.
fn raw(device: &mut Device, operation: u8, count: u8, grant: u32, sectors: u32) {
    let mut entry = [0; REQUEST_WORDS_64];
    entry[0] = u32::from(operation) | u32::from(count) << 8 | 1 << 16;
    entry[6] = grant;
    entry[7] = sectors;
    put(device, &entry);
}

fn put(device: &mut Device, entry: &[u32; REQUEST_WORDS_64]) {
    device.front.ring().ask(entry).expect("room");
    device.publish();
}

fn write(device: &mut Device, node: &str, value: impl Display) {
    (device.ends.write(&mut device.nodes, node, value)).expect("own nodes can be written");
}

/// Waits until the back end has closed the device, says what it gives as the reason, and begins anew.
fn closed(device: &mut Device, name: &str) {
    while device.ends.back_state(&mut device.nodes) != 6 {
        look_again();
    }
    line!("disk: {name}: closed");
    write(device, "state", 1);
    again(device);
}

/// Until the back end has made its offer again.
fn again(device: &mut Device) {
    while device.ends.back_state(&mut device.nodes) != 2 {
        look_again();
    }
}
