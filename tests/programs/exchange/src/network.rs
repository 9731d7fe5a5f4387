//! Network cards: frames of an interface, with what Linux leaves to it.

use std::time::{Duration, Instant};

use oxen_exchange::network::{
    self, FRAME, HEADERS, Mac, Message, Part, SEGMENT, Side, TRANSPORT, checksum_place, parts, put,
};

use crate::Failure;
use crate::socket::{Rest, Socket};

/// How long an answer may take before it is asked for again, and how often that is done.
const PATIENCE: Duration = Duration::from_secs(4);
const TRIES: u32 = 15;
/// How long one waits to be asked.
const IDLE: Duration = Duration::from_secs(600);
/// How long an answer may have to be given once more.
const LINGER: Duration = Duration::from_secs(10);

/// An Ethernet address from its text.
///
/// # Errors
/// It is none.
pub fn address(text: &str) -> Result<Mac, Failure> {
    let bytes: Result<Vec<u8>, _> = (text.split(':'))
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    Ok(Mac::try_from(bytes?.as_slice())?)
}

/// An interface, with room for a frame in each direction.
struct Card {
    socket: Socket,
    own: Mac,
    out: Box<[u8; FRAME]>,
    bytes: Vec<u8>,
}

impl Card {
    fn open(interface: &str) -> Result<Self, Failure> {
        let socket = Socket::open(interface).map_err(|error| format!("{interface}: {error}"))?;
        Ok(Self {
            socket,
            own: address(&Socket::address(interface)?)?,
            out: Box::new([0; FRAME]),
            bytes: vec![0; FRAME + HEADERS],
        })
    }

    /// Sends a message: what is large is left to the interface to cut, and every other checksum to be completed.
    fn send(&mut self, to: Mac, message: Message) -> Result<(), Failure> {
        for part in parts(message, true) {
            let blank = part.is_large() || message.number.is_multiple_of(2);
            let length = put(&mut self.out, (self.own, to), part, blank);
            let sent = (self.socket).send(&self.out[..length], rest(part, blank));
            sent.map_err(|error| format!("{message:?} cannot be sent: {error}"))?;
        }
        Ok(())
    }

    /// Waits for a whole message; `None`: none in time.
    fn receive(
        &mut self,
        side: &mut Side,
        patience: Duration,
    ) -> Result<Option<(Message, Mac)>, Failure> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some((frame, blank)) = self.socket.receive(&mut self.bytes, left)? else {
                return Ok(None);
            };
            if let Some(message) = side.take(frame, blank)? {
                return Ok(Some(message));
            }
        }
    }
}

fn rest(part: Part, blank: bool) -> Rest {
    let place = checksum_place(part.message.protocol()) as u16;
    Rest {
        checksum: blank.then_some((TRANSPORT as u16, place)),
        segment: part.is_large().then_some((SEGMENT as u16, HEADERS as u16)),
    }
}

/// Asks for so many messages.
///
/// # Errors
/// One is not answered, or not as it should be.
pub fn ask(interface: &str, to: Mac, messages: u16) -> Result<String, Failure> {
    let mut card = Card::open(interface)?;
    let mut side = Side::asking(card.own);
    let mut again = 0;
    for number in 0..messages {
        let message = Message {
            number,
            answer: false,
        };
        let mut tries = 1;
        card.send(to, message)?;
        // An answer that comes late may be the one before, once more.
        while side.count().messages <= number {
            if card.receive(&mut side, PATIENCE)?.is_none() {
                if tries == TRIES {
                    return Err(format!("no answer to {message:?}").into());
                }
                (tries, again) = (tries + 1, again + 1);
                card.send(to, message)?;
            }
        }
    }
    Ok(format!("{}, {again} asked again", told(side.count())))
}

/// Answers so many messages.
///
/// # Errors
/// Nobody asks, or not as it should be.
pub fn answer(interface: &str, messages: u16) -> Result<String, Failure> {
    let mut card = Card::open(interface)?;
    let mut side = Side::answering(card.own);
    while side.count().messages < messages {
        let Some((message, from)) = card.receive(&mut side, IDLE)? else {
            return Err(format!("nobody asks after {:?}", side.count()).into());
        };
        reply(&mut card, message, from)?;
    }
    while let Some((message, from)) = card.receive(&mut side, LINGER)? {
        reply(&mut card, message, from)?;
    }
    Ok(told(side.count()))
}

fn reply(card: &mut Card, message: Message, to: Mac) -> Result<(), Failure> {
    let answer = Message {
        answer: true,
        ..message
    };
    card.send(to, answer)
}

fn told(
    network::Count {
        messages,
        large,
        blank,
    }: network::Count,
) -> String {
    format!("{messages} messages, {large} large packets, {blank} blank checksums")
}
