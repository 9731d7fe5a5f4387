//! The log ring: the last lines of the hypervisor's log, for `dmesg` and for a late reader.
//!
//! Positions are counted from the first byte ever logged. Readers name them by their low 32 bits, as `public/sysctl.h` has
//! it (`xen_sysctl_readconsole`).

/// A byte ring that forgets its oldest content.
pub struct LogRing<const CAPACITY: usize> {
    bytes: [u8; CAPACITY],
    /// Bytes ever pushed.
    end: u64,
    /// Where reading begins that names no position.
    start: u64,
}

impl<const CAPACITY: usize> Default for LogRing<CAPACITY> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const CAPACITY: usize> LogRing<CAPACITY> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self {
            bytes: [0; CAPACITY],
            end: 0,
            start: 0,
        }
    }

    /// Adds `text`, overwriting the oldest bytes if there is no room.
    pub const fn push(&mut self, text: &[u8]) {
        let mut index = 0;
        while index < text.len() {
            self.bytes[(self.end % CAPACITY as u64) as usize] = text[index];
            self.end += 1;
            index += 1;
        }
    }

    /// Where reading begins: at the position that is named, if it is one that is kept and not cleared, else at the oldest
    /// such.
    pub const fn begin(&self, named: Option<u32>) -> u64 {
        let kept = self.end.saturating_sub(CAPACITY as u64);
        let first = if kept > self.start { kept } else { self.start };
        match named {
            Some(index) => {
                let before_end = (self.end as u32).wrapping_sub(index) as u64;
                if before_end <= self.end - first {
                    self.end - before_end
                } else {
                    first
                }
            }
            None => first,
        }
    }

    /// Copies what follows `position` into `out`; returns the number of bytes, and the position that they begin at: a later
    /// one if some were overwritten meanwhile.
    pub fn read(&self, position: u64, out: &mut [u8]) -> (usize, u64) {
        let from = position.clamp(self.end.saturating_sub(CAPACITY as u64), self.end);
        let count = out.len().min((self.end - from) as usize);
        for (at, slot) in (from..).zip(&mut out[..count]) {
            *slot = self.bytes[(at % CAPACITY as u64) as usize];
        }
        (count, from)
    }

    /// Reading that names no position begins there from now on.
    pub fn clear(&mut self, position: u64) {
        self.start = position.clamp(self.start, self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const CAPACITY: usize = 16;

    fn all(ring: &LogRing<CAPACITY>, named: Option<u32>) -> Vec<u8> {
        let mut out = [0; 2 * CAPACITY];
        let (count, _) = ring.read(ring.begin(named), &mut out);
        out[..count].to_vec()
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let mut ring = LogRing::<CAPACITY>::new();
        ring.push(b"one ");
        assert_eq!(all(&ring, None), b"one ");
        ring.push(b"two");
        assert_eq!(all(&ring, Some(4)), b"two");
        assert_eq!(all(&ring, Some(7)), b"");
        // Beyond the end is no position: all is shown.
        assert_eq!(all(&ring, Some(8)), b"one two");
    }

    #[test]
    fn what_was_cleared_is_not_shown_again() {
        let mut ring = LogRing::<CAPACITY>::new();
        ring.push(b"before");
        ring.clear(6);
        ring.push(b"after");
        assert_eq!(all(&ring, None), b"after");
        assert_eq!(all(&ring, Some(2)), b"after");
        ring.clear(u64::MAX);
        assert_eq!(all(&ring, None), b"");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn the_ring_holds_the_last_bytes(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<bool>(), any::<u32>()), 0..20),
        ) {
            let mut ring = LogRing::<CAPACITY>::new();
            let (mut model, mut cleared) = (Vec::new(), 0);
            for (piece, clear, index) in pieces {
                ring.push(&piece);
                model.extend(piece);
                if clear {
                    ring.clear(model.len() as u64);
                    cleared = model.len();
                }
                let first = cleared.max(model.len().saturating_sub(CAPACITY));
                prop_assert_eq!(all(&ring, None), &model[first..]);
                let named = index % 64;
                let from = (first..=model.len()).find(|&at| at as u32 == named).unwrap_or(first);
                prop_assert_eq!(all(&ring, Some(named)), &model[from..]);
            }
        }
    }
}
