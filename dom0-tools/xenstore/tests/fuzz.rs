//! Streams of requests of any kind. `tests/fuzz` of the workspace says how inputs are made and kept.

use oxen_fuzz::Target;
use oxen_xenstore::store::{Change, ConnectionId, Host, Outgoing, Quotas, Store};
use oxen_xenstore::wire::{Decoder, Errno, Kind, Message, PAYLOAD_MAX};

const DOM0: ConnectionId = ConnectionId::Socket(1);
const GUEST: ConnectionId = ConnectionId::Domain(1);
const OTHER: ConnectionId = ConnectionId::Domain(2);

/// What of a path, of permissions or of a number the store knows.
const WORDS: [&[u8]; 16] = [
    b"/local/domain/1/",
    b"/local/domain/2/secret",
    b"@releaseDomain",
    b"@introduceDomain",
    b"/tool",
    b"n0\0",
    b"b1\0",
    b"r2\0",
    b"T\0",
    b"F\0",
    b"32752\0",
    b"65535\0",
    b"1\0",
    b"\0",
    &[0; 16],
    &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
];

struct Machine;

impl Host for Machine {
    fn introduce(&mut self, domain: u16, _: u64, _: u32) -> Result<(), Errno> {
        // Some domain that does not exist.
        if domain == 7 {
            Err(Errno::Invalid)
        } else {
            Ok(())
        }
    }

    fn release(&mut self, _: u16) {}
}

/// A store with two guests, and all that it has given out to be kept.
struct World {
    store: Store,
    kept: Vec<Change>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            store: Store::new(Quotas::default()),
            kept: Vec::new(),
        };
        world.store.connect(DOM0);
        for (kind, payload) in [
            (Kind::Introduce, &b"1\x001000\x003\0"[..]),
            (Kind::Introduce, b"2\x002000\x004\0"),
            (Kind::Write, b"/local/domain/1/name\0one"),
            (Kind::SetPermissions, b"/local/domain/1\0n1\0"),
            (Kind::Write, b"/local/domain/2/secret\0s"),
            (Kind::SetPermissions, b"/local/domain/2/secret\0n2\0"),
        ] {
            let request = Message::request(kind, 0, 0, payload.to_vec());
            assert_eq!(world.handle(DOM0, &request)[0].1.kind, kind.number());
        }
        world
    }

    fn handle(&mut self, from: ConnectionId, request: &Message) -> Outgoing {
        let out = self.store.handle(from, request, &mut Machine);
        self.kept.extend(self.store.take_changes());
        out
    }

    /// What outlives the daemon is what it has given out to be kept, by way of JSON.
    fn survives(self) {
        let lines = self
            .kept
            .iter()
            .map(|change| serde_json::to_string(change).expect("JSON"));
        let kept = lines.map(|line| serde_json::from_str(&line).expect("JSON gives it back"));
        let again = Store::restore(Quotas::default(), kept);
        assert_eq!(lasting(&again), lasting(&self.store));
    }
}

/// All but the generation, which a restart moves on.
fn lasting(store: &Store) -> Vec<Change> {
    let mut changes = store.dump();
    changes.retain(|change| !matches!(change, Change::Generation(_)));
    changes
}

/// The messages of a stream; nothing comes behind one that is too long.
fn messages(stream: &[u8]) -> Vec<Message> {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for part in stream.chunks(37) {
        decoder.push(part);
        while let Ok(Some(message)) = decoder.next_message() {
            all.push(message);
        }
    }
    all
}

/// Each request gets one reply, to whoever sent it, before all events; how it went.
fn judge(from: ConnectionId, request: &Message, out: &Outgoing) -> String {
    let (to, reply) = &out[0];
    assert_eq!((*to, reply.request), (from, request.request));
    assert_eq!(reply.transaction, request.transaction);
    for (_, event) in &out[1..] {
        assert_eq!(event.kind, Kind::WatchEvent.number());
    }
    for (_, message) in out {
        assert!(message.payload.len() <= PAYLOAD_MAX);
        assert_eq!(&messages(&message.encode()), std::slice::from_ref(message));
    }
    if reply.kind == Kind::Error.number() {
        let name = String::from_utf8_lossy(&reply.payload);
        assert!(Errno::from_name(name.trim_end_matches('\0')).is_some());
        return format!("{} {name}", request.kind);
    }
    assert_eq!(reply.kind, request.kind);
    format!("{} {}", request.kind, out.len())
}

/// Gives `step` each request of a stream; an input's outcome is what the last step told that told something. `end` looks at
/// the world behind them all.
fn fuzz(
    corpus: &str,
    step: impl Fn(&mut World, &Message) -> Option<String>,
    end: impl Fn(&mut World),
) {
    Target::new(env!("CARGO_MANIFEST_DIR"), corpus)
        .iterations(4_000)
        .words(WORDS)
        .run(|stream| {
            let mut world = World::new();
            let mut outcome = None;
            for request in messages(stream) {
                outcome = step(&mut world, &request).or(outcome);
            }
            end(&mut world);
            world.survives();
            outcome
        });
}

#[test]
fn requests_of_a_guest() {
    let step = |world: &mut World, request: &Message| {
        let out = world.handle(GUEST, request);
        assert!(out.iter().all(|(to, _)| *to == GUEST));
        Some(judge(GUEST, request, &out))
    };
    fuzz("guest_requests", step, |world| {
        let read = |path: &[u8]| Message::request(Kind::Read, 0, 0, path.to_vec());
        let secret = world.handle(OTHER, &read(b"/local/domain/2/secret\0"));
        assert_eq!(secret[0].1.payload, b"s");
    });
}

/// Requests by dom0 and by two guests: the number that a client chooses for a request says whose it is.
#[test]
fn requests_of_all() {
    let step = |world: &mut World, request: &Message| {
        let from = [DOM0, GUEST, OTHER][request.request as usize % 3];
        let out = world.handle(from, request);
        // A guest that dom0 has released has no connection.
        (!out.is_empty()).then(|| judge(from, request, &out))
    };
    fuzz("requests", step, |_| ());
}
