//! A store with dom0 and two domains on it.

use super::*;

pub(super) const DOM0: ConnectionId = ConnectionId::Socket(1);
pub(super) const U1: ConnectionId = ConnectionId::Domain(1);
pub(super) const U2: ConnectionId = ConnectionId::Domain(2);

/// A machine whose domains all exist.
#[derive(Default)]
pub(super) struct Machine {
    pub rings: BTreeMap<u16, (u64, u32)>,
    pub broken: bool,
}

impl Host for Machine {
    fn introduce(&mut self, domain: u16, gfn: u64, port: u32) -> Result<(), Errno> {
        if self.broken {
            return Err(Errno::Io);
        }
        self.rings.insert(domain, (gfn, port));
        Ok(())
    }

    fn release(&mut self, domain: u16) {
        self.rings.remove(&domain);
    }
}

pub(super) struct Bench {
    pub store: Store,
    pub machine: Machine,
    pub events: Outgoing,
}

impl Bench {
    /// dom0 on a socket, and domains 1 and 2 with their directories.
    pub fn new() -> Self {
        let mut bench = Self {
            store: Store::new(Quotas::default()),
            machine: Machine::default(),
            events: vec![],
        };
        bench.store.connect(DOM0);
        for domain in ["1", "2"] {
            let directory = format!("/local/domain/{domain}");
            bench.good(DOM0, 0, Kind::MakeDirectory, &[&directory]);
            bench.good(
                DOM0,
                0,
                Kind::SetPermissions,
                &[&directory, &format!("n{domain}")],
            );
            bench.good(DOM0, 0, Kind::Introduce, &[domain, "1000", "5"]);
        }
        bench.events.clear();
        bench
    }

    pub fn raw(
        &mut self,
        from: ConnectionId,
        transaction: u32,
        kind: Kind,
        payload: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let request = Message::request(kind, 77, transaction, payload.to_vec());
        let mut out = self
            .store
            .handle(from, &request, &mut self.machine)
            .into_iter();
        let (to, reply) = out
            .next()
            .expect("every request has its reply, and that comes first");
        assert_eq!(
            (to, reply.request, reply.transaction),
            (from, 77, transaction)
        );
        self.events.extend(out);
        if reply.kind == Kind::Error.number() {
            let name = String::from_utf8(reply.payload).expect("a name");
            return Err(Errno::from_name(name.trim_end_matches('\0')).expect("a known error"));
        }
        assert_eq!(reply.kind, kind.number());
        Ok(reply.payload)
    }

    pub fn ask(
        &mut self,
        from: ConnectionId,
        transaction: u32,
        kind: Kind,
        words: &[&str],
    ) -> Result<String, Errno> {
        let payload: Vec<u8> = words
            .iter()
            .flat_map(|word| word.bytes().chain([0]))
            .collect();
        self.raw(from, transaction, kind, &payload)
            .map(|answer| String::from_utf8(answer).expect("text"))
    }

    pub fn good(
        &mut self,
        from: ConnectionId,
        transaction: u32,
        kind: Kind,
        words: &[&str],
    ) -> String {
        let answer = self.ask(from, transaction, kind, words);
        answer.unwrap_or_else(|error| panic!("{from}: {kind:?} {words:?}: {error}"))
    }

    pub fn write(
        &mut self,
        from: ConnectionId,
        transaction: u32,
        path: &str,
        value: &str,
    ) -> Result<(), Errno> {
        self.raw(
            from,
            transaction,
            Kind::Write,
            format!("{path}\0{value}").as_bytes(),
        )
        .map(drop)
    }

    pub fn read(
        &mut self,
        from: ConnectionId,
        transaction: u32,
        path: &str,
    ) -> Result<String, Errno> {
        self.ask(from, transaction, Kind::Read, &[path])
    }

    pub fn begin(&mut self, from: ConnectionId) -> u32 {
        let answer = self
            .raw(from, 0, Kind::TransactionStart, b"\0")
            .expect("a transaction");
        String::from_utf8(answer)
            .expect("text")
            .trim_end_matches('\0')
            .parse()
            .expect("a number")
    }

    pub fn commit(&mut self, from: ConnectionId, transaction: u32) -> Result<String, Errno> {
        self.ask(from, transaction, Kind::TransactionEnd, &["T"])
    }

    /// Events so far, as "receiver path token".
    pub fn events(&mut self) -> Vec<String> {
        self.events
            .drain(..)
            .map(|(to, event)| describe(to, &event))
            .collect()
    }

    /// The daemon crashes and starts again.
    pub fn restart(&mut self) {
        let changes = self.store.take_changes();
        let replayed = Store::restore(Quotas::default(), changes);
        let dumped = Store::restore(Quotas::default(), self.store.dump());
        // `take_changes` was never called before: both ways lead to the same.
        let body = |store: &Store| store.dump().into_iter().skip(1).collect::<Vec<_>>();
        assert_eq!(body(&replayed), body(&dumped));
        self.store = replayed;
        assert_eq!(self.store.check(), None);
        self.store.connect(DOM0);
    }
}

pub(super) fn describe(to: ConnectionId, event: &Message) -> String {
    let strings = crate::wire::strings(&event.payload).expect("two strings");
    assert_eq!(
        (event.kind, event.request, event.transaction),
        (Kind::WatchEvent.number(), 0, 0)
    );
    let text: Vec<_> = strings
        .iter()
        .map(|string| String::from_utf8_lossy(string))
        .collect();
    format!("{to}: {}", text.join(" "))
}
