//! Sequences (RFC 8878, 3.1.1.3.2): how many literals to copy, then how many bytes from how far back.

use super::super::copy::{copy_match, copy_short};
use super::bits::Backward;
use super::fse::{Distribution, MOST_BITS, Table};

/// A length or an offset: what a code stands for, and how many bits are added to it.
#[derive(Clone, Copy, Default)]
struct Value {
    base: u32,
    bits: u8,
}

/// One of the three alphabets.
struct Alphabet {
    /// Bits added to each code; its base is the one before plus all that this could stand for.
    bits: &'static [u8],
    first: u32,
    most_state_bits: u32,
    known: &'static [i16],
    known_bits: u32,
}

const LITERAL_LENGTHS: Alphabet = Alphabet {
    bits: &[
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10,
        11, 12, 13, 14, 15, 16,
    ],
    first: 0,
    most_state_bits: 9,
    known: &[
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1,
        1, 1, -1, -1, -1, -1,
    ],
    known_bits: 6,
};
const MATCH_LENGTHS: Alphabet = Alphabet {
    bits: &[
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    ],
    first: 3,
    most_state_bits: 9,
    known: &[
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
    known_bits: 6,
};
const OFFSETS: Alphabet = Alphabet {
    bits: &[
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 31,
    ],
    first: 1,
    most_state_bits: 8,
    known: &[
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ],
    known_bits: 5,
};

impl Alphabet {
    fn value(&self, code: u8) -> Option<Value> {
        let (earlier, rest) = self.bits.split_at_checked(code.into())?;
        let bits = *rest.first()?;
        let base = earlier
            .iter()
            .fold(self.first, |base, bits| base + (1 << bits));
        Some(Value { base, bits })
    }

    /// Takes the table's description off `input`, unless that says to go on with the one before.
    fn table(&self, mode: u8, input: &mut &[u8], before: &mut Option<Table<Value>>) -> Option<()> {
        const KNOWN: u8 = 0;
        const CONSTANT: u8 = 1;
        const DESCRIBED: u8 = 2;
        let value = |code| self.value(code);
        let table = match mode {
            KNOWN => Table::new(&Distribution::known(self.known, self.known_bits), value)?,
            CONSTANT => Table::constant(self.value(*input.split_off_first()?)?),
            DESCRIBED => {
                let most_bits = self.most_state_bits.min(MOST_BITS);
                let (distribution, used) = Distribution::read(input, self.bits.len(), most_bits)?;
                *input = input.get(used..)?;
                Table::new(&distribution, value)?
            }
            _ => return before.is_some().then_some(()),
        };
        *before = Some(table);
        Some(())
    }
}

/// What one block hands to the next.
pub struct Sequences {
    literal_lengths: Option<Table<Value>>,
    offsets: Option<Table<Value>>,
    match_lengths: Option<Table<Value>>,
    /// The last three offsets.
    recent: [usize; 3],
}

impl Default for Sequences {
    fn default() -> Self {
        Self {
            literal_lengths: None,
            offsets: None,
            match_lengths: None,
            recent: [1, 4, 8],
        }
    }
}

/// Why a block's sequences cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// They are not what an encoder makes.
    Corrupt,
    /// The output is full.
    Full,
}

impl Sequences {
    /// Reads a block's section of sequences and carries them out at `position` of `out`; returns the position behind them.
    pub fn run(
        &mut self,
        mut input: &[u8],
        literals: &[u8],
        out: &mut [u8],
        position: usize,
    ) -> Result<usize, Failure> {
        let count = sequence_count(&mut input).ok_or(Failure::Corrupt)?;
        if count == 0 {
            return if input.is_empty() {
                put_literals(out, position, literals, literals.len())
            } else {
                Err(Failure::Corrupt)
            };
        }
        self.read_tables(&mut input).ok_or(Failure::Corrupt)?;
        let (Some(literal_lengths), Some(offsets), Some(match_lengths)) =
            (&self.literal_lengths, &self.offsets, &self.match_lengths)
        else {
            return Err(Failure::Corrupt);
        };
        let stream = Backward::new(input).ok_or(Failure::Corrupt)?;
        let tables = (literal_lengths, offsets, match_lengths);
        execute(
            count,
            stream,
            tables,
            &mut self.recent,
            literals,
            out,
            position,
        )
    }

    /// Whether a block has given all three tables.
    #[cfg(test)]
    pub fn has_tables(&self) -> bool {
        self.literal_lengths.is_some() && self.offsets.is_some() && self.match_lengths.is_some()
    }

    fn read_tables(&mut self, input: &mut &[u8]) -> Option<()> {
        const RESERVED: u8 = 0b11;
        let modes = *input.split_off_first()?;
        if modes & RESERVED != 0 {
            return None;
        }
        LITERAL_LENGTHS.table(modes >> 6, input, &mut self.literal_lengths)?;
        OFFSETS.table(modes >> 4 & 3, input, &mut self.offsets)?;
        MATCH_LENGTHS.table(modes >> 2 & 3, input, &mut self.match_lengths)
    }
}

fn execute(
    count: usize,
    mut stream: Backward<'_>,
    (literal_lengths, offsets, match_lengths): (&Table<Value>, &Table<Value>, &Table<Value>),
    recent: &mut [usize; 3],
    mut literals: &[u8],
    out: &mut [u8],
    mut position: usize,
) -> Result<usize, Failure> {
    stream.refill();
    let mut literal_state = literal_lengths.state(stream.take(literal_lengths.bits));
    let mut offset_state = offsets.state(stream.take(offsets.bits));
    let mut match_state = match_lengths.state(stream.take(match_lengths.bits));
    for left in (0..count).rev() {
        // Two fillings are enough: up to 31 + 16 bits, then 16 + 9 + 9 + 8.
        stream.refill();
        let value = |stream: &mut Backward<'_>, value: Value| {
            value.base as usize + stream.take(value.bits.into())
        };
        let offset = value(&mut stream, offset_state.value);
        let length = value(&mut stream, match_state.value);
        stream.refill();
        let literal_length = value(&mut stream, literal_state.value);
        if left > 0 {
            let next = |stream: &mut Backward<'_>, next: u16, bits: u8| {
                usize::from(next) + stream.take(bits.into())
            };
            literal_state =
                literal_lengths.state(next(&mut stream, literal_state.next, literal_state.bits));
            match_state =
                match_lengths.state(next(&mut stream, match_state.next, match_state.bits));
            offset_state = offsets.state(next(&mut stream, offset_state.next, offset_state.bits));
        }
        let distance = resolve(offset, literal_length == 0, recent);
        if literal_length > literals.len() {
            return Err(Failure::Corrupt);
        }
        position = put_literals(out, position, literals, literal_length)?;
        literals = &literals[literal_length..];
        if distance == 0 || distance > position {
            return Err(Failure::Corrupt);
        }
        if length > out.len() - position {
            return Err(Failure::Full);
        }
        copy_match(out, position, distance, length);
        position += length;
    }
    if stream.left() != 0 {
        return Err(Failure::Corrupt);
    }
    put_literals(out, position, literals, literals.len())
}

/// The distance that an offset value stands for: 1 to 3 name recent ones, or, without literals, the second, the third, and
/// the first minus one.
#[inline(always)]
fn resolve(offset: usize, no_literals: bool, recent: &mut [usize; 3]) -> usize {
    const NAMES: usize = 3;
    let [first, second, third] = *recent;
    if offset > NAMES {
        *recent = [offset - NAMES, first, second];
        return offset - NAMES;
    }
    match offset + usize::from(no_literals) {
        1 => {}
        2 => *recent = [second, first, third],
        3 => *recent = [third, first, second],
        _ => *recent = [first - 1, first, second],
    }
    recent[0]
}

/// Copies the first `count` literals to `position`.
#[inline(always)]
fn put_literals(
    out: &mut [u8],
    position: usize,
    literals: &[u8],
    count: usize,
) -> Result<usize, Failure> {
    let place = out.get_mut(position..).ok_or(Failure::Full)?;
    if count > place.len() {
        return Err(Failure::Full);
    }
    copy_short(place, literals, count);
    Ok(position + count)
}

/// Takes the number of sequences off the section.
fn sequence_count(input: &mut &[u8]) -> Option<usize> {
    const TWO_BYTES: usize = 128;
    const THREE_BYTES: usize = 255;
    const LONG: usize = 0x7F00;
    let mut byte = || input.split_off_first().map(|&byte| usize::from(byte));
    match byte()? {
        short if short < TWO_BYTES => Some(short),
        THREE_BYTES => Some(byte()? + (byte()? << 8) + LONG),
        high => Some(((high - TWO_BYTES) << 8) + byte()?),
    }
}
