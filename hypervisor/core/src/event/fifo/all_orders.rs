//! A sender and a guest's upcall handler at the same time, in all orders of what both do: no event is lost, none is handled
//! twice.

use std::sync::Arc;

use loom::thread;

use super::testing::Guest;
use super::tests::{handled, ipis, send};
use crate::id::Port;
use crate::sync::all_orders::model;
use crate::sync::atomic::{AtomicBool, Ordering};

/// A guest with that many ports, and an interrupt that is pending or not. One port has been through the queue, which is
/// empty again.
fn guest(ports: usize) -> (Arc<World>, Vec<Port>) {
    let guest = Guest::ready(1);
    let ports = ipis(&guest, 0, ports);
    send(&guest, ports[0]);
    assert_eq!(handled(&guest, 0), [ports[0]]);
    guest.told.take();
    let interrupt = AtomicBool::new(false);
    (Arc::new(World { guest, interrupt }), ports)
}

struct World {
    guest: Guest,
    interrupt: AtomicBool,
}

impl World {
    fn send(&self, port: Port) {
        send(&self.guest, port);
        if !self.guest.told.take().is_empty() {
            self.interrupt.swap(true, Ordering::AcqRel);
        }
    }

    /// The handler runs when there was an interrupt.
    fn handle(&self) -> Vec<Port> {
        if self.interrupt.swap(false, Ordering::AcqRel) {
            handled(&self.guest, 0)
        } else {
            Vec::new()
        }
    }
}

#[test]
fn events_are_handled_once_each_while_others_are_sent() {
    model(3, || {
        let (world, ports) = guest(2);
        let sender = thread::spawn({
            let (world, ports) = (world.clone(), ports.clone());
            move || ports.iter().for_each(|&port| world.send(port))
        });
        let mut seen = world.handle();
        seen.extend(world.handle());
        sender.join().expect("it ends");
        seen.extend(world.handle());
        assert_eq!(seen, ports);
    });
}

#[test]
fn an_event_that_comes_again_is_handled_after_it_was_sent() {
    model(3, || {
        let (world, ports) = guest(1);
        let port = ports[0];
        world.send(port);
        let sender = thread::spawn({
            let world = world.clone();
            move || world.send(port)
        });
        let during = world.handle();
        sender.join().expect("it ends");
        let after = world.handle();
        // Both may have been one event to the guest.
        assert!((1..=2).contains(&(during.len() + after.len())));
        assert!(!world.guest.events.is_pending(port));
    });
}

#[test]
fn an_event_of_a_port_that_is_being_masked_waits_for_the_unmasking() {
    model(3, || {
        let (world, ports) = guest(2);
        let sender = thread::spawn({
            let (world, ports) = (world.clone(), ports.clone());
            move || ports.iter().for_each(|&port| world.send(port))
        });
        world.guest.mask(ports[0].0);
        let mut seen = world.handle();
        sender.join().expect("it ends");
        seen.extend(world.handle());
        let unmasked = world.guest.unmask(ports[0].0);
        assert_eq!(unmasked, Ok(()));
        seen.extend(handled(&world.guest, 0));
        seen.sort();
        assert_eq!(seen, ports);
    });
}
