//! Huffman-coded literals (RFC 8878, 4.2).

use super::bits::Backward;
use super::fse::{Distribution, Table};

/// Most bits of a code.
const MOST_BITS: u32 = 11;
const CODES: usize = 1 << MOST_BITS;
const MOST_SYMBOLS: usize = 256;
/// Most bits of a state where weights are coded.
const WEIGHT_BITS: u32 = 6;

/// Symbol in the low byte and length in the high one, by the next bits of the stream.
pub struct Codes {
    codes: [u16; CODES],
    bits: u32,
}

impl Codes {
    /// Reads the codes' weights, and returns the bytes that they took.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        const DIRECT: u8 = 128;
        let (&header, rest) = bytes.split_first()?;
        let mut weights = [0; MOST_SYMBOLS];
        let (count, size) = if header < DIRECT {
            let size = usize::from(header);
            (coded_weights(rest.get(..size)?, &mut weights)?, size)
        } else {
            // Four bits each, the first in the upper half.
            let count = usize::from(header - DIRECT) + 1;
            let size = count.div_ceil(2);
            let packed = rest.get(..size)?;
            for (pair, &byte) in weights.chunks_mut(2).zip(packed) {
                for (weight, value) in pair.iter_mut().zip([byte >> 4, byte & 0xF]) {
                    *weight = value;
                }
            }
            weights.get_mut(count..)?.fill(0);
            (count, size)
        };
        Some((Self::new(&mut weights, count)?, 1 + size))
    }

    /// From the weights of all symbols but the last used one, whose weight completes the sum to a power of two.
    fn new(weights: &mut [u8; MOST_SYMBOLS], count: usize) -> Option<Self> {
        let share = |weight: u8| if weight == 0 { 0 } else { 1u32 << (weight - 1) };
        let known = weights.get(..count)?;
        if known.iter().any(|&weight| u32::from(weight) > MOST_BITS) {
            return None;
        }
        let sum: u32 = known.iter().map(|&weight| share(weight)).sum();
        let bits = sum.checked_ilog2()? + 1;
        let rest = (1 << bits) - sum;
        if bits > MOST_BITS || !rest.is_power_of_two() {
            return None;
        }
        *weights.get_mut(count)? = rest.ilog2() as u8 + 1;
        let mut this = Self {
            codes: [0; CODES],
            bits,
        };
        let mut at = 0;
        for weight in 1..=bits as u8 {
            let length = bits as u16 + 1 - u16::from(weight);
            for (symbol, _) in weights.iter().enumerate().filter(|(_, w)| **w == weight) {
                let end = at + share(weight) as usize;
                this.codes
                    .get_mut(at..end)?
                    .fill(length << 8 | symbol as u16);
                at = end;
            }
        }
        (at == 1 << bits).then_some(this)
    }

    /// Fills `out` from one stream, which must be used up.
    pub fn decode(&self, stream: &[u8], out: &mut [u8]) -> Option<()> {
        const AT_ONCE: usize = (Backward::READY / MOST_BITS) as usize;
        let mut stream = Backward::new(stream)?;
        let (groups, rest) = out.as_chunks_mut::<AT_ONCE>();
        for group in groups {
            stream.refill();
            for symbol in group {
                *symbol = self.symbol(&mut stream);
            }
        }
        stream.refill();
        for symbol in rest {
            *symbol = self.symbol(&mut stream);
        }
        (stream.left() == 0).then_some(())
    }

    #[inline(always)]
    fn symbol(&self, stream: &mut Backward<'_>) -> u8 {
        let code = self.codes[stream.peek(self.bits) % CODES];
        stream.skip(u32::from(code >> 8));
        code as u8
    }
}

/// Weights coded with two states that take turns, until the stream has no bits for the next one.
fn coded_weights(bytes: &[u8], weights: &mut [u8; MOST_SYMBOLS]) -> Option<usize> {
    let (distribution, used) = Distribution::read(bytes, MOST_BITS as usize + 2, WEIGHT_BITS)?;
    let table = Table::new(&distribution, Some)?;
    let mut stream = Backward::new(bytes.get(used..)?)?;
    let mut now = table.state(stream.take(table.bits));
    let mut other = table.state(stream.take(table.bits));
    if stream.left() < 0 {
        return None;
    }
    let mut count = 0;
    let mut push = |weight| {
        *weights.get_mut(count)? = weight;
        count += 1;
        Some(count)
    };
    loop {
        push(now.value)?;
        let bits = u32::from(now.bits);
        if stream.left() < bits as isize {
            return push(other.value);
        }
        stream.refill();
        let next = table.state(usize::from(now.next) + stream.take(bits));
        (now, other) = (other, next);
    }
}
