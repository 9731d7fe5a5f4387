//! What a guest wrote and nobody read yet.

use std::collections::VecDeque;

/// Bytes kept for who attaches later; the oldest go first.
#[derive(Debug)]
pub struct Backlog {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Backlog {
    /// Keeps up to `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            limit,
        }
    }

    /// Adds bytes, and forgets the oldest if there are too many then.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(self.limit);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
    }

    /// The oldest bytes, as many as lie together.
    pub fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Takes away the oldest `count`.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_newest_bytes_stay(limit in 1_usize..50, pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..10)) {
            let mut backlog = Backlog::new(limit);
            pieces.iter().for_each(|piece| backlog.push(piece));
            let all = pieces.concat();
            let mut kept = vec![];
            while !backlog.is_empty() {
                let front = backlog.front().to_vec();
                backlog.consume(front.len());
                kept.extend(front);
            }
            prop_assert_eq!(&kept[..], &all[all.len().saturating_sub(limit)..]);
        }
    }
}
