//! What becomes of domains that stop, on a host that is not there.

use std::path::Path;

use oxen_config::Action;
use uuid::Uuid;

use super::act::act;
use super::due::{ATTEMPTS, Due, due};
use super::journal::Journal;
use crate::host::fake::{Fake, state};
use crate::host::{Hypervisor, Toolstack};
use crate::records::{self, Held, Phase, Record};
use crate::tree;

/// A domain that runs as number 1, made 100 seconds ago.
fn running(extra: &str) -> (Fake, Record) {
    let host = Fake::new();
    let text = format!("type='pvh'; name='demo'; kernel='/k'; memory=64; {extra}");
    let parsed = oxen_config::parse("test", &text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let uuid = Uuid::from_u128(77);
    {
        let mut world = host.0.borrow_mut();
        world.add(1, "demo");
        world.domains[1] = state(1, uuid, 1, 64 << 10);
        world.put("/local/domain/1/vm", &tree::vm_path(uuid));
        world.put(&format!("{}/name", tree::vm_path(uuid)), "demo");
        world.put(&format!("{}/start_time", tree::vm_path(uuid)), "5.00");
    }
    let record = Record {
        uuid,
        config: parsed.config,
        phase: Phase::Running {
            domid: 1,
            since: 89_961,
        },
        restarts: 0,
        in_vain: 0,
    };
    keep(&host, &record);
    (host, record)
}

fn keep(host: &Fake, record: &Record) {
    let held = Held::take(&host.records(), "demo").unwrap_or_else(|error| panic!("{error}"));
    held.write(record).unwrap_or_else(|error| panic!("{error}"));
}

fn stop(host: &Fake, reason: &'static str) {
    let mut world = host.0.borrow_mut();
    if let Some(domain) = world.domains.last_mut() {
        domain.shutdown = Some(reason);
    }
}

/// One round of the supervisor; gives the record after it.
fn round(host: &Fake) -> Option<Record> {
    let journal = Journal::open(Path::new("/dev/null"));
    let held = Held::take(&host.records(), "demo").unwrap_or_else(|error| panic!("{error}"));
    act(&held, &mut host.clone(), &journal).unwrap_or_else(|failure| panic!("{failure}"));
    held.read().unwrap_or_else(|error| panic!("{error}"))
}

fn phase(host: &Fake) -> Option<Phase> {
    round(host).map(|record| record.phase)
}

/// Domains and nodes of domains besides dom0's.
fn left(host: &Fake) -> (usize, usize) {
    let world = host.0.borrow();
    let nodes = world.nodes.keys().filter(|node| !node.contains("/0/"));
    (world.domains.len() - 1, nodes.count())
}

#[test]
fn a_domain_that_runs_or_is_suspended_is_left_alone() {
    let (host, record) = running("");
    assert_eq!(phase(&host), Some(record.phase.clone()));
    stop(&host, "suspend");
    assert_eq!(phase(&host), Some(record.phase));
    assert!(host.0.borrow().calls.is_empty());
}

#[test]
fn poweroff_ends_it_with_all_that_there_was_of_it() {
    let (host, _) = running("");
    stop(&host, "poweroff");
    assert_eq!(phase(&host), None);
    assert_eq!(left(&host), (0, 0));
}

#[test]
fn a_reboot_makes_it_again_with_the_same_identity() {
    let (host, record) = running("");
    stop(&host, "reboot");
    let after = round(&host).unwrap_or_else(|| panic!("no record"));
    assert_eq!((after.restarts, after.in_vain), (1, 0));
    assert_eq!(after.uuid, record.uuid);
    let world = host.0.borrow();
    assert_eq!(world.domains.len(), 2);
    assert_eq!(world.domains[1].uuid, record.uuid);
    assert!(!world.domains[1].paused);
    assert_eq!(world.nodes["/local/domain/1/name"].0, "demo");
}

#[test]
fn crash_follows_on_crash() {
    for (action, domains, phase_after) in [
        ("destroy", 0, None),
        ("preserve", 1, Some(Phase::Kept { domid: 1 })),
        ("coredump-destroy", 0, None),
    ] {
        let (host, _) = running(&format!("on_crash='{action}'"));
        stop(&host, "crash");
        assert_eq!(phase(&host), phase_after, "{action}");
        assert_eq!(left(&host).0, domains, "{action}");
    }
    for action in ["restart", "coredump-restart"] {
        let (host, _) = running(&format!("on_crash='{action}'"));
        stop(&host, "crash");
        assert!(
            matches!(phase(&host), Some(Phase::Running { .. })),
            "{action}"
        );
    }
}

#[test]
fn a_preserved_domain_is_forgotten_when_it_is_destroyed_otherwise() {
    let (host, _) = running("on_crash='preserve'");
    stop(&host, "crash");
    assert!(phase(&host).is_some());
    host.0.borrow_mut().domains.truncate(1);
    assert_eq!(phase(&host), None);
    assert_eq!(left(&host), (0, 0));
}

#[test]
fn rename_restart_keeps_the_old_one_beside_the_new_one() {
    let (host, record) = running("on_crash='rename-restart'");
    stop(&host, "crash");
    assert!(matches!(
        phase(&host),
        Some(Phase::Running { domid: 2, .. })
    ));
    let world = host.0.borrow();
    assert_eq!(world.nodes["/local/domain/1/name"].0, "demo-20231116T0200Z");
    assert_eq!(world.nodes["/local/domain/2/name"].0, "demo");
    assert_ne!(world.domains[1].uuid, record.uuid);
    assert_eq!(world.domains[2].uuid, record.uuid);
    let vm = tree::vm_path(world.domains[1].uuid);
    assert_eq!(world.nodes[&format!("{vm}/start_time")].0, "5.00");
}

#[test]
fn a_loop_of_short_lives_is_slowed_down() {
    let (host, _) = running("on_crash='restart'");
    for life in 0..5 {
        stop(&host, "crash");
        let after = round(&host).unwrap_or_else(|| panic!("no record"));
        if life <= 3 {
            assert_eq!(after.in_vain, life);
            assert!(matches!(after.phase, Phase::Running { .. }), "{life}");
            continue;
        }
        let not_before = 90_062;
        assert_eq!(
            after.phase,
            Phase::Restarting {
                old: None,
                not_before
            }
        );
        let domains = host.clone().domains().unwrap_or_default();
        assert_eq!(due(&after, &domains, 90_061), Due::At(not_before));
        assert_eq!(left(&host).0, 0);
        host.0.borrow_mut().uptime = not_before;
        assert!(matches!(phase(&host), Some(Phase::Running { .. })));
    }
}

#[test]
fn what_cannot_be_made_again_is_tried_later_and_then_given_up() {
    let (host, _) = running("");
    stop(&host, "reboot");
    host.0.borrow_mut().fails = Some("build");
    for attempt in 1..=ATTEMPTS {
        let after = round(&host).unwrap_or_else(|| panic!("given up at {attempt}"));
        assert_eq!(after.in_vain, attempt);
        host.0.borrow_mut().uptime += 60;
    }
    assert_eq!(phase(&host), None);
    assert_eq!(left(&host), (0, 0));
}

#[test]
fn a_supervisor_that_was_killed_anywhere_is_followed_by_one_that_finishes() {
    let (_, record) = running("");
    for (phase_before, runs_after) in [
        (Phase::Making, false),
        (Phase::Ending { domid: 1 }, false),
        (
            Phase::Restarting {
                old: Some(1),
                not_before: 0,
            },
            true,
        ),
        (
            Phase::Restarting {
                old: None,
                not_before: 0,
            },
            true,
        ),
    ] {
        let (host, _) = running("");
        keep(
            &host,
            &Record {
                phase: phase_before.clone(),
                ..record.clone()
            },
        );
        let runs = matches!(phase(&host), Some(Phase::Running { .. }));
        assert_eq!(runs, runs_after, "{phase_before:?}");
        assert_eq!(left(&host).0, usize::from(runs), "{phase_before:?}");
    }
}

#[test]
fn half_a_rename_is_finished() {
    let (host, record) = running("");
    let uuid = Uuid::from_u128(99);
    let renaming = Record {
        phase: Phase::Renaming {
            domid: 1,
            name: "old".to_owned(),
            uuid,
            not_before: 0,
        },
        ..record
    };
    for done_already in [false, true] {
        keep(&host, &renaming);
        if done_already {
            host.0.borrow_mut().domains.truncate(2);
        }
        assert!(matches!(phase(&host), Some(Phase::Running { .. })));
        assert_eq!(host.0.borrow().domains[1].uuid, uuid);
        assert_eq!(host.0.borrow().nodes["/local/domain/1/name"].0, "old");
    }
}

#[test]
fn actions_by_reason() {
    let text = "type='pvh'; name='a'; kernel='/k'; memory=64; on_watchdog='preserve'";
    let parsed = oxen_config::parse("test", text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let actions = parsed.config.actions;
    for (reason, action) in [
        ("poweroff", Action::Destroy),
        ("reboot", Action::Restart),
        ("watchdog", Action::Preserve),
        ("soft-reset", Action::SoftReset),
        ("unknown", Action::Destroy),
    ] {
        assert_eq!(super::due::action(&actions, reason), action, "{reason}");
    }
    let none = records::all(Path::new("/nowhere")).unwrap_or_default();
    assert!(none.is_empty());
}
