//! Disks: what is written for them, and what is waited for.

use std::path::Path;

use super::{Files, fails, ok};
use crate::host::fake::{Fake, World};
use crate::host::{Access, Toolstack};
use crate::records;

const BACK: &str = "/local/domain/0/backend/oxblk";

/// The back ends take one step: they offer what was asked for, or close what was to be closed.
fn back_ends_answer(world: &mut World) {
    for (path, (value, _)) in &mut world.nodes {
        if path.starts_with(BACK) && path.ends_with("/state") {
            match value.as_str() {
                "1" => *value = "2".to_owned(),
                "5" => *value = "6".to_owned(),
                _ => {}
            }
        }
    }
}

/// The back ends refuse.
fn back_ends_refuse(world: &mut World) {
    let states: Vec<String> = (world.nodes.keys())
        .filter(|path| path.starts_with(BACK) && path.ends_with("/state"))
        .cloned()
        .collect();
    for state in states {
        world.put(&state, "6");
        world.put(&state.replace("/state", "/error"), "the disk is empty");
    }
}

fn image(files: &Files) -> String {
    let path = files.path("disk.img");
    std::fs::write(&path, [0; 512]).expect("a file");
    path.display().to_string()
}

#[test]
fn a_domain_is_created_with_its_disks() {
    let host = Fake::new();
    host.0.borrow_mut().at_sleep = Some(back_ends_answer);
    let files = Files::new("");
    let image = image(&files);
    let disks = format!(
        "disk=['{image},raw,xvda,w', 'vdev=xvdb,access=ro,untrusted,no-persistent,target={image}']"
    );
    ok(&host, &["create", &files.config(), &disks]);
    let world = host.0.borrow();
    let (front, back) = (
        "/local/domain/1/device/vbd/51712",
        format!("{BACK}/1/51712"),
    );
    for (path, value, access) in [
        (format!("{back}/frontend"), front, Access::GuestReads(1)),
        (format!("{back}/mode"), "w", Access::GuestReads(1)),
        (format!("{back}/params"), &image, Access::HostOnly),
        (format!("{back}/online"), "1", Access::GuestReads(1)),
        (format!("{front}/backend"), &back, Access::GuestOwns(1)),
        (format!("{front}/backend-id"), "0", Access::GuestOwns(1)),
        (
            format!("{front}/virtual-device"),
            "51712",
            Access::GuestOwns(1),
        ),
        (format!("{front}/state"), "1", Access::GuestOwns(1)),
        (format!("{BACK}/1/51728/mode"), "r", Access::GuestReads(1)),
        (
            format!("{back}/persistent-enable"),
            "1",
            Access::GuestReads(1),
        ),
        (
            format!("{BACK}/1/51728/persistent-enable"),
            "0",
            Access::GuestReads(1),
        ),
        (
            "/local/domain/1/device/vbd/51728/trusted".to_owned(),
            "0",
            Access::GuestOwns(1),
        ),
    ] {
        let expected = (value.to_owned(), Some(access));
        assert_eq!(world.nodes.get(&path), Some(&expected), "{path}");
    }
    drop(world);
    ok(&host, &["destroy", "demo"]);
    let left = host.0.borrow();
    assert!(!left.nodes.keys().any(|path| path.contains("backend/oxblk")));
}

#[test]
fn a_disk_that_is_not_served_takes_the_domain_back() {
    let files = Files::new("");
    let image = image(&files);
    let disk = format!("disk=['{image},raw,xvda,w']");
    let host = Fake::new();
    host.0.borrow_mut().at_sleep = Some(back_ends_refuse);
    let (code, message) = fails(&host, &["create", &files.config(), &disk]);
    assert_eq!(code, 1);
    assert!(message.contains("the disk is empty"), "{message}");
    let silent = Fake::new();
    let (code, message) = fails(&silent, &["create", &files.config(), &disk]);
    assert_eq!(code, 8);
    assert!(message.contains("is oxblk running?"), "{message}");
    for host in [host, silent] {
        let world = host.0.borrow();
        assert_eq!(world.domains.len(), 1);
        assert!(!world.nodes.keys().any(|path| path.contains("oxblk")));
    }
}

#[test]
fn two_disks_at_one_place_are_refused() {
    let files = Files::new("");
    let image = image(&files);
    let disks = format!("disk=['{image},,xvda', '{image},,d0']");
    let (code, message) = fails(&Fake::new(), &["create", &files.config(), &disks]);
    assert_eq!(code, 3);
    assert!(
        message.contains("disk d0: the guest has another disk there"),
        "{message}"
    );
}

fn attached() -> (Fake, Files, String) {
    let host = Fake::new();
    host.0.borrow_mut().at_sleep = Some(back_ends_answer);
    let files = Files::new("");
    let image = image(&files);
    ok(&host, &["create", &files.config()]);
    ok(
        &host,
        &[
            "block-attach",
            "demo",
            "vdev=xvdc",
            &format!("target={image}"),
        ],
    );
    (host, files, image)
}

fn disks_of(host: &Fake) -> usize {
    let record = records::of_name(Path::new(&host.records()), "demo");
    record.expect("readable").expect("there").config.disks.len()
}

#[test]
fn a_disk_is_attached_listed_and_detached() {
    let (host, _files, image) = attached();
    let list = ok(&host, &["block-list", "demo"]);
    for word in ["xvdc", "51744", "ox", "waiting", &image] {
        assert!(list.contains(word), "{list}");
    }
    let json = ok(&host, &["block-list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["number"], 51744);
    assert_eq!(disks_of(&host), 1);
    let (code, message) = fails(&host, &["block-attach", "demo", &format!("{image},,xvdc")]);
    assert_eq!(code, 2);
    assert!(message.contains("has a disk xvdc already"), "{message}");
    ok(&host, &["block-detach", "demo", "xvdc"]);
    assert_eq!(ok(&host, &["block-list", "demo"]).lines().count(), 1);
    assert_eq!(disks_of(&host), 0);
    assert_eq!(fails(&host, &["block-detach", "demo", "xvdc"]).0, 2);
    let left = host.0.borrow();
    assert!(!left.nodes.keys().any(|path| path.contains("51744")));
}

#[test]
fn a_guest_that_keeps_its_disk_is_told_of_and_can_be_forced() {
    let (host, _files, _) = attached();
    host.0.borrow_mut().at_sleep = None;
    let (code, message) = fails(&host, &["block-detach", "demo", "xvdc"]);
    assert_eq!(code, 8);
    assert!(message.contains("--force"), "{message}");
    ok(&host, &["block-detach", "--force", "demo", "xvdc"]);
    assert_eq!(ok(&host, &["block-list", "demo"]).lines().count(), 1);
}

/// Nobody else gets the name before the disk is there and in the record: a second tool would make the same disk, or change the record meanwhile.
#[test]
fn the_name_is_held_while_a_disk_is_attached_and_detached() {
    fn nobody_else_has_it(world: &mut World) {
        let records = world.directory.as_ref().expect("records").path();
        let other = records::Held::try_take(records, "demo");
        assert!(other.expect("readable").is_none());
        back_ends_answer(world);
    }
    let (host, _files, image) = attached();
    host.0.borrow_mut().at_sleep = Some(nobody_else_has_it);
    ok(&host, &["block-attach", "demo", &format!("{image},,xvdd")]);
    ok(&host, &["block-detach", "demo", "xvdd"]);
    assert_eq!(disks_of(&host), 1);
}

/// What is gone needs no time to be waited for.
#[test]
fn a_disk_that_somebody_removes_meanwhile_is_gone() {
    fn back_ends_go(world: &mut World) {
        world.nodes.retain(|path, _| !path.starts_with(BACK));
    }
    let (host, _files, image) = attached();
    host.0.borrow_mut().at_sleep = Some(back_ends_go);
    ok(&host, &["block-detach", "demo", "xvdc"]);
    assert_eq!(disks_of(&host), 0);
    let (code, message) = fails(&host, &["block-attach", "demo", &format!("{image},,xvdd")]);
    assert_eq!(code, 1);
    assert!(message.contains("somebody has removed it"), "{message}");
    assert_eq!(disks_of(&host), 0);
}
