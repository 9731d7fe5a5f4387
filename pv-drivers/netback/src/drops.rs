//! Packets that go no further: counted by the reason, and told in the log, so that a guest cannot fill that.

use std::fmt;

use oxen_config::vif::Mac;
use oxen_netif::transmit::Flaw;

/// Why a packet goes no further. None of these is the end of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A guest sends from its own address only; this is another.
    Source(Mac),
    /// Its slots do not make a packet.
    Flaw(Flaw),
    /// A page that it is in cannot be copied: it is not granted, or not any more.
    Grant,
    /// Its checksum is to be completed, and it has none within its bytes.
    Headers,
    /// It is to be cut as something that it is not.
    Segments,
    /// The kernel does not take it.
    Kernel,
    /// The guest gave a page for it that it has not granted.
    Given,
    /// It is for a guest that has not said that it can take such.
    Unfit,
}

/// How many reasons there are.
const REASONS: usize = 8;

impl Reason {
    const fn place(self) -> usize {
        match self {
            Self::Source(_) => 0,
            Self::Flaw(_) => 1,
            Self::Grant => 2,
            Self::Headers => 3,
            Self::Segments => 4,
            Self::Kernel => 5,
            Self::Given => 6,
            Self::Unfit => 7,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(mac) => write!(out, "from other addresses, the last from {mac}"),
            Self::Flaw(flaw) => write!(out, "that were none, the last {flaw}"),
            Self::Grant => out.write_str("in pages that are not granted"),
            Self::Headers => out.write_str("without the checksum that is to be completed"),
            Self::Segments => out.write_str("that cannot be cut as they should"),
            Self::Kernel => out.write_str("that the kernel does not take"),
            Self::Given => out.write_str("for which pages were given that are not granted"),
            Self::Unfit => out.write_str("that the guest cannot take"),
        }
    }
}

/// What was dropped of one queue's packets.
#[derive(Debug)]
pub struct Drops {
    owner: String,
    counts: [u64; REASONS],
}

impl Drops {
    /// None yet; `owner` is how the log names whose packets these are.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            counts: [0; REASONS],
        }
    }

    /// Counts a packet.
    pub fn note(&mut self, reason: Reason) {
        let count = &mut self.counts[reason.place()];
        *count = count.saturating_add(1);
        if is_told(*count) {
            log::warn!("{}: dropped {count} packets {reason}", self.owner);
        }
    }

    /// How many were dropped for such a reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason.place()]
    }
}

/// The first, the tenth, the hundredth, and so on.
const fn is_told(count: u64) -> bool {
    count == 10_u64.pow(count.ilog10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_packets_make_seven_lines() {
        let told = (1..=1_000_000).filter(|count| is_told(*count)).count();
        assert_eq!(told, 7);
    }

    #[test]
    fn each_reason_is_counted_by_itself() {
        let mut drops = Drops::new("domain 3");
        let other = Reason::Source(Mac([2, 0, 0, 0, 0, 9]));
        for reason in [other, Reason::Grant, Reason::Source(Mac([0; 6]))] {
            drops.note(reason);
        }
        let counts = [other, Reason::Grant, Reason::Kernel].map(|reason| drops.count(reason));
        assert_eq!(counts, [2, 1, 0]);
        assert!(
            other
                .to_string()
                .ends_with("the last from 02:00:00:00:00:09")
        );
    }
}
