//! The daemon with rings, on a machine made of memory. A crash is the end of a daemon between two turns or in one.

mod machine;

use std::path::Path;
use std::sync::Arc;

use oxen_xenstore::client::{Client, Requests};
use oxen_xenstore::wire::Kind;
use rustix::event::Timespec;

use crate::daemon::Daemon;
use crate::devices::DomainState;
use crate::journal::Journal;
use crate::sockets::Sockets;
use machine::{Guest, Machine};

fn start(machine: &Machine, directory: &Path) -> Daemon<Machine> {
    let (journal, records) = Journal::open(&directory.join("state")).expect("a state file");
    let sockets = Sockets::open(&directory.join("socket")).expect("a socket");
    // Ports of a process that ended are closed.
    machine.0.borrow_mut().ports.clear();
    Daemon::start(machine.clone(), sockets, journal, records).expect("a daemon")
}

fn turns(daemon: &mut Daemon<Machine>) {
    for _ in 0..5 {
        daemon.turn(Some(Timespec::default())).expect("a turn");
    }
}

/// dom0 with a directory for domain 1, which is introduced.
fn with_guest(machine: &Machine, directory: &Path) -> (Daemon<Machine>, Guest, Guest) {
    let (mut kernel, guest) = (Guest::new(machine, 0), Guest::new(machine, 1));
    let mut daemon = start(machine, directory);
    kernel.say(1, Kind::MakeDirectory, 0, b"/local/domain/1\0");
    kernel.say(2, Kind::SetPermissions, 0, b"/local/domain/1\0n1\0");
    kernel.say(3, Kind::Introduce, 0, b"1\x00100\x005\0");
    kernel.pump(machine);
    turns(&mut daemon);
    kernel.pump(machine);
    assert!(kernel.heard().iter().all(|(_, _, answer)| answer == "OK\0"));
    (daemon, kernel, guest)
}

#[test]
fn rings_carry_requests_replies_and_events() {
    let (machine, directory) = (
        Machine::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let (mut daemon, mut kernel, mut guest) = with_guest(&machine, directory.path());
    guest.say(1, Kind::Watch, 0, b"x\0t\0");
    guest.say(2, Kind::Write, 0, b"x\0hello");
    guest.pump(&machine);
    turns(&mut daemon);
    guest.pump(&machine);
    let ok = |kind: Kind, request| (kind.number(), request, "OK\0".to_owned());
    let event = (Kind::WatchEvent.number(), 0, "x\0t\0".to_owned());
    // The second event equals the first, which still waits when it comes.
    assert_eq!(
        guest.heard(),
        [ok(Kind::Watch, 1), event, ok(Kind::Write, 2)]
    );
    kernel.say(9, Kind::Read, 0, b"/local/domain/1/x\0");
    kernel.pump(&machine);
    turns(&mut daemon);
    kernel.pump(&machine);
    assert_eq!(
        kernel.heard(),
        [(Kind::Read.number(), 9, "hello".to_owned())]
    );
    assert!(machine.0.borrow().notified[&1] > 0);
}

#[test]
fn what_comes_without_an_event_while_the_ring_shows_unread_bytes_is_found() {
    let (machine, directory) = (
        Machine::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let (mut daemon, _kernel, mut guest) = with_guest(&machine, directory.path());
    let soon = Some(Timespec::default());
    guest.say(1, Kind::Write, 0, b"x\0hello");
    let body = guest.unsent.split_off(16);
    guest.pump(&machine);
    daemon.work(soon).expect("work");
    // The header is read, but the page does not say so yet: Linux sends the body without an event.
    assert_eq!(guest.ring.send(&body), body.len());
    daemon.keep();
    daemon.show();
    for _ in 0..2 {
        daemon.turn(soon).expect("a turn");
    }
    guest.pump(&machine);
    assert_eq!(
        guest.heard(),
        [(Kind::Write.number(), 1, "OK\0".to_owned())]
    );
}

/// Names that guests make up are events for dom0's kernel, which loses none: whoever makes more than it reads waits for it.
#[test]
fn guests_wait_for_dom0_to_hear_of_what_they_did() {
    let (machine, directory) = (
        Machine::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let (mut daemon, mut kernel, mut guest) = with_guest(&machine, directory.path());
    kernel.say(4, Kind::Watch, 0, b"/local/domain/1\0t\0");
    kernel.pump(&machine);
    turns(&mut daemon);
    kernel.pump(&machine);
    kernel.heard();
    const NAMES: usize = 4000;
    for nth in 0..NAMES {
        let name = format!("{nth}-{}", "x".repeat(200));
        guest.say(1, Kind::Write, 0, format!("{name}\0").as_bytes());
        guest.say(1, Kind::Remove, 0, format!("{name}\0").as_bytes());
    }
    let mut answers = 0;
    for _ in 0..NAMES {
        guest.pump(&machine);
        turns(&mut daemon);
        answers += guest.heard().len();
    }
    // Two for each event, and what one turn may add.
    assert!((2000..2500).contains(&answers), "{answers} answers");
    let mut events = 0;
    for _ in 0..2 * NAMES {
        guest.pump(&machine);
        kernel.pump(&machine);
        turns(&mut daemon);
        answers += guest.heard().len();
        events += kernel.heard().len();
    }
    assert_eq!((answers, guest.unsent.len()), (2 * NAMES, 0));
    assert!(events >= NAMES, "{events} events");
}

/// Parts of a turn that a daemon gets through before it crashes.
#[derive(Clone, Copy, Debug)]
enum Crash {
    Work,
    Keep,
    Show,
}

#[test]
fn a_crash_at_any_point_loses_and_doubles_nothing() {
    for (crash, crash_every) in [Crash::Work, Crash::Keep, Crash::Show]
        .into_iter()
        .flat_map(|crash| [(crash, 2), (crash, 3), (crash, 5)])
    {
        let (machine, directory) = (
            Machine::default(),
            tempfile::tempdir().expect("a directory"),
        );
        let (mut daemon, _kernel, mut guest) = with_guest(&machine, directory.path());
        guest.say(0, Kind::Watch, 0, b"big\0t\0");
        for number in 1..40 {
            let value = vec![b'a'; usize::try_from(number).expect("small") * 40];
            guest.say(number, Kind::Write, 0, &[b"big\0", &value[..]].concat());
            guest.say(1000 + number, Kind::Read, 0, b"big\0");
        }
        for turn in 0..600 {
            guest.pump(&machine);
            let soon = Some(Timespec::default());
            if turn % crash_every != 0 {
                daemon.turn(soon).expect("a turn");
                continue;
            }
            match crash {
                Crash::Work => daemon.work(soon).expect("work"),
                Crash::Keep => {
                    daemon.work(soon).expect("work");
                    daemon.keep();
                }
                Crash::Show => daemon.turn(soon).expect("a turn"),
            }
            drop(daemon);
            daemon = start(&machine, directory.path());
        }
        guest.pump(&machine);
        let heard: Vec<_> = guest
            .heard()
            .into_iter()
            .filter(|(kind, ..)| *kind != Kind::WatchEvent.number())
            .collect();
        let numbers: Vec<u32> = heard.iter().map(|(_, request, _)| *request).collect();
        let expected: Vec<u32> = std::iter::once(0)
            .chain((1..40).flat_map(|number| [number, 1000 + number]))
            .collect();
        assert_eq!(numbers, expected, "{crash:?} every {crash_every} turns");
        for (_, request, answer) in heard.iter().filter(|(_, request, _)| *request > 1000) {
            assert_eq!(
                answer.len(),
                usize::try_from(request - 1000).expect("small") * 40
            );
        }
    }
}

#[test]
fn a_corrupt_ring_harms_nobody_else_and_can_begin_anew() {
    let (machine, directory) = (
        Machine::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let (mut daemon, mut kernel, mut guest) = with_guest(&machine, directory.path());
    guest.ring.set_indices(0x8000_0000, 0);
    machine.kick(1);
    turns(&mut daemon);
    assert_eq!(guest.ring.status(), (0, 2));
    kernel.say(5, Kind::Read, 0, b"/local/domain/0/domid\0");
    kernel.pump(&machine);
    turns(&mut daemon);
    kernel.pump(&machine);
    assert_eq!(kernel.heard(), [(Kind::Read.number(), 5, "0".to_owned())]);
    guest.ring.ask_reconnection();
    machine.kick(1);
    turns(&mut daemon);
    assert_eq!(guest.ring.status(), (0, 0));
    guest.say(1, Kind::MakeDirectory, 0, b"x\0");
    guest.pump(&machine);
    turns(&mut daemon);
    guest.pump(&machine);
    assert_eq!(guest.heard().len(), 1);
    // A message too long for the protocol.
    guest
        .unsent
        .extend([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0]);
    guest.pump(&machine);
    turns(&mut daemon);
    assert_eq!(guest.ring.status(), (0, 3));
}

#[test]
fn ends_of_domains_are_told_and_leave_nothing() {
    let (machine, directory) = (
        Machine::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let (mut daemon, mut kernel, _guest) = with_guest(&machine, directory.path());
    kernel.say(1, Kind::Watch, 0, b"@releaseDomain\0t\0");
    let mut events = |daemon: &mut Daemon<Machine>| {
        kernel.pump(&machine);
        turns(daemon);
        kernel.pump(&machine);
        kernel
            .heard()
            .iter()
            .filter(|(kind, ..)| *kind == Kind::WatchEvent.number())
            .count()
    };
    assert_eq!(events(&mut daemon), 1);
    machine.set(1, DomainState::ShutDown);
    assert_eq!(events(&mut daemon), 1);
    machine.set(1, DomainState::ShutDown);
    assert_eq!(events(&mut daemon), 0);
    drop(daemon);
    // It goes while nobody looks.
    machine.0.borrow_mut().states.insert(1, DomainState::Gone);
    let mut daemon = start(&machine, directory.path());
    assert_eq!(events(&mut daemon), 1);
    assert_eq!(
        Arc::strong_count(&machine.0.borrow().pages[&1]),
        2,
        "the page is unmapped"
    );
    assert!(!machine.0.borrow().ports.values().any(|domain| *domain == 1));
}

#[test]
fn a_guest_that_does_not_read_is_bounded_and_others_go_on() {
    let (machine, directory) = (
        Machine::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let (mut daemon, mut kernel, mut guest) = with_guest(&machine, directory.path());
    guest.say(1, Kind::Watch, 0, b"/\0t\0");
    for number in 0..400 {
        guest.say(
            number,
            Kind::Write,
            0,
            &[b"y\0", &[b'x'; 2000][..]].concat(),
        );
        guest.say(number, Kind::Read, 0, b"y\0");
    }
    for _ in 0..2000 {
        let count = guest.ring.send(&guest.unsent);
        guest.unsent.drain(..count);
        machine.kick(1);
        daemon.turn(Some(Timespec::default())).expect("a turn");
    }
    assert!(
        guest.unsent.len() > 500_000,
        "nothing more is taken from it"
    );
    kernel.say(7, Kind::Read, 0, b"/local/domain/0/name\0");
    kernel.pump(&machine);
    turns(&mut daemon);
    kernel.pump(&machine);
    assert_eq!(kernel.heard().len(), 1);
    // Once it reads, it goes on where it was.
    for _ in 0..8000 {
        guest.pump(&machine);
        daemon.turn(Some(Timespec::default())).expect("a turn");
    }
    assert_eq!(
        guest
            .heard()
            .iter()
            .filter(|(kind, ..)| *kind == Kind::Read.number())
            .count(),
        400
    );
}

#[test]
fn sockets_see_what_rings_write() {
    let (machine, directory) = (
        Machine::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let (mut daemon, _kernel, mut guest) = with_guest(&machine, directory.path());
    guest.say(1, Kind::Write, 0, b"from\0ring");
    guest.pump(&machine);
    turns(&mut daemon);
    let socket = directory.path().join("socket");
    let program =
        std::thread::spawn(move || Client::connect(socket)?.read_text("/local/domain/1/from"));
    while !program.is_finished() {
        daemon
            .turn(Some(Timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            }))
            .expect("a turn");
    }
    assert_eq!(
        program
            .join()
            .expect("no panic")
            .expect("an answer")
            .as_deref(),
        Some("ring")
    );
}
