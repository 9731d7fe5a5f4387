//! What no guest should write into xenstore.

use oxen_guest_runtime::{events, line};

use crate::attacks::{await_back, begin_anew, served, write};
use crate::card::{Card, RECEIVE_RING_GRANT, SEND_RING_GRANT};

/// A node that is written instead of the right one.
pub struct Wrong {
    pub name: &'static str,
    pub wrong: &'static str,
}

const fn wrong(name: &'static str, wrong: &'static str) -> Wrong {
    Wrong { name, wrong }
}

/// More than any number or name has.
const LONG: &str = match core::str::from_utf8(&[b'1'; 300]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Each of these closes the card.
pub const FATAL: &[Wrong] = &[
    wrong("tx-ring-ref", "-1"),
    wrong("tx-ring-ref", "400"),
    wrong("rx-ring-ref", "99999999999999999999"),
    wrong("rx-ring-ref", ""),
    wrong("event-channel-tx", "0"),
    wrong("event-channel-rx", "x"),
    wrong("event-channel-rx", "4000"),
    wrong("multi-queue-num-queues", "4294967295"),
    wrong("multi-queue-num-queues", "0"),
    wrong("request-rx-copy", "0"),
    wrong("feature-sg", "perhaps"),
    wrong("feature-gso-tcpv4", LONG),
    wrong("feature-no-csum-offload", "-1"),
];

/// Writes the right value again.
pub fn restore(card: &mut Card, name: &str) {
    let right = match name {
        "tx-ring-ref" => SEND_RING_GRANT,
        "rx-ring-ref" => RECEIVE_RING_GRANT,
        "event-channel-tx" => card.ports.0,
        "event-channel-rx" => card.ports.1,
        "multi-queue-num-queues" | "request-rx-copy" | "feature-no-csum-offload" => 1,
        _ => 0,
    };
    (card.ends.write(&mut card.store, name, right)).expect("own nodes can be written");
}

/// States that no front end goes to from where it is, and what the back end is in then. None is the end of anything: who begins anew
/// is served.
const JUMPS: &[(&str, u32)] = &[
    ("2", 4),
    ("7", 4),
    ("8", 4),
    ("5", 5),
    ("6", 6),
    ("0", 6),
    ("9", 6),
    ("-1", 6),
    ("", 6),
    ("connected", 6),
];

/// All of them, and connecting without a word of readiness.
pub fn jumps(card: &mut Card) {
    const MOMENT_NANOS: u64 = 50_000_000;
    for (state, back) in JUMPS {
        card.connect();
        write(card, "state", state);
        await_back(card, *back);
        if *back == 4 {
            // It says nothing, so that it can be waited for.
            events::nap(MOMENT_NANOS);
            served(card);
        }
        begin_anew(card);
    }
    // Everything is written already.
    write(card, "state", "4");
    card.become_connected();
    for state in ["3", "4", "3", "4"] {
        write(card, "state", state);
    }
    await_back(card, 4);
    line!("network: states: still served");
}
