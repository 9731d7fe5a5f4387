//! Messages of the xenstore protocol: a 16-byte header (`xsd_sockmsg`) and up to 4096 bytes of payload.

mod numbers;

use thiserror::Error;

pub use numbers::{Errno, Kind};

/// Bytes of a message header.
pub const HEADER_LEN: usize = 16;
/// Most bytes of payload in one message; a connection that announces more is dropped.
pub const PAYLOAD_MAX: usize = 4096;
/// Most bytes of an absolute path, its NUL included.
pub const ABSOLUTE_PATH_MAX: usize = 3072;
/// Most bytes of a relative path, its NUL included.
pub const RELATIVE_PATH_MAX: usize = 2048;

/// One message. The type is kept as the number that came in, so that an unknown one can be echoed in the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Number of the type, see [`Kind`].
    pub kind: u32,
    /// Chosen by the client, echoed by the daemon.
    pub request: u32,
    /// Transaction that the request belongs to; 0 is none.
    pub transaction: u32,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// A request.
    pub fn request(kind: Kind, request: u32, transaction: u32, payload: Vec<u8>) -> Self {
        Self {
            kind: kind.number(),
            request,
            transaction,
            payload,
        }
    }

    /// The answer to this request: same type and numbers, another payload.
    pub fn reply(&self, payload: Vec<u8>) -> Self {
        Self {
            kind: self.kind,
            request: self.request,
            transaction: self.transaction,
            payload,
        }
    }

    /// The refusal of this request.
    pub fn refusal(&self, error: Errno) -> Self {
        let mut payload = error.name().as_bytes().to_vec();
        payload.push(0);
        Self {
            kind: Kind::Error.number(),
            ..self.reply(payload)
        }
    }

    /// A watch event.
    pub fn event(path: &str, token: &[u8]) -> Self {
        let mut payload = Vec::with_capacity(path.len() + token.len() + 2);
        payload.extend_from_slice(path.as_bytes());
        payload.push(0);
        payload.extend_from_slice(token);
        payload.push(0);
        Self::request(Kind::WatchEvent, 0, 0, payload)
    }

    /// Header and payload as they go over the wire.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.payload.len() <= PAYLOAD_MAX);
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        for field in [self.kind, self.request, self.transaction, len] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// The peer announced a payload beyond [`PAYLOAD_MAX`]: the stream has no meaning any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a message announces {0} bytes of payload, more than the {PAYLOAD_MAX} allowed")]
pub struct Oversized(pub u32);

/// Puts messages together from a byte stream that may be cut anywhere.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    pub fn next_message(&mut self) -> Result<Option<Message>, Oversized> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let field = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let announced = field(12);
        let len = usize::try_from(announced)
            .ok()
            .filter(|&len| len <= PAYLOAD_MAX)
            .ok_or(Oversized(announced))?;
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let message = Message {
            kind: field(0),
            request: field(4),
            transaction: field(8),
            payload: payload.to_vec(),
        };
        self.buffer.drain(..HEADER_LEN + len);
        Ok(Some(message))
    }

    /// Bytes of a message that is not whole yet.
    pub fn partial(&self) -> &[u8] {
        &self.buffer
    }
}

/// The strings of a payload, each ended by a NUL. `None` if the last one has no end.
pub fn strings(payload: &[u8]) -> Option<Vec<&[u8]>> {
    match payload.split_last() {
        None => Some(vec![]),
        Some((0, body)) => Some(body.split(|&byte| byte == 0).collect()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stream_cut_anywhere_gives_the_same_messages(
            messages in prop::collection::vec((0u32..30, any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..600)), 0..6),
            cut in 1usize..700,
        ) {
            let messages: Vec<_> = messages.into_iter()
                .map(|(kind, request, transaction, payload)| Message { kind, request, transaction, payload }).collect();
            let stream: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
            let (mut decoder, mut got) = (Decoder::default(), vec![]);
            for part in stream.chunks(cut) {
                decoder.push(part);
                while let Some(message) = decoder.next_message().map_err(|error| TestCaseError::fail(error.to_string()))? {
                    got.push(message);
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(decoder.partial().is_empty());
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_message() {}
        }
    }

    #[test]
    fn an_oversized_payload_is_refused_before_it_arrives() {
        let mut decoder = Decoder::default();
        decoder.push(&[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0]);
        assert_eq!(decoder.next_message(), Err(Oversized(4097)));
    }

    #[test]
    fn strings_need_their_ends() {
        assert_eq!(strings(b"a\0b\0"), Some(vec![&b"a"[..], b"b"]));
        assert_eq!(strings(b"\0"), Some(vec![&b""[..]]));
        assert_eq!(strings(b"a\0b"), None);
        assert_eq!(strings(b""), Some(vec![]));
    }

    #[test]
    fn numbers_and_names_go_both_ways() {
        for number in 0..64 {
            if let Some(kind) = Kind::from_number(number) {
                assert_eq!(kind.number(), number);
            }
        }
        assert_eq!(Kind::from_number(20), None);
        assert_eq!(Errno::from_name(Errno::Again.name()), Some(Errno::Again));
    }
}
