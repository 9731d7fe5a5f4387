//! How much of the daemon's time a guest gets: bytes per second, with a burst for boot messages.

use std::time::{Duration, Instant};

/// Bytes per second in the long run.
const RATE: u64 = 1 << 20;
/// Bytes at once.
const BURST: u64 = 1 << 20;
/// What an event costs at least: one without any text is work, too.
const EVENT: u64 = 512;

/// A guest's budget.
#[derive(Debug)]
pub struct Budget {
    left: u64,
    updated: Instant,
}

impl Budget {
    /// A full one.
    pub const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            updated: now,
        }
    }

    /// Pays for an event with `bytes` of text. It may overdraw once: what is in the ring is taken as a whole.
    pub fn spend(&mut self, bytes: usize, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub((bytes as u64).max(EVENT));
    }

    /// How long the guest has to wait to be listened to again; zero if not at all.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.refill(now);
        match EVENT.saturating_sub(self.left) {
            0 => Duration::ZERO,
            missing => Duration::from_micros(missing * 1_000_000 / RATE + 1),
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_micros();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(RATE) / 1_000_000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(BURST);
            self.updated = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_to_the_rate() {
        let start = Instant::now();
        let (mut budget, mut now, mut bytes) = (Budget::new(start), start, 0_u64);
        while now < start + Duration::from_secs(10) {
            now += budget.wait(now);
            budget.spend(2048, now);
            bytes += 2048;
        }
        assert!(
            bytes <= BURST + 11 * RATE * 4,
            "{bytes} bytes in ten seconds"
        );
        assert!(bytes >= 9 * RATE, "{bytes} bytes in ten seconds");
    }

    #[test]
    fn a_boot_is_not_held_up() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        for _ in 0..400 {
            assert_eq!(budget.wait(now), Duration::ZERO);
            budget.spend(2000, now);
        }
    }
}
