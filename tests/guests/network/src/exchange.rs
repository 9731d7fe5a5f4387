//! The data test of network cards with the front end of this guest, which answers.

use oxen_exchange::network::{FRAME, HEADERS, Mac, Message, Part, SEGMENT, Side, parts, put};
use oxen_guest_runtime::{command_line, events, line};
use oxen_netfront::{Offloads, Wants};
use oxen_netif::extra::{Gso, GsoKind};

use crate::card::{Card, look_again};
use crate::frames;

/// All that back ends may leave to a guest.
pub const WANTS: Wants = Wants {
    scatter: true,
    blank4: true,
    blank6: true,
    gso4: true,
    gso6: true,
};
/// Frames beside which another one may be sent: as many small ones and a large one have pages.
const IN_FLIGHT: usize = 5;
/// Between two looks of a guest whom nobody asks.
const PAUSE_NANOS: u64 = 500_000_000;

/// Answers for ever, and says when all messages of the test have come.
pub fn run(card: &mut Card, plain: bool) -> ! {
    let messages = command_line::number("messages", 0);
    card.connect();
    card.send(&frames::plain(card.mac), Offloads::default());
    line!("exchange: {} is up", card.mac);
    let (mut bytes, mut out) = ([0; FRAME + HEADERS], [0; FRAME]);
    let (mut side, mut told) = (Side::answering(card.mac.0), false);
    loop {
        while let Some(frame) = card.receive(&mut bytes) {
            match side.take(&bytes[..frame.length], frame.blank) {
                Ok(Some((message, from))) => answer(card, plain, (message, from), &mut out),
                Ok(None) => {}
                Err(wrong) => line!("exchange: FAILED: {wrong}"),
            }
        }
        let count = side.count();
        if u64::from(count.messages) == messages && !told {
            line!(
                "exchange: fine: {} messages, {} large packets, {} blank checksums",
                count.messages,
                count.large,
                count.blank
            );
            told = true;
        }
        card.wait(events::system_time() + PAUSE_NANOS);
    }
}

/// Sends the answer to a message. Large packets are left to the back end, and every other checksum, if it offers that and `plain` is not
/// wanted.
fn answer(card: &mut Card, plain: bool, (message, to): (Message, Mac), out: &mut [u8; FRAME]) {
    let offer = card.offer();
    let (large, blank4) = (offer.gso4 && !plain, offer.blank4 && !plain);
    let answer = Message {
        answer: true,
        ..message
    };
    for part in parts(answer, large) {
        let blank = part.is_large() || (blank4 && answer.number.is_multiple_of(2));
        let length = put(out, (card.mac.0, to), part, blank);
        let others = if part.is_large() { 0 } else { IN_FLIGHT };
        while card.in_flight() > others {
            if card.collect() == 0 {
                look_again();
            }
        }
        card.send(&out[..length], offloads(part, blank));
    }
}

fn offloads(part: Part, checksum: bool) -> Offloads {
    Offloads {
        checksum,
        gso: part.is_large().then_some(Gso {
            size: SEGMENT as u16,
            kind: GsoKind::Tcp4,
        }),
    }
}
