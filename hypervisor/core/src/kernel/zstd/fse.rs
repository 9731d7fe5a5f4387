//! Finite state entropy coding (RFC 8878, 4.1): distributions of symbols, and the tables of states made from them.

use super::bits::Forward;

/// Most symbols of any alphabet here (match lengths have 53, Huffman weights 12).
pub const MOST_SYMBOLS: usize = 64;
/// Most bits of a state.
pub const MOST_BITS: u32 = 9;
const STATES: usize = 1 << MOST_BITS;

/// How likely each symbol is, in parts of `1 << bits`; -1 is less than one part.
pub struct Distribution {
    counts: [i16; MOST_SYMBOLS],
    symbols: usize,
    bits: u32,
}

impl Distribution {
    /// One that is known in advance; the counts sum up to `1 << bits`, -1 counting as 1.
    pub fn known(counts: &[i16], bits: u32) -> Self {
        let mut this = Self {
            counts: [0; MOST_SYMBOLS],
            symbols: counts.len().min(MOST_SYMBOLS),
            bits,
        };
        this.counts
            .iter_mut()
            .zip(counts)
            .for_each(|(to, from)| *to = *from);
        this
    }

    /// Reads one of at most `most_symbols` symbols and `most_bits` bits, and returns the bytes that it took.
    pub fn read(bytes: &[u8], most_symbols: usize, most_bits: u32) -> Option<(Self, usize)> {
        const LEAST_BITS: u32 = 5;
        const RUN_BITS: u32 = 2;
        const FULL_RUN: u32 = 3;
        let mut stream = Forward::new(bytes);
        let bits = stream.take(4) + LEAST_BITS;
        if bits > most_bits {
            return None;
        }
        let mut this = Self {
            counts: [0; MOST_SYMBOLS],
            symbols: 0,
            bits,
        };
        let mut left = 1 << bits;
        while left > 0 {
            // A count plus one, up to `left` plus one: the smallest of the values that fit take a bit less.
            let most = left + 1;
            let width = u32::BITS - u32::leading_zeros(most);
            let short_values = (1 << width) - 1 - most;
            let short = stream.peek(width - 1);
            let value = if short < short_values {
                stream.skip(width - 1);
                short
            } else {
                let long = stream.take(width);
                long - if long >> (width - 1) != 0 {
                    short_values
                } else {
                    0
                }
            };
            let count = value as i32 - 1;
            this.push(count, most_symbols)?;
            left = left.checked_sub(count.unsigned_abs())?;
            if count == 0 {
                loop {
                    let run = stream.take(RUN_BITS);
                    for _ in 0..run {
                        this.push(0, most_symbols)?;
                    }
                    if run != FULL_RUN {
                        break;
                    }
                }
            }
        }
        Some((this, stream.bytes_used()?))
    }

    fn push(&mut self, count: i32, most: usize) -> Option<()> {
        let place = self
            .counts
            .get_mut(self.symbols)
            .filter(|_| self.symbols < most)?;
        *place = count as i16;
        self.symbols += 1;
        Some(())
    }
}

/// What a state stands for, and how to get to the next.
#[derive(Clone, Copy, Default)]
pub struct State<T> {
    /// What it stands for.
    pub value: T,
    /// The next state without the bits that follow.
    pub next: u16,
    /// How many bits follow.
    pub bits: u8,
}

/// States by number.
pub struct Table<T> {
    states: [State<T>; STATES],
    /// Bits of the first state's number.
    pub bits: u32,
}

impl<T: Copy + Default> Table<T> {
    /// A table of one state that stands for `value` for ever.
    pub fn constant(value: T) -> Self {
        let state = State {
            value,
            next: 0,
            bits: 0,
        };
        Self {
            states: [state; STATES],
            bits: 0,
        }
    }

    /// Lays the symbols out over the states; `value` says what each stands for. `None` if the counts do not fit.
    pub fn new(distribution: &Distribution, value: impl Fn(u8) -> Option<T>) -> Option<Self> {
        let bits = distribution.bits.min(MOST_BITS);
        let size = 1usize << bits;
        let counts = distribution.counts.get(..distribution.symbols)?;
        let total: usize = counts
            .iter()
            .map(|count| usize::from(count.unsigned_abs()))
            .sum();
        if total != size {
            return None;
        }
        let mut symbols = [0u8; STATES];
        // The unlikely ones have one state each, from the end.
        let mut end = size;
        for (symbol, _) in counts.iter().enumerate().filter(|(_, count)| **count < 0) {
            end -= 1;
            symbols[end] = symbol as u8;
        }
        // The others are spread over the rest by a step that has no factor in common with the size.
        let step = (size >> 1) + (size >> 3) + 3;
        let mut at = 0;
        for (symbol, &count) in counts.iter().enumerate() {
            for _ in 0..count {
                symbols[at] = symbol as u8;
                loop {
                    at = (at + step) & (size - 1);
                    if at < end {
                        break;
                    }
                    if end == 0 {
                        return None;
                    }
                }
            }
        }
        let mut this = Self {
            states: [State::default(); STATES],
            bits,
        };
        let mut met = [0u16; MOST_SYMBOLS];
        for (state, &symbol) in this.states.iter_mut().zip(&symbols[..size]) {
            let index = usize::from(symbol) % MOST_SYMBOLS;
            let count = distribution.counts[index].unsigned_abs();
            let rank = count + met[index];
            met[index] += 1;
            let width = bits - rank.ilog2();
            *state = State {
                value: value(symbol)?,
                next: (rank << width) - size as u16,
                bits: width as u8,
            };
        }
        Some(this)
    }

    /// The state of that number.
    #[inline(always)]
    pub fn state(&self, number: usize) -> State<T> {
        self.states[number % STATES]
    }
}
