//! What unprivileged domains may do, and how much of it.

use super::*;

#[test]
fn domains_see_only_what_they_are_allowed_to() {
    let mut bench = Bench::new();
    bench.write(U1, 0, "own", "1").expect("its own directory");
    assert_eq!(
        bench.good(DOM0, 0, Kind::GetPermissions, &["/local/domain/1/own"]),
        "n1\0"
    );
    assert_eq!(bench.read(U2, 0, "/local/domain/1/own"), Err(Errno::Access));
    // Whether something exists is told only to those who may read around it.
    assert_eq!(
        bench.read(U2, 0, "/local/domain/1/nothing"),
        Err(Errno::Access)
    );
    assert_eq!(bench.read(U1, 0, "nothing"), Err(Errno::NotFound));
    assert_eq!(
        bench.write(U1, 0, "/local/domain/2/x", "1"),
        Err(Errno::Access)
    );
    assert_eq!(bench.write(U1, 0, "/new", "1"), Err(Errno::Access));
    assert_eq!(
        bench.ask(U1, 0, Kind::Remove, &["/local/domain/2"]),
        Err(Errno::Access)
    );
    assert_eq!(
        bench.ask(U1, 0, Kind::Directory, &["/local/domain"]),
        Err(Errno::Access)
    );
}

#[test]
fn listed_domains_get_what_the_list_says() {
    let mut bench = Bench::new();
    bench.write(U1, 0, "shared", "1").expect("its own");
    bench.good(U1, 0, Kind::SetPermissions, &["shared", "n1", "r2"]);
    assert_eq!(
        bench.read(U2, 0, "/local/domain/1/shared").as_deref(),
        Ok("1")
    );
    assert_eq!(
        bench.write(U2, 0, "/local/domain/1/shared", "2"),
        Err(Errno::Access)
    );
    bench.good(U1, 0, Kind::SetPermissions, &["shared", "n1", "b2"]);
    assert_eq!(
        bench.write(U2, 0, "/local/domain/1/shared/of2", "2"),
        Ok(())
    );
    // A child takes over the list, under its creator.
    assert_eq!(
        bench.good(
            DOM0,
            0,
            Kind::GetPermissions,
            &["/local/domain/1/shared/of2"]
        ),
        "n2\0b2\0"
    );
    bench
        .write(DOM0, 0, "/local/domain/1/shared/of0", "")
        .expect("dom0");
    assert_eq!(
        bench.good(
            DOM0,
            0,
            Kind::GetPermissions,
            &["/local/domain/1/shared/of0"]
        ),
        "n1\0b2\0"
    );
}

#[test]
fn only_owners_set_permissions_and_only_dom0_changes_owners() {
    let mut bench = Bench::new();
    bench.write(U1, 0, "x", "").expect("its own");
    bench.good(U1, 0, Kind::SetPermissions, &["x", "b1"]);
    assert_eq!(
        bench.ask(U2, 0, Kind::SetPermissions, &["/local/domain/1/x", "b2"]),
        Err(Errno::Access)
    );
    assert_eq!(
        bench.ask(U1, 0, Kind::SetPermissions, &["x", "n2"]),
        Err(Errno::NotPermitted)
    );
    bench.good(DOM0, 0, Kind::SetPermissions, &["/local/domain/1/x", "n2"]);
    assert_eq!(bench.read(U1, 0, "x"), Err(Errno::Access));
    assert_eq!(
        bench.ask(U1, 0, Kind::SetPermissions, &["@releaseDomain", "b1"]),
        Err(Errno::Access)
    );
    assert_eq!(
        bench.ask(U1, 0, Kind::GetPermissions, &["@releaseDomain"]),
        Err(Errno::Access)
    );
}

#[test]
fn quotas_bind_domains_and_not_dom0() {
    let mut bench = Bench::new();
    let quotas = Quotas {
        nodes: 4,
        watches: 2,
        value: 10,
        transactions: 2,
        transaction_size: 6,
        permissions: 2,
    };
    bench.store.quotas = quotas;
    // Its directory is its first node.
    assert_eq!(bench.write(U1, 0, "a/b/c/d", ""), Err(Errno::NoSpace));
    assert_eq!(bench.write(U1, 0, "a/b/c", ""), Ok(()));
    assert_eq!(bench.write(U1, 0, "e", ""), Err(Errno::NoSpace));
    assert_eq!(
        bench.ask(U1, 0, Kind::MakeDirectory, &["e"]),
        Err(Errno::NoSpace)
    );
    assert_eq!(bench.write(DOM0, 0, "/local/domain/1/e", ""), Ok(()));
    bench.good(U1, 0, Kind::Remove, &["a/b"]);
    assert_eq!(bench.write(U1, 0, "a/f", "0123456789"), Ok(()));
    assert_eq!(
        bench.write(U1, 0, "a/f", "0123456789x"),
        Err(Errno::NoSpace)
    );
    assert_eq!(
        bench.ask(U1, 0, Kind::SetPermissions, &["a", "n1", "r2", "r3"]),
        Err(Errno::NoSpace)
    );
    for token in ["1", "2"] {
        bench.good(U1, 0, Kind::Watch, &["a", token]);
        bench.begin(U1);
    }
    assert_eq!(
        bench.ask(U1, 0, Kind::Watch, &["a", "3"]),
        Err(Errno::TooBig)
    );
    assert_eq!(
        bench.raw(U1, 0, Kind::TransactionStart, b"\0"),
        Err(Errno::NoSpace)
    );
    let reads = (0..20)
        .map(|n| bench.read(U1, 1, &format!("missing-{n}")))
        .filter(|answer| *answer == Err(Errno::NoSpace));
    assert!(reads.count() > 10);
}

#[test]
fn the_quota_holds_over_transactions_that_overlap() {
    let mut bench = Bench::new();
    bench.store.quotas.nodes = 3;
    let (first, second) = (bench.begin(U1), bench.begin(U1));
    for (transaction, name) in [(first, "a"), (second, "b")] {
        assert_eq!(
            bench.write(U1, transaction, &format!("{name}/x"), ""),
            Ok(())
        );
    }
    assert!(bench.commit(U1, first).is_ok());
    assert_eq!(bench.commit(U1, second), Err(Errno::NoSpace));
    assert_eq!(bench.read(U1, 0, "b"), Err(Errno::NotFound));
    assert_eq!(bench.store.check(), None);
}
