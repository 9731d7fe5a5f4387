//! Isolation, conflicts, and what is no conflict.

use super::*;

#[test]
fn a_transaction_sees_itself_and_nobody_else() {
    let mut bench = Bench::new();
    bench.write(DOM0, 0, "/a", "1").expect("dom0");
    let open = bench.begin(DOM0);
    bench.write(DOM0, open, "/b/c", "2").expect("dom0");
    bench.write(DOM0, 0, "/a", "3").expect("dom0");
    assert_eq!(bench.read(DOM0, 0, "/b/c"), Err(Errno::NotFound));
    assert_eq!(bench.read(DOM0, open, "/b/c").as_deref(), Ok("2"));
    assert_eq!(bench.read(DOM0, open, "/a").as_deref(), Ok("1"));
    assert_eq!(bench.commit(DOM0, open), Err(Errno::Again));
    assert_eq!(bench.read(DOM0, 0, "/b"), Err(Errno::NotFound));
    // It is over, whatever came of it.
    assert_eq!(bench.commit(DOM0, open), Err(Errno::NotFound));
}

#[test]
fn what_was_seen_must_still_be_so() {
    type Case = (fn(&mut Bench, u32), fn(&mut Bench));
    let conflicts: [Case; 6] = [
        (
            |bench, open| _ = bench.read(DOM0, open, "/a/b"),
            |bench| _ = bench.write(DOM0, 0, "/a/b", "x"),
        ),
        (
            |bench, open| _ = bench.read(DOM0, open, "/a/none"),
            |bench| _ = bench.write(DOM0, 0, "/a/none", "x"),
        ),
        (
            |bench, open| _ = bench.good(DOM0, open, Kind::Directory, &["/a"]),
            |bench| _ = bench.write(DOM0, 0, "/a/c", ""),
        ),
        (
            |bench, open| _ = bench.write(DOM0, open, "/a/b", "1"),
            |bench| _ = bench.write(DOM0, 0, "/a/b", "2"),
        ),
        (
            |bench, open| _ = bench.write(DOM0, open, "/a/new/x", "1"),
            |bench| _ = bench.good(DOM0, 0, Kind::Remove, &["/a"]),
        ),
        (
            |bench, open| _ = bench.good(DOM0, open, Kind::GetPermissions, &["/a/b"]),
            |bench| _ = bench.good(DOM0, 0, Kind::SetPermissions, &["/a/b", "r0"]),
        ),
    ];
    for (nth, (look, disturb)) in conflicts.into_iter().enumerate() {
        for disturbed in [false, true] {
            let mut bench = Bench::new();
            bench.write(DOM0, 0, "/a/b", "0").expect("dom0");
            let open = bench.begin(DOM0);
            look(&mut bench, open);
            if disturbed {
                disturb(&mut bench);
            }
            let expected = if disturbed {
                Err(Errno::Again)
            } else {
                Ok("OK\0".to_owned())
            };
            assert_eq!(bench.commit(DOM0, open), expected, "case {nth}");
        }
    }
}

#[test]
fn changes_elsewhere_are_no_conflict() {
    let mut bench = Bench::new();
    bench.write(DOM0, 0, "/a/b", "0").expect("dom0");
    let open = bench.begin(DOM0);
    bench.read(DOM0, open, "/a/b").expect("it is there");
    bench.write(DOM0, open, "/a/mine", "1").expect("dom0");
    // Two builders that add below one directory do not disturb each other.
    bench.write(DOM0, 0, "/a/yours", "2").expect("dom0");
    assert!(bench.commit(DOM0, open).is_ok());
    assert_eq!(
        bench.good(DOM0, 0, Kind::Directory, &["/a"]),
        "b\0mine\0yours\0"
    );
}

#[test]
fn starting_inside_and_ending_nothing_are_errors() {
    let mut bench = Bench::new();
    let open = bench.begin(DOM0);
    assert_eq!(
        bench.raw(DOM0, open, Kind::TransactionStart, b"\0"),
        Err(Errno::Busy)
    );
    assert_eq!(bench.commit(DOM0, 0), Err(Errno::NotFound));
    assert_eq!(
        bench.ask(DOM0, open, Kind::TransactionEnd, &["X"]),
        Err(Errno::Invalid)
    );
    // Another connection's transaction is not ours.
    assert_eq!(bench.commit(U1, open), Err(Errno::NotFound));
    assert!(bench.commit(DOM0, open).is_ok());
}
