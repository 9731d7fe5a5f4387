//! Who hears of what, and when.

use super::*;

#[test]
fn a_watch_begins_with_an_event_that_follows_its_reply() {
    let mut bench = Bench::new();
    // `raw` checks that the reply comes first.
    bench.good(DOM0, 0, Kind::Watch, &["/nowhere", "t"]);
    assert_eq!(bench.events(), ["socket 1: /nowhere t"]);
    bench.good(U1, 0, Kind::Watch, &["device", "t"]);
    assert_eq!(bench.events(), ["domain 1: device t"]);
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Watch, &["/nowhere", "t"]),
        Err(Errno::Exists)
    );
    bench.good(DOM0, 0, Kind::Watch, &["/nowhere", "u"]);
    bench.good(DOM0, 0, Kind::Unwatch, &["/nowhere", "t"]);
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Unwatch, &["/nowhere", "t"]),
        Err(Errno::NotFound)
    );
}

#[test]
fn changes_fire_at_the_path_and_above() {
    let mut bench = Bench::new();
    bench.good(DOM0, 0, Kind::Watch, &["/a/b", "t"]);
    bench.events();
    bench.write(DOM0, 0, "/a/b/c/d", "").expect("dom0");
    assert_eq!(bench.events(), ["socket 1: /a/b/c/d t"]);
    bench.write(DOM0, 0, "/a/b/c", "x").expect("dom0");
    bench.good(DOM0, 0, Kind::SetPermissions, &["/a/b", "r0"]);
    bench.good(DOM0, 0, Kind::MakeDirectory, &["/a/b/c"]);
    bench.write(DOM0, 0, "/a/bc", "x").expect("dom0");
    bench.write(DOM0, 0, "/a", "x").expect("dom0");
    assert_eq!(bench.events(), ["socket 1: /a/b/c t", "socket 1: /a/b t"]);
    bench.good(DOM0, 0, Kind::Remove, &["/a/b/c"]);
    assert_eq!(bench.events(), ["socket 1: /a/b/c t"]);
}

#[test]
fn removal_of_an_ancestor_fires_at_the_watched_path() {
    let mut bench = Bench::new();
    bench.write(DOM0, 0, "/a/b/c", "").expect("dom0");
    bench.good(DOM0, 0, Kind::Watch, &["/a/b", "t"]);
    bench.good(DOM0, 0, Kind::Watch, &["/", "root"]);
    bench.good(DOM0, 0, Kind::Watch, &["/a/x", "missing"]);
    bench.events();
    bench.good(DOM0, 0, Kind::Remove, &["/a"]);
    assert_eq!(bench.events(), ["socket 1: /a root", "socket 1: /a/b t"]);
}

#[test]
fn relative_watches_name_relative_paths() {
    let mut bench = Bench::new();
    bench.good(U1, 0, Kind::Watch, &["device", "rel"]);
    bench.good(U1, 0, Kind::Watch, &["/local/domain/1/device", "abs"]);
    bench.events();
    bench
        .write(U1, 0, "device/vbd/state", "1")
        .expect("its own");
    assert_eq!(
        bench.events(),
        [
            "domain 1: device/vbd/state rel",
            "domain 1: /local/domain/1/device/vbd/state abs"
        ]
    );
}

#[test]
fn what_may_not_be_read_is_not_told() {
    let mut bench = Bench::new();
    bench.good(U2, 0, Kind::Watch, &["/local/domain/1", "spy"]);
    bench.events();
    bench.write(U1, 0, "secret", "1").expect("its own");
    assert_eq!(bench.events(), [] as [&str; 0]);
    // Both becoming readable and ceasing to be so are told.
    bench.good(U1, 0, Kind::SetPermissions, &["secret", "n1", "r2"]);
    bench.good(U1, 0, Kind::SetPermissions, &["secret", "n1"]);
    bench.good(U1, 0, Kind::Remove, &["secret"]);
    assert_eq!(
        bench.events(),
        vec!["domain 2: /local/domain/1/secret spy"; 2]
    );
}

#[test]
fn transactions_fire_when_they_commit() {
    let mut bench = Bench::new();
    bench.good(DOM0, 0, Kind::Watch, &["/a", "t"]);
    bench.events();
    let (kept, dropped) = (bench.begin(DOM0), bench.begin(DOM0));
    bench.write(DOM0, kept, "/a/b", "1").expect("dom0");
    bench.write(DOM0, dropped, "/a/c", "1").expect("dom0");
    assert!(bench.events().is_empty());
    bench.good(DOM0, dropped, Kind::TransactionEnd, &["F"]);
    assert!(bench.events().is_empty());
    bench.commit(DOM0, kept).expect("no conflict");
    assert_eq!(bench.events(), ["socket 1: /a/b t"]);
}

#[test]
fn a_reset_or_a_closed_connection_takes_its_watches_along() {
    let mut bench = Bench::new();
    let other = ConnectionId::Socket(2);
    bench.store.connect(other);
    for from in [DOM0, other, U1] {
        bench.good(from, 0, Kind::Watch, &["/local/domain/1/x", "t"]);
    }
    let open = bench.begin(U1);
    bench.store.disconnect(other);
    bench.raw(U1, 0, Kind::ResetWatches, b"\0").expect("always");
    assert_eq!(bench.commit(U1, open), Err(Errno::NotFound));
    bench.events();
    bench.write(U1, 0, "x", "1").expect("its own");
    assert_eq!(bench.events(), ["socket 1: /local/domain/1/x t"]);
}

#[test]
fn an_event_too_long_for_a_message_is_left_out() {
    let mut bench = Bench::new();
    bench.good(DOM0, 0, Kind::Watch, &["/a", &"t".repeat(4000)]);
    bench.events();
    bench
        .write(DOM0, 0, &format!("/a/{}", "b".repeat(200)), "")
        .expect("dom0");
    assert!(bench.events().is_empty());
}
