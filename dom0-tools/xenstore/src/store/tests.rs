//! Behaviour of the store as its clients see it. `model` checks random sequences against a simple model.

mod bench;
mod domains;
mod model;
mod permissions;
mod transactions;
mod watches;

use super::*;
use bench::{Bench, DOM0, Machine, U1, U2};

#[test]
fn basic_requests() {
    let mut bench = Bench::new();
    assert_eq!(bench.write(DOM0, 0, "/a/b/c", "x"), Ok(()));
    assert_eq!(bench.read(DOM0, 0, "/a/b/c").as_deref(), Ok("x"));
    assert_eq!(bench.read(DOM0, 0, "/a/b").as_deref(), Ok(""));
    assert_eq!(bench.good(DOM0, 0, Kind::Directory, &["/a"]), "b\0");
    assert_eq!(bench.good(DOM0, 0, Kind::GetPermissions, &["/a"]), "n0\0");
    assert_eq!(
        bench.good(DOM0, 0, Kind::MakeDirectory, &["/a/b/c"]),
        "OK\0"
    );
    assert_eq!(bench.read(DOM0, 0, "/a/b/c").as_deref(), Ok("x"));
    assert_eq!(bench.good(DOM0, 0, Kind::Remove, &["/a/b"]), "OK\0");
    assert_eq!(bench.good(DOM0, 0, Kind::Remove, &["/a/b"]), "OK\0");
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Remove, &["/a/b/c"]),
        Err(Errno::NotFound)
    );
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Remove, &["/"]),
        Err(Errno::Invalid)
    );
    assert_eq!(bench.read(DOM0, 0, "/a/b/c"), Err(Errno::NotFound));
    assert_eq!(bench.write(DOM0, 0, "name", "Domain-0"), Ok(()));
    assert_eq!(
        bench.read(DOM0, 0, "/local/domain/0/name").as_deref(),
        Ok("Domain-0")
    );
}

#[test]
fn malformed_requests_are_refused() {
    let mut bench = Bench::new();
    for payload in [&b""[..], b"/a", b"/a\0b\0", b"\0", b"/a//b\0"] {
        assert_eq!(
            bench.raw(DOM0, 0, Kind::Read, payload),
            Err(Errno::Invalid),
            "{payload:?}"
        );
    }
    assert_eq!(bench.raw(DOM0, 0, Kind::Write, b"/a"), Err(Errno::Invalid));
    assert_eq!(
        bench.raw(DOM0, 0, Kind::SetPermissions, b"/\0"),
        Err(Errno::Invalid)
    );
    assert_eq!(
        bench.raw(DOM0, 0, Kind::SetPermissions, b"/\0q1\0"),
        Err(Errno::Invalid)
    );
    assert_eq!(bench.raw(DOM0, 9, Kind::Read, b"/\0"), Err(Errno::NotFound));
    assert_eq!(
        bench.raw(DOM0, 0, Kind::Error, b""),
        Err(Errno::Unsupported)
    );
    let unknown = Message {
        kind: 20,
        request: 5,
        transaction: 0,
        payload: vec![],
    };
    let reply = bench.store.handle(DOM0, &unknown, &mut Machine::default());
    assert_eq!(reply, [(DOM0, unknown.refusal(Errno::Unsupported))]);
    assert_eq!(
        bench
            .store
            .handle(ConnectionId::Socket(9), &unknown, &mut Machine::default()),
        []
    );
}

#[test]
fn long_directories_come_in_parts() {
    let mut bench = Bench::new();
    let mut expected: Vec<String> = (0..500).map(|n| format!("child-{n:05}")).collect();
    for name in &expected {
        bench.good(DOM0, 0, Kind::MakeDirectory, &[&format!("/d/{name}")]);
    }
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Directory, &["/d"]),
        Err(Errno::TooBig)
    );
    let (mut names, mut parts) = (String::new(), 0);
    loop {
        let part = bench.good(
            DOM0,
            0,
            Kind::DirectoryPart,
            &["/d", &names.len().to_string()],
        );
        let (_, rest) = part.split_once('\0').expect("a generation");
        parts += 1;
        if rest == "\0" || rest.ends_with("\0\0") {
            names.push_str(&rest[..rest.len() - 1]);
            break;
        }
        names.push_str(rest);
    }
    let got: Vec<_> = names
        .trim_end_matches('\0')
        .split('\0')
        .map(str::to_owned)
        .collect();
    expected.sort();
    assert_eq!(got, expected);
    assert!(parts > 1);
    let before = bench.good(DOM0, 0, Kind::DirectoryPart, &["/d", "100000"]);
    bench.good(DOM0, 0, Kind::Remove, &["/d/child-00007"]);
    assert_ne!(
        bench.good(DOM0, 0, Kind::DirectoryPart, &["/d", "100000"]),
        before
    );
    assert_eq!(
        bench
            .good(DOM0, 0, Kind::DirectoryPart, &["/d/child-00008", "0"])
            .split_once('\0')
            .map(|part| part.1),
        Some("\0")
    );
}

#[test]
fn control_commands_answer() {
    let mut bench = Bench::new();
    assert!(
        bench
            .good(DOM0, 0, Kind::Control, &["help"])
            .contains("check")
    );
    assert_eq!(bench.good(DOM0, 0, Kind::Control, &["check"]), "OK\0");
    assert_eq!(
        bench.good(DOM0, 0, Kind::Control, &["print", "hello"]),
        "OK\0"
    );
    assert!(
        bench
            .good(DOM0, 0, Kind::Control, &["stats"])
            .contains("domains 2")
    );
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Control, &["nonsense"]),
        Err(Errno::Invalid)
    );
    assert_eq!(
        bench.ask(U1, 0, Kind::Control, &["help"]),
        Err(Errno::Access)
    );
}

#[test]
fn a_restart_keeps_all_that_rings_know() {
    let mut bench = Bench::new();
    bench
        .write(U1, 0, "data/x", "1")
        .expect("its own directory");
    bench.good(U1, 0, Kind::Watch, &["data", "t"]);
    bench.good(U1, 0, Kind::Watch, &["data", "gone"]);
    bench.good(U1, 0, Kind::Unwatch, &["data", "gone"]);
    bench.good(DOM0, 0, Kind::Watch, &["/", "socket"]);
    bench.good(DOM0, 0, Kind::SetPermissions, &["@releaseDomain", "r0"]);
    let open = bench.begin(U1);
    bench.write(U1, open, "data/x", "2").expect("its own node");
    let ended = bench.begin(U1);
    bench.commit(U1, ended).expect("nothing in it");
    bench.store.disconnect(DOM0);
    bench.restart();
    bench.events.clear();
    assert_eq!(bench.read(U1, 0, "data/x").as_deref(), Ok("1"));
    // The open transaction still answers, and cannot commit: its client begins again.
    assert_eq!(bench.read(U1, open, "data/x").as_deref(), Ok("1"));
    assert_eq!(bench.commit(U1, open), Err(Errno::Again));
    assert_eq!(bench.commit(U1, ended), Err(Errno::NotFound));
    bench
        .write(DOM0, 0, "/local/domain/1/data/x", "3")
        .expect("dom0");
    assert_eq!(bench.events(), ["domain 1: data/x t"]);
    assert_eq!(
        bench.store.domains().collect::<Vec<_>>(),
        [(1, 1000, 5), (2, 1000, 5)]
    );
    assert_eq!(
        bench.good(DOM0, 0, Kind::GetPermissions, &["@releaseDomain"]),
        "r0\0"
    );
}
