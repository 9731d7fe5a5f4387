//! `ox shutdown` and `ox reboot`.

use super::{fails, ok};
use crate::host::fake::{Fake, World};

const NODE: &str = "/local/domain/3/control/shutdown";

fn host() -> Fake {
    let host = Fake::new();
    host.0.borrow_mut().add(3, "demo");
    host
}

/// The guest's driver takes the request.
fn take(world: &mut World) {
    for node in [
        "/local/domain/3/control/shutdown",
        "/local/domain/4/control/shutdown",
    ] {
        if let Some((value, _)) = world.nodes.get_mut(node) {
            *value = String::new();
        }
    }
}

#[test]
fn shutdown_asks_through_xenstore_and_waits() {
    let host = host();
    host.0.borrow_mut().at_sleep = Some(|world: &mut World| {
        assert_eq!(world.nodes[NODE].0, "poweroff");
        world.domains[1].shutdown = Some("poweroff");
    });
    ok(&host, &["shutdown", "-w", "demo"]);
    assert_eq!(fails(&host, &["reboot", "demo"]).0, 2);
}

#[test]
fn a_guest_that_does_not_answer_is_a_clear_error() {
    let deaf = host();
    let (code, message) = fails(&deaf, &["reboot", "-w", "--timeout", "2", "demo"]);
    assert_eq!(code, 8);
    assert!(
        message.contains("has not taken the request to reboot within 2 s"),
        "{message}"
    );
    assert_eq!(deaf.0.borrow().slept.as_secs(), 2);
    assert_eq!(deaf.0.borrow().nodes[NODE].0, "reboot");

    let slow = host();
    slow.0.borrow_mut().at_sleep = Some(take);
    ok(&slow, &["shutdown", "demo"]);
    let (code, message) = fails(&slow, &["shutdown", "-w", "--timeout", "2", "demo"]);
    assert_eq!(code, 8);
    assert!(message.contains("has not stopped after 2 s"), "{message}");
}

#[test]
fn a_paused_guest_is_not_waited_for() {
    let host = host();
    host.0.borrow_mut().domains[1].paused = true;
    ok(&host, &["shutdown", "demo"]);
    assert!(host.0.borrow().slept.is_zero());
}

#[test]
fn shutdown_of_all_spares_domain_0() {
    let host = host();
    host.0.borrow_mut().add(4, "more");
    host.0.borrow_mut().at_sleep = Some(take);
    ok(&host, &["shutdown", "--all"]);
    let world = host.0.borrow();
    let asked: Vec<_> = world
        .nodes
        .keys()
        .filter(|path| path.contains("control"))
        .collect();
    assert_eq!(asked.len(), 2);
}

#[test]
fn waiting_twice_is_for_the_end_of_the_domain() {
    let host = host();
    host.0.borrow_mut().at_sleep = Some(|world: &mut World| match world.domains[1].shutdown {
        None => world.domains[1].shutdown = Some("poweroff"),
        Some(_) => world.domains[1].dying = true,
    });
    // Nobody acts on a domain without a record: that it has stopped is all that will be.
    ok(&host, &["shutdown", "-ww", "demo"]);
}
