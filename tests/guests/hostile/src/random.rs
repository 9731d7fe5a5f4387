//! Numbers that a seed determines.

/// A generator (xorshift64*).
pub struct Random(u64);

impl Random {
    /// One whose sequence depends on both numbers.
    pub fn new(seed: u64, stream: u64) -> Self {
        // Neighbouring seeds must not give neighbouring states, and zero is no state.
        let mixed = (seed ^ stream.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut random = Self(mixed | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// One below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `odds` times.
    pub fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    /// One of a list, which is not empty.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}
