//! A guest sends from its own address only.

use std::time::{Duration, Instant};

use oxen_config::vif::Mac;

/// Least time between two lines in the log.
const PAUSE: Duration = Duration::from_secs(60);

/// Lets packets from one address pass.
#[derive(Debug)]
pub struct Filter {
    own: Mac,
    dropped: u64,
    told: Option<Instant>,
}

impl Filter {
    /// For an interface with this address.
    pub const fn new(own: Mac) -> Self {
        Self {
            own,
            dropped: 0,
            told: None,
        }
    }

    /// Whether a packet that begins with these bytes may pass.
    pub fn passes(&mut self, head: &[u8]) -> bool {
        let Some(source) = head.get(6..12).and_then(|source| source.try_into().ok()) else {
            return false;
        };
        if source == self.own.0 {
            return true;
        }
        self.dropped += 1;
        let now = Instant::now();
        // A guest shall not fill dom0's disk.
        if self.told.is_none_or(|told| now - told >= PAUSE) {
            log::warn!(
                "{}: dropped {} packets from other addresses, the last from {}",
                self.own,
                self.dropped,
                Mac(source)
            );
            self.told = Some(now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_address_passes() {
        let mut filter = Filter::new(Mac([0, 0x16, 0x3E, 1, 2, 3]));
        let mut packet = [0xFF; 60];
        assert!(!filter.passes(&packet));
        packet[6..12].copy_from_slice(&[0, 0x16, 0x3E, 1, 2, 3]);
        assert!(filter.passes(&packet));
        assert!(!filter.passes(&packet[..11]));
        packet[11] = 4;
        assert!(!filter.passes(&packet));
        assert_eq!(filter.dropped, 2);
    }
}
