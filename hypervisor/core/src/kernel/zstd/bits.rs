//! The two ways in which bits are read (RFC 8878, 4.1 and 4.2.2).

/// Reads a stream from its end towards its beginning; the highest set bit of the last byte only marks where it starts.
#[derive(Clone, Copy)]
pub struct Backward<'a> {
    bytes: &'a [u8],
    /// Eight bytes of the stream as a number, of which the topmost `used` bits are done.
    window: u64,
    used: u32,
    /// Where the window begins in the stream; what is before it is still to come.
    before: usize,
    /// Bits of the window that are stream: fewer than 64 only if the whole stream is shorter than the window.
    filled: u32,
}

impl<'a> Backward<'a> {
    /// Bits that [`Backward::refill`] makes ready, as long as the stream has that many.
    pub const READY: u32 = 57;

    /// Begins with a stream's last bit; `None` without a start mark.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let mark = bytes.last().filter(|&&last| last != 0)?.leading_zeros() + 1;
        let (window, before, filled) = match bytes.last_chunk::<8>() {
            Some(&chunk) => (u64::from_le_bytes(chunk), bytes.len() - 8, 64),
            None => {
                let mut chunk = [0; 8];
                chunk[8 - bytes.len()..].copy_from_slice(bytes);
                (u64::from_le_bytes(chunk), 0, 8 * bytes.len() as u32)
            }
        };
        Some(Self {
            bytes,
            window,
            used: mark,
            before,
            filled,
        })
    }

    /// Moves the window so that [`Backward::READY`] bits can be taken.
    #[inline(always)]
    pub fn refill(&mut self) {
        let step = (self.used as usize / 8).min(self.before);
        let before = self.before - step;
        if let Some(&chunk) = self.bytes.get(before..).and_then(|rest| rest.first_chunk()) {
            self.window = u64::from_le_bytes(chunk);
            self.before = before;
            self.used -= 8 * step as u32;
        }
    }

    /// The next `count` bits, from 1 to 57, without taking them; zeros where the stream has ended.
    #[inline(always)]
    pub fn peek(&self, count: u32) -> usize {
        ((self.window << (self.used % 64)) >> ((64 - count) % 64)) as usize
    }

    /// Goes on by `count` bits.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.used += count;
    }

    /// Takes `count` bits, at most 57.
    #[inline(always)]
    pub fn take(&mut self, count: u32) -> usize {
        // Shifted twice, so that no bits are 0.
        let value = (self.window << (self.used % 64)) >> 1 >> ((63 - count) % 64);
        self.used += count;
        value as usize
    }

    /// Bits that are left; negative if more were taken than there were.
    pub fn left(&self) -> isize {
        8 * self.before as isize + self.filled as isize - self.used as isize
    }
}

/// Reads from the beginning, each byte's lowest bit first.
pub struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    /// Begins with the first bit.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 16, without taking them; zeros behind the end.
    pub fn peek(&self, count: u32) -> u32 {
        let byte = |index| u32::from(self.bytes.get(index).copied().unwrap_or(0));
        let first = self.at / 8;
        let word = byte(first) | byte(first + 1) << 8 | byte(first + 2) << 16;
        word >> (self.at % 8) & ((1 << count) - 1)
    }

    /// Goes on by `count` bits.
    pub fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    /// Takes `count` bits.
    pub fn take(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// Whole bytes that were begun; `None` if there were not so many.
    pub fn bytes_used(&self) -> Option<usize> {
        Some(self.at.div_ceil(8)).filter(|&used| used <= self.bytes.len())
    }
}
