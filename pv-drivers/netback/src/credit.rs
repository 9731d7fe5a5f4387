//! A limit on what a guest sends (`rate=`): so many bytes in each interval.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A large packet must fit, or a slow interface would never send one.
const BURST: i64 = 128 << 10;

/// As the back end's node `rate` has it: "BYTES,MICROSECONDS".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes in an interval.
    pub bytes: u64,
    /// The interval.
    pub microseconds: u32,
}

impl Rate {
    /// The node's value; `None` for one that is no limit: either number is 0.
    ///
    /// # Errors
    /// It is not two numbers.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let numbers = text.split_once(',').and_then(|(bytes, microseconds)| {
            Some(Self {
                bytes: bytes.parse().ok()?,
                microseconds: microseconds.parse().ok()?,
            })
        });
        let rate = numbers.ok_or_else(|| format!("rate: {text:?} is not BYTES,MICROSECONDS"))?;
        Ok((rate.bytes > 0 && rate.microseconds > 0).then_some(rate))
    }
}

/// What may be sent now.
#[derive(Debug)]
pub struct Credit {
    bytes: i64,
    interval: Duration,
    most: i64,
    /// Less than 0 after a packet for which there was not enough: it is paid for later.
    left: i64,
    renewed: Instant,
}

impl Credit {
    /// Full.
    pub fn new(rate: Rate, now: Instant) -> Self {
        let bytes = i64::try_from(rate.bytes).unwrap_or(i64::MAX >> 1);
        Self {
            bytes,
            interval: Duration::from_micros(rate.microseconds.into()),
            most: bytes.max(BURST),
            left: bytes.max(BURST),
            renewed: now,
        }
    }

    /// Whether a packet may be sent; when to ask again if not.
    pub fn wait(&mut self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.renewed);
        let interval = self.interval.as_nanos().max(1);
        let (intervals, begun) = (passed.as_nanos() / interval, passed.as_nanos() % interval);
        if intervals > 0 {
            let intervals = i64::try_from(intervals).unwrap_or(i64::MAX);
            let gained = self.bytes.saturating_mul(intervals);
            self.left = self.left.saturating_add(gained).min(self.most);
            // What of the next one is over counts: nobody asks at the very moment.
            let begun = Duration::from_nanos(u64::try_from(begun).unwrap_or(0));
            self.renewed = now.checked_sub(begun).unwrap_or(now);
        }
        (self.left <= 0).then_some(self.renewed + self.interval)
    }

    /// A packet of so many bytes is sent.
    pub fn spend(&mut self, bytes: u16) {
        self.left = self.left.saturating_sub(bytes.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_read() {
        let rate = Rate {
            bytes: 62_500,
            microseconds: 50_000,
        };
        assert_eq!(Rate::parse("62500,50000"), Ok(Some(rate)));
        assert_eq!(Rate::parse("0,0"), Ok(None));
        for wrong in ["", "5", "5,", "-1,5", "5,5,5"] {
            assert!(Rate::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Over ten seconds a guest that sends all it can gets the rate and one burst.
    #[test]
    fn who_sends_all_it_can_gets_the_rate() {
        let start = Instant::now();
        let rate = Rate {
            bytes: 50_000,
            microseconds: 50_000,
        };
        let mut credit = Credit::new(rate, start);
        let (mut now, mut sent) = (start, 0_u64);
        while now < start + Duration::from_secs(10) {
            match credit.wait(now) {
                None => {
                    credit.spend(60_000);
                    sent += 60_000;
                    now += Duration::from_micros(10);
                }
                Some(until) => {
                    assert!(until > now);
                    // Later than it was told, as everybody is.
                    now = until + Duration::from_millis(7);
                }
            }
        }
        let fair = 10_000_000;
        let least = fair - 100_000;
        assert!(
            (least..=fair + BURST as u64 + 60_000).contains(&sent),
            "{sent}"
        );
    }
}
