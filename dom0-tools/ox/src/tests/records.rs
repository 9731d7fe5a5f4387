//! Verbs and the records that outlive them.

use super::{Files, fails, ok};
use crate::host::Toolstack;
use crate::host::fake::Fake;
use crate::records::{self, Held, Phase, Record};

fn record(host: &Fake, name: &str) -> Option<Record> {
    records::of_name(&host.records(), name).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_new_name_is_kept_for_later_lives() {
    let host = Fake::new();
    let files = Files::new("");
    ok(&host, &["create", &files.config()]);
    ok(&host, &["rename", "demo", "fine"]);
    assert_eq!(record(&host, "demo"), None);
    let renamed = record(&host, "fine").map(|record| record.config.name);
    assert_eq!(renamed.as_deref(), Some("fine"));
    ok(&host, &["create", &files.config()]);
    let (code, message) = fails(&host, &["rename", "fine", "demo"]);
    assert_eq!(code, 5);
    assert!(message.contains("taken by domain 2"), "{message}");
    ok(&host, &["rename", "fine", "fine"]);
    ok(&host, &["destroy", "fine"]);
    assert_eq!(record(&host, "fine"), None);
}

#[test]
fn a_rename_that_fails_leaves_the_record_as_it_was() {
    let host = Fake::new();
    ok(&host, &["create", &Files::new("").config()]);
    let before = record(&host, "demo");
    host.0.borrow_mut().fails = Some("apply");
    fails(&host, &["rename", "demo", "fine"]);
    assert_eq!(
        (record(&host, "demo"), record(&host, "fine")),
        (before, None)
    );
}

#[test]
fn destroy_ends_the_wait_for_another_life() {
    let host = Fake::new();
    let files = Files::new("");
    ok(&host, &["create", &files.config()]);
    let mut waiting = record(&host, "demo").unwrap_or_else(|| panic!("no record"));
    ok(&host, &["destroy", "demo"]);
    waiting.phase = Phase::Restarting {
        old: None,
        not_before: u64::MAX,
    };
    let held = Held::take(&host.records(), "demo").unwrap_or_else(|error| panic!("{error}"));
    held.write(&waiting)
        .unwrap_or_else(|error| panic!("{error}"));
    drop(held);
    let (code, message) = fails(&host, &["create", &files.config()]);
    assert_eq!(code, 5);
    assert!(message.contains("waits to be started again"), "{message}");
    assert!(ok(&host, &["config", "show", "demo"]).contains("restarting"));
    ok(&host, &["destroy", "demo"]);
    assert_eq!(record(&host, "demo"), None);
    ok(&host, &["create", &files.config()]);
}

#[test]
fn reboot_waits_for_the_next_life() {
    let host = Fake::new();
    ok(&host, &["create", &Files::new("").config()]);
    // As the guest and the supervisor do it.
    host.0.borrow_mut().at_sleep = Some(|world| {
        if let Some((value, _)) = world.nodes.get_mut("/local/domain/1/control/shutdown") {
            *value = String::new();
        }
        let Some(directory) = &world.directory else {
            return;
        };
        let held = Held::take(directory.path(), "demo").unwrap_or_else(|error| panic!("{error}"));
        if let Ok(Some(mut record)) = held.read() {
            record.phase = Phase::Running { domid: 2, since: 0 };
            let _ = held.write(&record);
        }
    });
    ok(&host, &["reboot", "-ww", "demo"]);
    host.0.borrow_mut().at_sleep = None;
    host.0.borrow_mut().nodes.insert(
        "/local/domain/1/control/shutdown".to_owned(),
        (String::new(), None),
    );
    let (code, _) = fails(&host, &["shutdown", "-ww", "--timeout", "1", "demo"]);
    assert_eq!(code, 8);
}
