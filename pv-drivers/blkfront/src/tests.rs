//! Against a back end that is made up.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayString;
use oxen_blkif::{RESPONSE_WORDS_64, Response};
use oxen_ring::BackRing;

use super::*;

type Memory = Arc<[AtomicU32]>;

#[derive(Default)]
struct Map(BTreeMap<String, String>);

impl Store for Map {
    fn read(&mut self, path: &str) -> Option<ArrayString<128>> {
        ArrayString::from(self.0.get(path)?).ok()
    }

    fn write(&mut self, path: &str, value: &str) -> bool {
        self.0.insert(path.to_owned(), value.to_owned());
        true
    }
}

const BACK: &str = "/local/domain/0/backend/oxblk/3/51712";

impl Map {
    fn back(&mut self, name: &str, value: &str) {
        self.write(&format!("{BACK}/{name}"), value);
    }
}

#[test]
fn the_ends_come_together() {
    let mut store = Map::default();
    assert_eq!(Ends::of(&mut store, KIND, 51712), Err(Refused::NoDevice));
    store.write("device/vbd/51712/backend", BACK);
    let ends = Ends::of(&mut store, KIND, 51712).expect("a disk");
    assert_eq!(offered(&mut store, &ends), Ok(false));
    store.back("state", "2");
    assert_eq!(offered(&mut store, &ends), Ok(true));
    assert_eq!(keep_grants(&mut store, &ends, true), Ok(false));
    store.back("feature-persistent", "1");
    assert_eq!(keep_grants(&mut store, &ends, false), Ok(false));
    assert_eq!(keep_grants(&mut store, &ends, true), Ok(true));
    announce(&mut store, &ends, 8, 5).expect("taken");
    for (name, value) in [
        ("ring-ref", "8"),
        ("event-channel", "5"),
        ("protocol", "x86_64-abi"),
        ("feature-persistent", "1"),
        ("state", "3"),
    ] {
        let node = store.read(&format!("device/vbd/51712/{name}"));
        assert_eq!(node.as_deref(), Some(value), "{name}");
    }
    assert_eq!(connected(&mut store, &ends), Ok(None));
    store.back("state", "4");
    assert_eq!(connected(&mut store, &ends), Err(Refused::Nonsense));
    store.back("sectors", "4096");
    store.back("info", "4");
    let disk = Disk {
        sectors: 4096,
        read_only: true,
        flush: false,
    };
    assert_eq!(connected(&mut store, &ends), Ok(Some(disk)));
    store.back("feature-flush-cache", "1");
    let flushed = Disk {
        flush: true,
        ..disk
    };
    assert_eq!(connected(&mut store, &ends), Ok(Some(flushed)));
    store.back("state", "6");
    assert_eq!(connected(&mut store, &ends), Err(Refused::Closed));
}

#[test]
fn requests_are_answered_and_lies_are_noticed() {
    let memory: Memory = (0..1024).map(|_| AtomicU32::new(0)).collect();
    let mut front = Front::new(memory.clone()).expect("a page");
    let journal: Memory = (0..1024).map(|_| AtomicU32::new(0)).collect();
    let mut back = BackRing::<_, _, REQUEST_WORDS_64, RESPONSE_WORDS_64>::attach(memory, journal)
        .expect("a page");
    let write = front.ask(Kind::Write, 8, 9, (0, 7)).expect("room");
    let flush = front.flush().expect("room");
    assert!(matches!(
        front.ask(Kind::Read, 0, 9, (3, 8)),
        Err(Unasked::Wrong(_))
    ));
    assert!(front.publish());
    let mut answer = |id: usize, operation| {
        back.take().expect("honest").expect("a request");
        let response = Response {
            id: id as u64,
            operation,
            status: Status::Okay,
        };
        back.respond(&Abi::X86_64.answer(&response)).expect("asked");
        let _ = back.publish();
    };
    answer(flush, Kind::Flush.number());
    assert_eq!(front.collect(), Ok(Some((flush, Status::Okay))));
    assert_eq!(front.collect(), Ok(None));
    answer(write, Kind::Read.number());
    assert_eq!(front.collect(), Err(Fault::Response));
}

#[test]
fn a_full_ring_takes_no_more() {
    let memory: Memory = (0..1024).map(|_| AtomicU32::new(0)).collect();
    let mut front = Front::new(memory).expect("a page");
    for _ in 0..32 {
        front.flush().expect("room");
    }
    assert_eq!(front.flush(), Err(Unasked::Full));
}
