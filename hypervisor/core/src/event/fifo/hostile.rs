//! A guest that writes what it likes into the pages that it has given.

use std::sync::atomic::{AtomicBool, Ordering};

use oxen_abi::event_channel::fifo::{LINKED, WORDS_PER_PAGE};
use proptest::prelude::*;

use super::model::{Step, VCPUS, World, step};
use super::testing::{CONTROL_OFFSET, Guest};
use super::tests::{handled, ipis, send};
use crate::id::Port;

proptest! {
    #[test]
    fn a_guest_that_writes_what_it_likes_only_fools_itself(
        steps in proptest::collection::vec((step(), place(), word()), 1..200),
    ) {
        let mut world = World::new();
        for (step, (page, index), value) in steps {
            scribble(&world.guest, page, index, value);
            harmless(&mut world, step);
        }
        // Nothing of it is left after a reset.
        world.apply(Step::Reset);
        (0..VCPUS).for_each(|vcpu| drop(world.guest.look(vcpu)));
        for step in [Step::InitControl(0), Step::Expand { masked: false }, Step::OpenPair, Step::Send(1)] {
            world.apply(step);
        }
        prop_assert_eq!(world.guest.look(0), [(2, true)]);
    }
}

/// A page and a word in it: mostly words of ports that the steps use, and those of control blocks.
fn place() -> impl Strategy<Value = (usize, usize)> {
    let control = CONTROL_OFFSET as usize / 4..WORDS_PER_PAGE;
    (
        0..8usize,
        prop_oneof![6 => 0..9usize, 3 => control, 1 => 0..WORDS_PER_PAGE],
    )
}

/// Event words and ready bits that mean something, and any others.
fn word() -> impl Strategy<Value = u32> {
    let flags = (0..16u32).prop_map(|flags| flags << 28);
    let link = prop_oneof![0..9u32, 0..1u32 << 17];
    prop_oneof![
        3 => (flags, link).prop_map(|(flags, link)| flags | link),
        1 => any::<u32>(),
    ]
}

/// An operation whose effect on events is the guest's own affair by now; that on channels is not.
fn harmless(world: &mut World, step: Step) {
    match step {
        Step::GuestMasks(_) | Step::GuestUnmasks(_) | Step::GuestLooks(_) => {}
        step => world.apply(step),
    }
    for port in 0..10 {
        let open = world.model.channels.contains_key(&port);
        let status = world.guest.events.status(Port(port));
        assert_eq!(status.map(|status| status.0 != 0), Ok(open));
    }
}

/// Writes a word of a page that the guest has given, if it has.
fn scribble(guest: &Guest, page: usize, index: usize, value: u32) {
    let mut pages = guest.array.iter().chain(guest.controls.iter().flatten());
    if let Some(page) = pages.nth(page) {
        page.u32(4 * index).store(value, Ordering::SeqCst);
    }
}

#[test]
fn a_guest_that_writes_its_words_all_the_time_holds_nobody_up() {
    const SENDS: usize = if cfg!(miri) { 50 } else { 20_000 };
    let mut guest = Guest::ready(2);
    let ports = ipis(&guest, 0, 8);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value: u32 = 1;
            while !over.load(Ordering::SeqCst) {
                for port in &ports {
                    value = value.wrapping_mul(0x9E37_79B1).wrapping_add(1);
                    guest.word(port.0).store(value | LINKED, Ordering::SeqCst);
                    guest.word(port.0).fetch_and(!LINKED, Ordering::SeqCst);
                }
            }
        });
        for turn in 0..SENDS {
            send(&guest, ports[turn % ports.len()]);
            let unmasked = guest
                .events
                .unmask(ports[turn * 3 % ports.len()], &guest.told);
            assert_eq!(unmasked, Ok(()));
        }
        over.store(true, Ordering::SeqCst);
    });
    guest.reset();
    assert_eq!(guest.init_control(0), Ok(()));
    assert_eq!(guest.expand(0), Ok(()));
    let port = ipis(&guest, 0, 1)[0];
    guest.look(0);
    send(&guest, port);
    assert_eq!(handled(&guest, 0), [port]);
}
