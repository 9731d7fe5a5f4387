//! How much of the daemon's time a guest gets: bytes per second, with a burst for boot messages.

use std::time::{Duration, Instant};

/// Bytes per second in the long run.
const RATE: i64 = 1 << 20;
/// Bytes at once.
const BURST: i64 = 1 << 20;
/// What an event costs at least: one without any text is work, too.
const EVENT: i64 = 512;

/// A guest's budget.
#[derive(Debug)]
pub struct Budget {
    /// Below zero after an event that had more text than was left.
    left: i64,
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

    /// Pays for an event with `bytes` of text. It may overdraw, as what is in the ring is taken as a whole; the next wait makes up for
    /// it.
    pub fn spend(&mut self, bytes: usize, now: Instant) {
        self.refill(now);
        let cost = i64::try_from(bytes).unwrap_or(i64::MAX).max(EVENT);
        self.left = self.left.saturating_sub(cost);
    }

    /// How long the guest has to wait to be listened to again; zero if not at all.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.refill(now);
        let missing = EVENT.saturating_sub(self.left).max(0).unsigned_abs();
        match missing {
            0 => Duration::ZERO,
            missing => {
                Duration::from_micros(missing.saturating_mul(1_000_000) / RATE.unsigned_abs() + 1)
            }
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_micros();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
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

    /// A ring is full each time; its daemon comes as soon as it may, or later than that.
    #[test]
    fn a_flood_is_held_to_the_rate() {
        const RING: usize = 2048;
        const SECONDS: u64 = 10;
        for late in [0, 50, 700, 3000] {
            let start = Instant::now();
            let (mut budget, mut now, mut bytes) = (Budget::new(start), start, 0);
            while now < start + Duration::from_secs(SECONDS) {
                let wait = budget.wait(now);
                now += wait + Duration::from_micros(late);
                budget.spend(RING, now);
                bytes += RING as i64;
            }
            let most = BURST + RATE * SECONDS as i64 + RING as i64;
            assert!(
                bytes <= most,
                "{bytes} bytes, {late} us late: at most {most}"
            );
            if late < 1000 {
                let least = RATE * SECONDS as i64;
                assert!(
                    bytes >= least,
                    "{bytes} bytes, {late} us late: at least {least}"
                );
            }
        }
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
