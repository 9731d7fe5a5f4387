//! Where an earlier daemon left a ring.

use std::collections::BTreeMap;

use crate::journal::Record;

/// Where a ring was when its state was last kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index up to which requests were taken.
    pub consumed: u32,
    /// Bytes taken of which no request was made.
    pub partial: Vec<u8>,
    /// Index at which the last byte of `waiting` would be out.
    end: u32,
    /// Bytes that were to go out; the first of them may be out.
    pub waiting: Vec<u8>,
}

impl Position {
    /// Takes a record in.
    pub fn apply(positions: &mut BTreeMap<u16, Self>, record: Record) {
        match record {
            Record::Store(_) => {}
            Record::Ring {
                domain,
                consumed,
                partial,
                produced,
                waiting,
            } => {
                let end = produced.wrapping_add(length(&waiting));
                positions.insert(
                    domain,
                    Self {
                        consumed,
                        partial,
                        end,
                        waiting,
                    },
                );
            }
            Record::Received {
                domain,
                consumed,
                partial,
            } => {
                let position = positions.entry(domain).or_default();
                (position.consumed, position.partial) = (consumed, partial);
            }
            Record::Sent { domain, bytes } => {
                let position = positions.entry(domain).or_default();
                position.end = position.end.wrapping_add(length(&bytes));
                position.waiting.extend(bytes);
            }
        }
    }

    /// The position with only what still waits, given the index up to which responses are out. `None` if these two
    /// cannot both be.
    pub fn at(mut self, produced: u32) -> Option<(Self, u32)> {
        let left = usize::try_from(self.end.wrapping_sub(produced)).ok()?;
        let out = self.waiting.len().checked_sub(left)?;
        self.waiting.drain(..out);
        Some((self, produced))
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_already_is_not_sent_again() {
        let mut positions = BTreeMap::new();
        let ring = Record::Ring {
            domain: 1,
            consumed: 0,
            partial: vec![],
            produced: u32::MAX - 1,
            waiting: vec![1, 2],
        };
        Position::apply(&mut positions, ring);
        Position::apply(
            &mut positions,
            Record::Received {
                domain: 1,
                consumed: 9,
                partial: vec![7],
            },
        );
        Position::apply(
            &mut positions,
            Record::Sent {
                domain: 1,
                bytes: vec![3, 4],
            },
        );
        let position = positions.remove(&1).expect("it was recorded");
        let at = |produced| {
            position
                .clone()
                .at(produced)
                .map(|(position, _)| position.waiting)
        };
        assert_eq!(at(u32::MAX - 1), Some(vec![1, 2, 3, 4]));
        assert_eq!(at(1), Some(vec![4]));
        assert_eq!(at(2), Some(vec![]));
        assert_eq!(at(3), None);
        assert_eq!(at(u32::MAX - 2), None);
        assert_eq!((position.consumed, position.partial), (9, vec![7]));
    }
}
