//! `ox create` makes all of a domain or nothing.

use super::{Files, fails, ok};
use crate::host::fake::Fake;
use crate::host::{Access, Toolstack};
use crate::records::{self, Held, Phase};

#[test]
fn a_created_domain_has_its_nodes_its_share_and_runs() {
    let host = Fake::new();
    let files = Files::new("vcpus=2\nmaxvcpus=3\nmaxmem=512\ncpus='0-1'\ncpu_weight=512\ncap=50");
    ok(&host, &["create", "-c", &files.config(), "name=web"]);
    let world = host.0.borrow();
    assert_eq!(
        world.calls,
        [
            "build web",
            "affinity 1 0",
            "affinity 1 1",
            "affinity 1 2",
            "share 1",
            "apply",
            "introduce 1",
            "unpause 1"
        ],
    );
    let uuid = world.domains[1].uuid;
    let vm = format!("/vm/{uuid}");
    let home = "/local/domain/1";
    for (path, value, access) in [
        (format!("{home}/name"), "web", Access::GuestReads(1)),
        (format!("{home}/domid"), "1", Access::GuestReads(1)),
        (format!("{home}/vm"), &vm, Access::GuestReads(1)),
        (
            format!("{home}/memory/target"),
            "262144",
            Access::GuestReads(1),
        ),
        (
            format!("{home}/memory/static-max"),
            "262144",
            Access::GuestReads(1),
        ),
        (
            format!("{home}/cpu/1/availability"),
            "online",
            Access::GuestReads(1),
        ),
        (
            format!("{home}/cpu/2/availability"),
            "offline",
            Access::GuestReads(1),
        ),
        (format!("{home}/console/port"), "2", Access::GuestReads(1)),
        (
            format!("{home}/console/ring-ref"),
            "1044479",
            Access::GuestReads(1),
        ),
        (format!("{home}/store/port"), "1", Access::GuestReads(1)),
        (format!("{home}/control/shutdown"), "", Access::GuestOwns(1)),
        (
            format!("{home}/control/feature-poweroff"),
            "",
            Access::GuestOwns(1),
        ),
        (format!("{vm}/on_reboot"), "restart", Access::HostOnly),
        (format!("{vm}/name"), "web", Access::GuestReads(1)),
    ] {
        assert_eq!(
            world.nodes.get(&path),
            Some(&(value.to_owned(), Some(access))),
            "{path}"
        );
    }
    assert!(
        !world
            .nodes
            .contains_key(&format!("{home}/cpu/3/availability"))
    );
    assert_eq!(world.shares[&1].weight, 512);
    assert_eq!(world.affinities[&(1, 2)].0, [0, 1].into());
    assert_eq!(world.attached, ["/dev/pts/7"]);
}

#[test]
fn whatever_fails_nothing_is_left() {
    for step in [
        "build",
        "affinity",
        "share",
        "apply",
        "introduce",
        "unpause",
    ] {
        let host = Fake::new();
        let before: Vec<_> = host.0.borrow().nodes.clone().into_iter().collect();
        host.0.borrow_mut().fails = Some(step);
        let (code, message) = fails(&host, &["create", &Files::new("cpus='1'\ncap=50").config()]);
        assert_eq!(code, 1, "{step}: {message}");
        assert!(message.contains(&format!("{step} fails")), "{message}");
        let world = host.0.borrow();
        assert_eq!(world.domains.len(), 1, "{step}");
        assert!(world.introduced.is_empty(), "{step}");
        let after: Vec<_> = world.nodes.clone().into_iter().collect();
        assert_eq!(after, before, "{step}");
    }
}

#[test]
fn what_cannot_be_undone_is_named() {
    let host = Fake::new();
    host.0.borrow_mut().fails = Some("introduce");
    host.0.borrow_mut().also_fails = Some("destroy");
    let (code, message) = fails(&host, &["create", &Files::new("").config()]);
    assert_eq!(code, 1);
    assert!(
        message.contains("could not undo it: cannot destroy domain 1: destroy fails"),
        "{message}"
    );
    // The supervisor finds in the record what is to be taken back.
    let record = records::of_name(&host.records(), "demo").ok().flatten();
    assert_eq!(record.map(|record| record.phase), Some(Phase::Making));
}

#[test]
fn paused_domains_stay_paused() {
    let host = Fake::new();
    ok(&host, &["create", "-p", &Files::new("").config()]);
    assert!(host.0.borrow().domains[1].paused);
}

#[test]
fn a_dry_run_prints_json_and_makes_nothing() {
    let host = Fake::new();
    let printed = ok(
        &host,
        &[
            "create",
            "--dry-run",
            &Files::new("").config(),
            "memory=512",
        ],
    );
    let json: serde_json::Value =
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(json["memory_mib"], 512);
    assert_eq!(json["name"], "demo");
    assert!(host.0.borrow().calls.is_empty());
}

#[test]
fn bad_input_has_a_clear_error_and_its_exit_code() {
    let files = Files::new("");
    let config = files.config();
    for (words, expected, why) in [
        (
            vec!["vcpu=2"],
            3,
            "command line:1:1: vcpu: unknown key; did you mean \"vcpus\"?",
        ),
        (
            vec!["memory=0"],
            3,
            "command line:1:8: memory: 0 is not between 1 and",
        ),
        (
            vec!["kernel=/nowhere/vmlinuz"],
            3,
            "command line:1:1: kernel: cannot read /nowhere/vmlinuz: No such file",
        ),
        (vec!["kernel=/"], 3, "kernel: cannot read /: not a file"),
        (
            vec!["name=Domain-0"],
            5,
            "the name \"Domain-0\" is taken by domain 0",
        ),
        (vec!["vcpus=33"], 3, "vcpus: 33 is not between 1 and 32"),
        (
            vec!["cpus=9"],
            3,
            "cpus: \"9\" leaves none of this machine's 4 CPUs to run on",
        ),
        (
            vec!["disk=['/nowhere/disk,raw,xvda,w']"],
            3,
            "disk xvda: /nowhere/disk: No such file",
        ),
        (
            vec!["disk=['/dev/null,raw,xvda,w']"],
            3,
            "disk xvda: /dev/null: neither a file nor a block device",
        ),
        (
            vec!["disk=['/d,vhd,xvda,w']"],
            6,
            "disk xvda: a format other than raw and qcow2",
        ),
        (
            vec!["disk=['format=qcow2,vdev=xvda,backendtype=kernel,target=/d']"],
            6,
            "disk xvda: format=qcow2 with the kernel's back end",
        ),
        (
            vec!["disk=['vdev=xvda,backendtype=kernel,persistent,target=/d']"],
            6,
            "disk xvda: persistent with the kernel's back end",
        ),
        (
            vec!["disk=['vdev=xvda,backendtype=qdisk,target=/d']"],
            6,
            "disk xvda: another backendtype than ox and kernel",
        ),
        (vec!["vif=['ip=10.0.0.1']"], 6, "vif 0: ip="),
        (
            vec!["vif=['devid=1', '']"],
            3,
            "vif 1: the guest has another one of this number",
        ),
        (
            vec!["uuid=00000000-0000-0000-0000-000000000000"],
            3,
            "is that of domain 0",
        ),
    ] {
        let host = Fake::new();
        let words: Vec<_> = ["create", &config].into_iter().chain(words).collect();
        let (code, message) = fails(&host, &words);
        assert_eq!(code, expected, "{words:?}: {message}");
        assert!(message.contains(why), "{words:?}: {message}");
        assert!(host.0.borrow().calls.is_empty(), "{words:?}");
    }
    // In the file, its line and column are named.
    let files = Files::new("ramdisk = '/nowhere/initrd'");
    let (code, message) = fails(&Fake::new(), &["create", &files.config()]);
    let place = message.split_once(": ramdisk: cannot read /nowhere/initrd");
    let (file, place) = place
        .and_then(|(place, _)| place.split_once(".cfg:"))
        .unwrap_or_default();
    assert!(
        code == 3 && !file.is_empty() && place.ends_with(":11"),
        "{message}"
    );
    let (code, message) = fails(&Fake::new(), &["create", "/nowhere/demo.cfg"]);
    assert_eq!(
        (code, message.contains("/nowhere/demo.cfg")),
        (3, true),
        "{message}"
    );
}

#[test]
fn of_two_creates_at_once_one_gets_the_name() {
    let host = Fake::new();
    let files = Files::new("");
    // The other has the name's lock: this one waits, and finds the name taken.
    let held = Held::take(&host.records(), "demo").unwrap_or_else(|error| panic!("{error}"));
    let mut record = None;
    let waiter = std::thread::scope(|scope| {
        let directory = host.records();
        let waiter = scope.spawn(move || Held::take(&directory, "demo").is_ok());
        ok(&host, &["create", &files.config(), "name=other"]);
        record = records::of_name(&host.records(), "other").ok().flatten();
        drop(held);
        waiter.join().unwrap_or(false)
    });
    assert!(waiter && record.is_some());
    let (code, message) = fails(&host, &["create", &files.config(), "name=other"]);
    assert_eq!(code, 5, "{message}");
    assert!(message.contains("is taken by domain 1"), "{message}");
    assert_eq!(host.0.borrow().domains.len(), 2);
}

#[test]
fn what_a_killed_create_left_makes_way() {
    let host = Fake::new();
    let files = Files::new("");
    ok(&host, &["create", &files.config()]);
    let read = || records::of_name(&host.records(), "demo").ok().flatten();
    let mut record = read().unwrap_or_else(|| panic!("no record"));
    assert_eq!(
        record.phase,
        Phase::Running {
            domid: 1,
            since: 90_061
        }
    );
    record.phase = Phase::Making;
    let held = Held::take(&host.records(), "demo").unwrap_or_else(|error| panic!("{error}"));
    held.write(&record)
        .unwrap_or_else(|error| panic!("{error}"));
    drop(held);
    ok(&host, &["create", &files.config()]);
    let world = host.0.borrow();
    assert_eq!(world.domains.len(), 2);
    assert!(world.calls.contains(&"destroy 1".to_owned()));
}

#[test]
fn a_domain_without_supervision_is_kept() {
    let host = Fake::new();
    ok(&host, &["create", "-e", &Files::new("").config()]);
    let record = records::of_name(&host.records(), "demo").ok().flatten();
    assert_eq!(
        record.map(|record| record.phase),
        Some(Phase::Kept { domid: 1 })
    );
    let shown = ok(&host, &["config", "show", "demo"]);
    assert!(shown.contains("\"memory_mib\": 256"), "{shown}");
    ok(&host, &["destroy", "demo"]);
    assert_eq!(
        records::of_name(&host.records(), "demo").ok().flatten(),
        None
    );
}

#[test]
fn a_tree_that_was_left_behind_holds_no_name() {
    let host = Fake::new();
    host.0.borrow_mut().put("/local/domain/9/name", "demo");
    ok(&host, &["create", &Files::new("").config()]);
}

#[test]
fn a_console_without_a_daemon_is_a_time_out_not_a_hang() {
    let host = Fake::new();
    host.0.borrow_mut().add(1, "demo");
    let (code, message) = fails(&host, &["console", "demo"]);
    assert_eq!(code, 8);
    assert!(message.contains("is xenconsoled running?"), "{message}");
}
