//! What no guest should do, each time with a new connection. Afterwards the card is closed or, where only a frame was wrong, still
//! served; in either case the back end takes it up again when this guest begins anew.

use oxen_guest_runtime::line;
use oxen_netfront::{Offloads, Store};

use crate::card::{Card, look_again};
use crate::{frames, nodes, slots};

/// The states of xenbus that are waited for.
const INIT_WAIT: u32 = 2;
const CLOSED: u32 = 6;

/// All of them.
pub fn run(card: &mut Card) {
    for (name, attack) in slots::FATAL {
        card.connect_bare();
        attack(card);
        card.notify();
        closed(card, name);
        begin_anew(card);
    }
    for (name, attack) in slots::DROPPED {
        card.connect_bare();
        attack(card);
        served(card);
        line!("network: {name}: dropped");
        begin_anew(card);
    }
    card.connect();
    for attack in nodes::FATAL {
        begin_anew(card);
        write(card, attack.name, attack.wrong);
        write(card, "state", "3");
        closed(card, attack.name);
        nodes::restore(card, attack.name);
    }
    begin_anew(card);
    nodes::jumps(card);
    line!("network: attacks are over");
}

/// Waits until the back end has closed the card.
fn closed(card: &mut Card, name: &str) {
    await_back(card, CLOSED);
    line!("network: {name}: closed");
}

/// An honest frame is sent.
pub fn served(card: &mut Card) {
    card.send(&frames::plain(card.mac), Offloads::default());
    while card.collect() == 0 {
        look_again();
    }
}

/// Begins anew, perhaps without having closed, and waits for the back end's offer.
pub fn begin_anew(card: &mut Card) {
    write(card, "state", "1");
    await_back(card, INIT_WAIT);
}

/// Waits until the back end is in a state.
pub fn await_back(card: &mut Card, state: u32) {
    while card.ends.back_state(&mut card.store) != state {
        look_again();
    }
}

/// Sets one of the card's nodes, to whatever it is.
pub fn write(card: &mut Card, name: &str, value: &str) {
    let path = card.ends.own(name).expect("a short path");
    let written = Store::write(&mut card.store, &path, value);
    assert!(written, "own nodes can be written");
}
