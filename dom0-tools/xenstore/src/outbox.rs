//! What waits to be sent to one connection.

use std::collections::{HashSet, VecDeque};

use crate::wire::{Kind, Message};

/// A queue of messages that leaves as bytes.
///
/// A watch event that is the same as one still waiting is left out: its receiver looks at the store after the first
/// one anyway. Events, which others cause, have a limit; replies are bounded by who asks.
#[derive(Debug)]
pub struct Outbox {
    messages: VecDeque<Queued>,
    /// Bytes of the first message that are sent.
    sent: usize,
    bytes: usize,
    events: HashSet<Vec<u8>>,
    limit: usize,
    lost: u64,
}

#[derive(Debug)]
struct Queued {
    bytes: Vec<u8>,
    event: bool,
}

impl Outbox {
    /// An empty one that takes events as long as no more than `limit` bytes wait.
    pub fn new(limit: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            sent: 0,
            bytes: 0,
            events: HashSet::new(),
            limit,
            lost: 0,
        }
    }

    /// Puts a message at the end, or leaves it out as described above. Gives the bytes that were added.
    pub fn push(&mut self, message: &Message) -> &[u8] {
        let bytes = message.encode();
        let event = message.kind == Kind::WatchEvent.number();
        if event {
            if self.events.contains(&bytes) {
                return &[];
            }
            if self.bytes + bytes.len() > self.limit {
                self.lost += 1;
                return &[];
            }
            self.events.insert(bytes.clone());
        }
        self.append(bytes, event)
    }

    /// Puts bytes at the end that an earlier run of the daemon did not get rid of.
    pub fn push_raw(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.append(bytes, false);
        }
    }

    fn append(&mut self, bytes: Vec<u8>, event: bool) -> &[u8] {
        self.bytes += bytes.len();
        self.messages.push_back(Queued { bytes, event });
        self.messages.back().map_or(&[], |queued| &queued.bytes)
    }

    /// What to send next; empty if nothing waits.
    pub fn front(&self) -> &[u8] {
        self.messages
            .front()
            .and_then(|queued| queued.bytes.get(self.sent..))
            .unwrap_or_default()
    }

    /// `count` bytes of [`Self::front`] are sent.
    pub fn advance(&mut self, count: usize) {
        let Some(first) = self.messages.front() else {
            return;
        };
        if self.sent == 0 && count > 0 && first.event {
            // The receiver may act on it from now on: an equal event that comes later is news.
            self.events.remove(&first.bytes);
        }
        self.sent += count;
        self.bytes = self.bytes.saturating_sub(count);
        if self.sent >= first.bytes.len() {
            self.messages.pop_front();
            self.sent = 0;
        }
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// All bytes that wait, in order.
    pub fn bytes(&self) -> Vec<u8> {
        let all = self
            .messages
            .iter()
            .flat_map(|queued| queued.bytes.iter().copied());
        all.skip(self.sent).collect()
    }

    /// Events left out because of the limit since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = vec![];
        while !outbox.front().is_empty() {
            let part = outbox.front()[..step.min(outbox.front().len())].to_vec();
            outbox.advance(part.len());
            all.extend(part);
        }
        all
    }

    #[test]
    fn equal_events_wait_once_until_the_first_is_on_its_way() {
        let (mut outbox, event) = (Outbox::new(1000), Message::event("/a", b"t"));
        assert!(!outbox.push(&event).is_empty());
        assert!(outbox.push(&event).is_empty());
        outbox.advance(1);
        assert!(!outbox.push(&event).is_empty());
        assert_eq!(drain(&mut outbox, 7).len(), 2 * event.encode().len() - 1);
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn events_have_a_limit_and_replies_have_none() {
        let mut outbox = Outbox::new(30);
        outbox.push(&Message::event("/a", b"1"));
        assert!(outbox.push(&Message::event("/a", b"2")).is_empty());
        assert_eq!((outbox.take_lost(), outbox.take_lost()), (1, 0));
        outbox.push(&Message::request(Kind::Read, 1, 0, vec![0; 100]));
        assert_eq!(outbox.waiting(), outbox.bytes().len());
        assert_eq!(outbox.waiting(), 21 + 116);
    }
}
