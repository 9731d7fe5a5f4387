//! The data test of network cards: messages over UDP and TCP, small ones, ones that fill a packet, and ones that are cut into many. One
//! side asks, the other answers each with a message of another shape; both check headers, checksums and every byte. There is no
//! connection: what is lost is asked again.

mod frame;
#[cfg(test)]
mod tests;

use core::fmt;

pub use frame::{HEADERS, Mac, Part, TRANSPORT, checksum_place, parts, put};

use crate::Stream;
use frame::Segment;

/// Bytes of a TCP segment in a packet of 1500 bytes.
pub const SEGMENT: usize = 1460;
/// Bytes of the longest message in one packet, which is UDP's.
const IN_A_PACKET: usize = SEGMENT + 12;
/// Bytes of the longest message.
pub const LONGEST: usize = 65_000;
/// Bytes of its frame.
pub const FRAME: usize = HEADERS + LONGEST;
/// Messages there are, at most.
pub const MOST: u16 = 10_000;

/// What a message goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// In one packet.
    Udp,
    /// In one packet or several.
    Tcp,
}

const SHAPES: [(Protocol, usize); 13] = [
    (Protocol::Udp, 1),
    (Protocol::Tcp, SEGMENT),
    (Protocol::Udp, IN_A_PACKET),
    (Protocol::Tcp, 60_000),
    (Protocol::Udp, 18),
    (Protocol::Tcp, SEGMENT + 1),
    (Protocol::Udp, 333),
    (Protocol::Tcp, 4096),
    (Protocol::Tcp, 20_001),
    (Protocol::Udp, 1001),
    (Protocol::Tcp, 1),
    (Protocol::Tcp, LONGEST),
    (Protocol::Tcp, 2 * SEGMENT),
];

/// One of the messages of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which, below [`MOST`].
    pub number: u16,
    /// It is the answer to the one of that number.
    pub answer: bool,
}

impl Message {
    fn shape(self) -> (Protocol, usize) {
        let number = usize::from(self.number);
        // Short ones are answered by long ones, and the other way round.
        let turn = if self.answer { 5 * number + 3 } else { number };
        SHAPES[turn % SHAPES.len()]
    }

    /// What it goes over.
    pub fn protocol(self) -> Protocol {
        self.shape().0
    }

    /// Its bytes.
    pub fn length(self) -> usize {
        self.shape().1
    }

    /// Whether it is longer than a packet.
    pub fn is_large(self) -> bool {
        self.protocol() == Protocol::Tcp && self.length() > SEGMENT
    }

    /// Its content.
    pub fn stream(self) -> Stream {
        Stream(u64::from(self.number) << 1 | u64::from(self.answer))
    }
}

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A header of a packet of this message.
    Header(Message, &'static str),
    /// A byte of the message, by its place.
    Content(Message, usize),
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(message, what) => write!(out, "{message:?}: {what} is wrong"),
            Self::Content(message, at) => {
                write!(
                    out,
                    "{message:?} differs from what was sent, from byte {at} on"
                )
            }
        }
    }
}

impl core::error::Error for Wrong {}

/// What came in, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages.
    pub messages: u16,
    /// Packets that were larger than one may be on a wire.
    pub large: u32,
    /// Packets whose checksum is for somebody else to complete.
    pub blank: u32,
}

/// A message that is waited for.
#[derive(Clone, Copy, Debug)]
struct Inbox {
    wanted: Message,
    /// Bytes that have come.
    have: usize,
}

impl Inbox {
    const fn new(wanted: Message) -> Self {
        Self { wanted, have: 0 }
    }

    /// Whether a segment has what comes next. Some of it may have come already: it may have been cut in another way before.
    fn is_next(&self, segment: &Segment<'_>) -> bool {
        let bytes = segment.from..segment.from + segment.payload.len();
        segment.message == self.wanted && bytes.contains(&self.have)
    }

    /// Takes the segment that is next. True: this was the last.
    fn take(&mut self, segment: &Segment<'_>) -> Result<bool, Wrong> {
        let end = segment.from + segment.payload.len();
        if end > self.wanted.length() {
            return Err(Wrong::Header(self.wanted, "its length"));
        }
        let stream = self.wanted.stream();
        if let Some(at) = stream.first_wrong(segment.from as u64, segment.payload) {
            return Err(Wrong::Content(self.wanted, segment.from + at));
        }
        self.have = end;
        Ok(end == self.wanted.length())
    }
}

/// One side of the test.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    own: Mac,
    inbox: Inbox,
    count: Count,
}

impl Side {
    /// The side that asks, which has this address; it waits for the first answer.
    pub const fn asking(own: Mac) -> Self {
        Self::new(own, true)
    }

    /// The side that answers, which has this address.
    pub const fn answering(own: Mac) -> Self {
        Self::new(own, false)
    }

    const fn new(own: Mac, answer: bool) -> Self {
        let first = Message { number: 0, answer };
        let count = Count {
            messages: 0,
            large: 0,
            blank: 0,
        };
        Self {
            own,
            inbox: Inbox::new(first),
            count,
        }
    }

    /// What has come in.
    pub const fn count(&self) -> Count {
        self.count
    }

    /// Takes a frame, whatever it is; `blank`: its checksum is to be completed by somebody else. Returns a message that has come whole,
    /// and from whom: the one waited for, or the one before once more, for its answer was lost.
    ///
    /// # Errors
    /// It belongs to the test, and is not as it was sent.
    pub fn take(&mut self, frame: &[u8], blank: bool) -> Result<Option<(Message, Mac)>, Wrong> {
        // A bridge sends to everybody what is for somebody whom it does not know.
        if !frame.starts_with(&self.own) {
            return Ok(None);
        }
        let Some(segment) = frame::parse(frame, blank)? else {
            return Ok(None);
        };
        let Segment { message, from, .. } = segment;
        let Message { number, answer } = self.inbox.wanted;
        if message.answer != answer {
            return Ok(None);
        }
        if message.number.checked_add(1) == Some(number) {
            let last = from + segment.payload.len() == message.length();
            return Ok(last.then_some((message, segment.sender)));
        }
        if !self.inbox.is_next(&segment) {
            return Ok(None);
        }
        self.count.large += u32::from(segment.payload.len() > IN_A_PACKET);
        self.count.blank += u32::from(blank);
        if !self.inbox.take(&segment)? {
            return Ok(None);
        }
        self.count.messages += 1;
        self.inbox = Inbox::new(Message {
            number: number + 1,
            answer,
        });
        Ok(Some((message, segment.sender)))
    }
}
