//! A guest with a PV network card. With `role=honest` (the default) it answers who asks for `address=A.B.C.D` and pings it, makes itself
//! known now and then, and says how many frames it has seen; with `role=exchange`, `messages=N` and perhaps `plain=1` (without what back ends
//! may do for it or leave to it) it answers in the data test of network cards; with `role=hostile` it breaks the protocol in every way that
//! it knows, and says how each ended.
#![no_std]
#![no_main]

mod attacks;
mod card;
mod exchange;
mod frames;
mod nodes;
mod responder;
mod slots;

use oxen_guest_runtime::{command_line, events, line};
use oxen_netfront::{Offloads, Wants};

use card::Card;

/// Longest frame that is looked at: what fits a page.
const LARGEST: usize = 2048;
/// Between two frames that make this guest known, and two reports.
const ANNOUNCE_NANOS: u64 = 250_000_000;
const REPORT_NANOS: u64 = 1_000_000_000;
/// For the hostile guest, which stays so that its end is its owner's doing.
const PAUSE_NANOS: u64 = 20_000_000;

#[unsafe(no_mangle)]
fn guest_main() {
    oxen_guest_runtime::grants::set_up();
    let plain = command_line::number("plain", 0) == 1;
    let role = command_line::value("role");
    let wants = if role == Some("exchange") && !plain {
        exchange::WANTS
    } else {
        Wants::default()
    };
    let mut card = Card::new(wants);
    if role == Some("exchange") {
        exchange::run(&mut card, plain);
    }
    if role == Some("hostile") {
        attacks::run(&mut card);
        loop {
            events::nap(PAUSE_NANOS);
        }
    }
    let address = command_line::value("address").and_then(frames::parse_address);
    answer(&mut card, address.expect("address=A.B.C.D is missing"));
}

/// Answers for ever.
fn answer(card: &mut Card, address: [u8; 4]) -> ! {
    card.connect();
    line!("network: {} is up", card.mac);
    let mut bytes = [0; LARGEST];
    let mut reply = [0; LARGEST];
    let (mut seen, mut answered, mut told) = (0_u64, 0_u64, 0_u64);
    let (mut announce_at, mut report_at) = (0, 0);
    loop {
        while let Some(frame) = card.receive(&mut bytes) {
            seen += 1;
            let Some(frame) = bytes.get(..frame.length) else {
                continue;
            };
            if let Some(length) = responder::answer(frame, card.mac, address, &mut reply) {
                answered += 1;
                card.send(&reply[..length], Offloads::default());
            }
        }
        let now = events::system_time();
        if now >= announce_at {
            card.send(
                &frames::announcement(card.mac, address),
                Offloads::default(),
            );
            announce_at = now + ANNOUNCE_NANOS;
        }
        if now >= report_at && seen != told {
            line!("network: {seen} frames seen, {answered} answered");
            (told, report_at) = (seen, now + REPORT_NANOS);
        }
        card.wait(announce_at);
    }
}
