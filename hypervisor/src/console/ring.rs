//! The log ring: the last lines of the hypervisor's log, for `dmesg` and for a late reader.

/// Bytes kept.
pub const CAPACITY: usize = 64 * 1024;

/// A byte ring that forgets its oldest content.
pub struct LogRing {
    bytes: [u8; CAPACITY],
    /// Bytes ever pushed.
    total: usize,
}

impl LogRing {
    /// An empty ring.
    pub const fn new() -> Self {
        Self {
            bytes: [0; CAPACITY],
            total: 0,
        }
    }

    /// Adds `text`, overwriting the oldest bytes if there is no room.
    pub fn push(&mut self, text: &[u8]) {
        for &byte in text {
            self.bytes[self.total % CAPACITY] = byte;
            self.total += 1;
        }
    }

    /// Copies the oldest content first into `out`; returns the number of bytes copied.
    pub fn read(&self, out: &mut [u8]) -> usize {
        let held = self.total.min(CAPACITY);
        let count = held.min(out.len());
        let first = self.total - held;
        for (i, slot) in out.iter_mut().take(count).enumerate() {
            *slot = self.bytes[(first + i) % CAPACITY];
        }
        count
    }
}
