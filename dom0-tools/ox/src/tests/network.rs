//! Network cards: what is written for them, and how they come and go.

use super::{Files, fails, ok};
use crate::host::Access;
use crate::host::fake::{Fake, World};

const BACK: &str = "/local/domain/0/backend/oxvif";

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

/// Linux's xenbus gives up all devices.
fn linux_gives_up(world: &mut World) {
    let states: Vec<String> = (world.nodes.keys())
        .filter(|path| path.starts_with(BACK) && path.ends_with("/state"))
        .cloned()
        .collect();
    for state in states {
        let error = state.replace("/0/backend/", "/0/error/backend/");
        world.put(&error.replace("/state", "/error"), "2 reading script");
        world.put(&state, "5");
    }
}

fn host() -> Fake {
    let host = Fake::new();
    host.0.borrow_mut().at_sleep = Some(back_ends_answer);
    host
}

#[test]
fn a_domain_is_created_with_its_network_cards() {
    let host = host();
    let files = Files::new("");
    let vifs = "vif=['mac=00:16:3e:1:2:3,bridge=br7,rate=10Mb/s,mtu=1400', 'offload=0,untrusted']";
    ok(&host, &["create", &files.config(), vifs]);
    let world = host.0.borrow();
    let front = "/local/domain/1/device/vif";
    let (reads, owns) = (Access::GuestReads(1), Access::GuestOwns(1));
    for (path, value, access) in [
        (format!("{BACK}/1/0/mac"), "00:16:3e:01:02:03", reads),
        (format!("{BACK}/1/0/bridge"), "br7", reads),
        (format!("{BACK}/1/0/rate"), "62500,50000", reads),
        (format!("{BACK}/1/0/frontend"), &format!("{front}/0"), reads),
        (format!("{BACK}/1/1/bridge"), "xenbr0", reads),
        (format!("{BACK}/1/1/offload"), "0", reads),
        (format!("{front}/0/backend"), &format!("{BACK}/1/0"), owns),
        (format!("{front}/0/mac"), "00:16:3e:01:02:03", owns),
        (format!("{front}/0/mtu"), "1400", owns),
        (format!("{front}/1/handle"), "1", owns),
        (format!("{front}/1/trusted"), "0", owns),
        (format!("{front}/1/state"), "1", owns),
    ] {
        let expected = (value.to_owned(), Some(access));
        assert_eq!(world.nodes.get(&path), Some(&expected), "{path}");
    }
    let made_up = &world.nodes[&format!("{front}/1/mac")].0;
    assert!(made_up.starts_with("00:16:3e:"), "{made_up}");
    drop(world);
    ok(&host, &["destroy", "demo"]);
    let left = host.0.borrow();
    assert!(!left.nodes.keys().any(|path| path.contains("vif")));
}

fn refused(host: &Fake, words: &[&str], why: &str) {
    let (code, message) = fails(host, words);
    assert_eq!(code, 2, "{message}");
    assert!(message.contains(why), "{message}");
}

#[test]
fn cards_come_and_go() {
    let host = host();
    let files = Files::new("");
    ok(
        &host,
        &["create", &files.config(), "vif=['mac=00:16:3e:1:2:3']"],
    );
    ok(
        &host,
        &["network-attach", "demo", "bridge=br7", "mac=00:16:3e:1:2:4"],
    );
    let list = ok(&host, &["network-list", "demo"]);
    assert!(list.contains("br7") && list.contains("waiting"), "{list}");
    refused(
        &host,
        &["network-attach", "demo", "mac=00:16:3e:1:2:4"],
        "another mac",
    );
    refused(&host, &["network-attach", "demo", "devid=1"], "already");
    refused(&host, &["network-detach", "demo", "5"], "no network card 5");
    ok(&host, &["network-detach", "demo", "00:16:3E:01:02:03"]);
    ok(&host, &["network-detach", "demo", "1"]);
    assert!(!ok(&host, &["network-list", "demo"]).contains("00:16"));
    let world = host.0.borrow();
    assert!(!world.nodes.keys().any(|path| path.contains("vif/")));
}

#[test]
fn what_linux_says_of_a_card_is_told_and_not_kept() {
    let host = host();
    let files = Files::new("");
    ok(&host, &["create", &files.config()]);
    host.0.borrow_mut().at_sleep = Some(linux_gives_up);
    for words in [
        vec!["network-attach", "demo", "mac=00:16:3e:1:2:3"],
        vec!["create", &files.config(), "name=other", "vif=['']"],
    ] {
        let (code, message) = fails(&host, &words);
        assert_eq!(code, 1);
        assert!(message.contains("2 reading script"), "{message}");
        let world = host.0.borrow();
        assert!(!world.nodes.keys().any(|path| path.contains("vif/")));
    }
}
