//! Domains that come and go.

use super::*;

#[test]
fn introduction_and_release_are_told_once() {
    let mut bench = Bench::new();
    for name in ["@introduceDomain", "@releaseDomain"] {
        bench.good(DOM0, 0, Kind::Watch, &[name, "t"]);
        bench.good(U1, 0, Kind::Watch, &[name, "t"]);
    }
    assert_eq!(bench.events().len(), 4);
    bench.good(DOM0, 0, Kind::Introduce, &["7", "99", "3"]);
    bench.good(DOM0, 0, Kind::Introduce, &["7", "98", "4"]);
    assert_eq!(bench.events(), ["socket 1: @introduceDomain t"]);
    assert_eq!(bench.machine.rings.get(&7), Some(&(98, 4)));
    assert_eq!(bench.good(DOM0, 0, Kind::IsDomainIntroduced, &["7"]), "T\0");
    bench.good(DOM0, 0, Kind::Release, &["7"]);
    assert_eq!(bench.events(), ["socket 1: @releaseDomain t"]);
    assert_eq!(bench.good(DOM0, 0, Kind::IsDomainIntroduced, &["7"]), "F\0");
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Release, &["7"]),
        Err(Errno::NotFound)
    );
    assert!(!bench.machine.rings.contains_key(&7));
}

#[test]
fn a_shutdown_is_told_once_until_the_domain_resumes() {
    let mut bench = Bench::new();
    bench.good(DOM0, 0, Kind::Watch, &["@releaseDomain", "t"]);
    bench.events();
    assert_eq!(bench.store.domain_ended(1, true).len(), 1);
    assert_eq!(bench.store.domain_ended(1, true).len(), 0);
    bench.good(DOM0, 0, Kind::Resume, &["1"]);
    assert_eq!(bench.store.domain_ended(1, true).len(), 1);
    assert_eq!(bench.store.remove_domain(1).len(), 1);
    assert_eq!(bench.store.remove_domain(1).len(), 0);
}

#[test]
fn a_new_domain_inherits_nothing_from_one_of_the_same_id() {
    let mut bench = Bench::new();
    bench.write(U1, 0, "deep/er", "1").expect("its own");
    bench.write(DOM0, 0, "/backend/1/state", "4").expect("dom0");
    bench.good(
        DOM0,
        0,
        Kind::SetPermissions,
        &["/backend/1", "n0", "b1", "r2"],
    );
    bench.good(U1, 0, Kind::Watch, &["deep", "t"]);
    bench.good(DOM0, 0, Kind::Release, &["1"]);
    assert_eq!(bench.read(DOM0, 0, "/local/domain/1"), Err(Errno::NotFound));
    assert_eq!(
        bench.good(DOM0, 0, Kind::GetPermissions, &["/backend/1"]),
        "n0\0r2\0"
    );
    assert_eq!(bench.store.tree.owned_by(1), 0);
    assert_eq!(bench.store.check(), None);
    assert!(
        bench
            .store
            .handle(
                U1,
                &Message::request(Kind::Read, 1, 0, b"/\0".to_vec()),
                &mut Machine::default()
            )
            .is_empty()
    );
    bench.restart();
    assert_eq!(bench.store.domains().count(), 1);
}

#[test]
fn bad_introductions_leave_nothing_behind() {
    let mut bench = Bench::new();
    let bad: [&[&str]; 7] = [
        &["0", "1", "1"],
        &["32752", "1", "1"],
        &["3", "1", "0"],
        &["3", "x", "1"],
        &["3", "1"],
        &["3", "-1", "1"],
        &["70000", "1", "1"],
    ];
    for words in bad {
        assert_eq!(
            bench.ask(DOM0, 0, Kind::Introduce, words),
            Err(Errno::Invalid),
            "{words:?}"
        );
    }
    assert_eq!(
        bench.ask(U1, 0, Kind::Introduce, &["3", "1", "1"]),
        Err(Errno::Access)
    );
    bench.machine.broken = true;
    assert_eq!(
        bench.ask(DOM0, 0, Kind::Introduce, &["3", "1", "1"]),
        Err(Errno::Io)
    );
    assert_eq!(bench.good(DOM0, 0, Kind::IsDomainIntroduced, &["3"]), "F\0");
    assert_eq!(bench.store.domains().count(), 2);
}

#[test]
fn a_target_lends_its_rights() {
    let mut bench = Bench::new();
    bench.write(U1, 0, "x", "1").expect("its own");
    bench.good(DOM0, 0, Kind::SetTarget, &["2", "1"]);
    assert_eq!(bench.read(U2, 0, "/local/domain/1/x").as_deref(), Ok("1"));
    assert_eq!(
        bench.ask(DOM0, 0, Kind::SetTarget, &["2", "0"]),
        Err(Errno::NotFound)
    );
    assert_eq!(
        bench.ask(DOM0, 0, Kind::SetTarget, &["9", "1"]),
        Err(Errno::NotFound)
    );
}

#[test]
fn paths_of_domains() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.good(U1, 0, Kind::GetDomainPath, &["5"]),
        "/local/domain/5\0"
    );
    assert_eq!(
        bench.ask(U1, 0, Kind::GetDomainPath, &["x"]),
        Err(Errno::Invalid)
    );
    assert_eq!(bench.good(U1, 0, Kind::IsDomainIntroduced, &["0"]), "T\0");
}
