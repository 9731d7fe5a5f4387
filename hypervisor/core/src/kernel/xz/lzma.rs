//! The LZMA symbol decoder, shared by LZMA2 chunks (inside xz) and the older stand-alone `.lzma` format.
//!
//! The output is its own dictionary: a match is copied from what was put out before, so no window is kept beside it.
//! Everything is on the path of tens of millions of calls while dom0 is unpacked; loops are written so that the
//! compiler can see every index to be in range.

use alloc::boxed::Box;

use super::super::copy::copy_match;

/// The packed data is not what an encoder makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// A probability that the next bit is 0, in 2048ths.
type Probability = u16;
const EVEN: Probability = 1 << (PROBABILITY_BITS - 1);
const PROBABILITY_BITS: u32 = 11;
/// How fast probabilities adapt.
const ADAPTATION: u32 = 5;
/// The range is widened below this.
const NARROW: u32 = 1 << 24;

/// There are 12; a power of two needs no check of an index.
const STATES: usize = 16;
/// States below this follow a literal.
const AFTER_LITERAL: usize = 7;
const POSITION_STATES: usize = 16;
const LITERAL_CODERS: usize = 16;
/// Nodes of a literal's coder: three trees of 256, and room up to a power of two.
const LITERAL_NODES: usize = 0x400;
const SHORTEST_MATCH: usize = 2;
/// Distance slots below this have no bits behind them.
const FIRST_SLOT_WITH_BITS: usize = 4;
/// Distance slots from this on have uncoded bits, and four coded ones.
const FIRST_SLOT_WITH_DIRECT_BITS: usize = 14;
const ALIGNMENT_BITS: u32 = 4;
/// The distance that marks the end of a stand-alone stream.
const END_MARK: usize = 0xFFFF_FFFF;

/// State after a literal, by the state before it.
const NEXT_AFTER_LITERAL: [usize; STATES] = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5, 0, 0, 0, 0];

/// Parameters of a stream: how many bits of context choose a literal's and a position's probabilities.
#[derive(Clone, Copy, Debug, Default)]
pub struct Properties {
    literal_context_bits: u32,
    literal_position_mask: usize,
    position_mask: usize,
}

impl Properties {
    /// From the byte that encodes them, `(pb * 5 + lp) * 9 + lc`.
    pub fn new(byte: u8) -> Result<Self, Corrupt> {
        let (lc, lp, pb) = (byte % 9, byte / 9 % 5, byte / 45);
        // More than 4 together is legal in stand-alone streams only, and no kernel is packed so.
        if pb > 4 || lc + lp > 4 {
            return Err(Corrupt);
        }
        Ok(Self {
            literal_context_bits: lc.into(),
            literal_position_mask: (1 << lp) - 1,
            position_mask: (1 << pb) - 1,
        })
    }
}

/// The arithmetic decoder over one run of packed bytes.
#[derive(Clone, Copy)]
pub struct RangeDecoder<'a> {
    range: u32,
    code: u32,
    input: &'a [u8],
    at: usize,
}

impl<'a> RangeDecoder<'a> {
    /// Begins a run: a zero byte, then the first four bytes of code.
    pub fn new(input: &'a [u8]) -> Result<Self, Corrupt> {
        let &[0, a, b, c, d, ..] = input else {
            return Err(Corrupt);
        };
        Ok(Self {
            range: u32::MAX,
            code: u32::from_be_bytes([a, b, c, d]),
            input,
            at: 5,
        })
    }

    /// Whether all packed bytes, and no more, were used.
    pub fn is_finished(&mut self) -> bool {
        self.widen();
        self.at == self.input.len() && self.code == 0
    }

    /// Whether more bytes were asked for than there are.
    fn overran(&self) -> bool {
        self.at > self.input.len()
    }

    #[inline(always)]
    fn widen(&mut self) {
        if self.range < NARROW {
            self.range <<= 8;
            let byte = self.input.get(self.at).copied().unwrap_or(0);
            self.code = self.code << 8 | u32::from(byte);
            self.at += 1;
        }
    }

    #[inline(always)]
    fn bit(&mut self, probability: &mut Probability) -> bool {
        self.choose(probability, false, true)
    }

    /// `zero` or `one` by the next bit: decided where the bit is, it need not be made a number first.
    #[inline(always)]
    fn choose<T>(&mut self, probability: &mut Probability, zero: T, one: T) -> T {
        self.widen();
        let chance = u32::from(*probability);
        let bound = (self.range >> PROBABILITY_BITS) * chance;
        if self.code < bound {
            self.range = bound;
            *probability = (chance + (((1 << PROBABILITY_BITS) - chance) >> ADAPTATION)) as u16;
            zero
        } else {
            self.range -= bound;
            self.code -= bound;
            *probability = (chance - (chance >> ADAPTATION)) as u16;
            one
        }
    }

    /// A number below `N`, its highest bit first.
    #[inline(always)]
    fn tree<const N: usize>(&mut self, probabilities: &mut [Probability; N]) -> usize {
        let mut node = 1;
        for _ in 0..N.trailing_zeros() {
            node = self.choose(&mut probabilities[node % N], node << 1, node << 1 | 1);
        }
        node - N
    }

    /// A number of `bits` bits, its lowest bit first.
    #[inline(always)]
    fn reverse_tree<const N: usize>(
        &mut self,
        probabilities: &mut [Probability; N],
        bits: u32,
    ) -> usize {
        let (mut node, mut value) = (1, 0);
        for place in 0..bits {
            (node, value) = self.choose(
                &mut probabilities[node % N],
                (node << 1, value),
                (node << 1 | 1, value | 1 << place),
            );
        }
        value
    }

    /// A number of `bits` bits that are all as likely as not.
    #[inline(always)]
    fn direct(&mut self, bits: u32) -> usize {
        let mut value = 0;
        for _ in 0..bits {
            self.widen();
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | usize::from(bit);
        }
        value
    }
}

/// Probabilities of match lengths.
struct Lengths {
    is_above_8: Probability,
    is_above_16: Probability,
    low: [[Probability; 8]; POSITION_STATES],
    middle: [[Probability; 8]; POSITION_STATES],
    high: [Probability; 256],
}

impl Lengths {
    const NEW: Self = Self {
        is_above_8: EVEN,
        is_above_16: EVEN,
        low: [[EVEN; 8]; POSITION_STATES],
        middle: [[EVEN; 8]; POSITION_STATES],
        high: [EVEN; 256],
    };

    #[inline(always)]
    fn decode(&mut self, range: &mut RangeDecoder<'_>, position_state: usize) -> usize {
        SHORTEST_MATCH
            + if !range.bit(&mut self.is_above_8) {
                range.tree(&mut self.low[position_state % POSITION_STATES])
            } else if !range.bit(&mut self.is_above_16) {
                8 + range.tree(&mut self.middle[position_state % POSITION_STATES])
            } else {
                16 + range.tree(&mut self.high)
            }
    }
}

/// What is learnt while decoding: probabilities, the last four distances, and what came last.
struct Model {
    state: usize,
    /// Distances of the latest matches minus one, the latest first.
    distances: [usize; 4],
    is_match: [[Probability; POSITION_STATES]; STATES],
    is_repeated: [Probability; STATES],
    is_not_latest: [Probability; STATES],
    is_not_second: [Probability; STATES],
    is_not_third: [Probability; STATES],
    is_longer_than_one: [[Probability; POSITION_STATES]; STATES],
    match_lengths: Lengths,
    repeated_lengths: Lengths,
    slots: [[Probability; 64]; 4],
    slot_bits: [[Probability; 32]; FIRST_SLOT_WITH_DIRECT_BITS - FIRST_SLOT_WITH_BITS],
    alignment: [Probability; 1 << ALIGNMENT_BITS],
}

impl Model {
    const NEW: Self = Self {
        state: 0,
        distances: [0; 4],
        is_match: [[EVEN; POSITION_STATES]; STATES],
        is_repeated: [EVEN; STATES],
        is_not_latest: [EVEN; STATES],
        is_not_second: [EVEN; STATES],
        is_not_third: [EVEN; STATES],
        is_longer_than_one: [[EVEN; POSITION_STATES]; STATES],
        match_lengths: Lengths::NEW,
        repeated_lengths: Lengths::NEW,
        slots: [[EVEN; 64]; 4],
        slot_bits: [[EVEN; 32]; FIRST_SLOT_WITH_DIRECT_BITS - FIRST_SLOT_WITH_BITS],
        alignment: [EVEN; 1 << ALIGNMENT_BITS],
    };

    /// Length of a match, new or repeated, and its distance in `distances[0]`.
    #[inline(never)]
    fn match_length(&mut self, outer_range: &mut RangeDecoder<'_>, position_state: usize) -> usize {
        let mut range = *outer_range;
        let state = self.state % STATES;
        let is_after_literal = state < AFTER_LITERAL;
        let [d0, d1, d2, d3] = self.distances;
        let length;
        if !range.bit(&mut self.is_repeated[state]) {
            self.state = if is_after_literal { 7 } else { 10 };
            length = self.match_lengths.decode(&mut range, position_state);
            self.distances = [self.distance(&mut range, length), d0, d1, d2];
        } else {
            let mut is_single = false;
            if !range.bit(&mut self.is_not_latest[state]) {
                let longer = &mut self.is_longer_than_one[state][position_state % POSITION_STATES];
                is_single = !range.bit(longer);
            } else if !range.bit(&mut self.is_not_second[state]) {
                self.distances = [d1, d0, d2, d3];
            } else if !range.bit(&mut self.is_not_third[state]) {
                self.distances = [d2, d0, d1, d3];
            } else {
                self.distances = [d3, d0, d1, d2];
            }
            if is_single {
                self.state = if is_after_literal { 9 } else { 11 };
                length = 1;
            } else {
                self.state = if is_after_literal { 8 } else { 11 };
                length = self.repeated_lengths.decode(&mut range, position_state);
            }
        }
        *outer_range = range;
        length
    }

    /// The distance, minus one, of a match that is not repeated.
    #[inline(always)]
    fn distance(&mut self, range: &mut RangeDecoder<'_>, length: usize) -> usize {
        let slot = range.tree(&mut self.slots[(length - SHORTEST_MATCH).min(3)]);
        if slot < FIRST_SLOT_WITH_BITS {
            return slot;
        }
        let bits = (slot >> 1) as u32 - 1;
        let top = (2 | slot & 1) << bits;
        match self.slot_bits.get_mut(slot - FIRST_SLOT_WITH_BITS) {
            Some(probabilities) => top + range.reverse_tree(probabilities, bits),
            None => {
                let middle = range.direct(bits - ALIGNMENT_BITS) << ALIGNMENT_BITS;
                top + middle + range.reverse_tree(&mut self.alignment, ALIGNMENT_BITS)
            }
        }
    }
}

/// Probabilities of literals, one set for each context.
type Literals = [[Probability; LITERAL_NODES]; LITERAL_CODERS];

/// A decoder with its state between chunks. Some 30 KiB, on the heap.
pub struct Decoder {
    properties: Properties,
    model: Box<Model>,
    literals: Box<[[Probability; LITERAL_NODES]]>,
}

/// Why [`Decoder::decode`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The output is full.
    Full,
    /// The stream's end mark was met at this position.
    EndMark(usize),
}

impl Decoder {
    /// A decoder in its first state.
    pub fn new(properties: Properties) -> Self {
        Self {
            properties,
            model: Box::new(Model::NEW),
            literals: alloc::vec![[EVEN; LITERAL_NODES]; LITERAL_CODERS].into_boxed_slice(),
        }
    }

    /// Forgets what was learnt, and takes new parameters if there are any.
    pub fn reset(&mut self, properties: Option<Properties>) {
        self.properties = properties.unwrap_or(self.properties);
        *self.model = Model::NEW;
        self.literals.fill([EVEN; LITERAL_NODES]);
    }

    /// Fills `out` from `position` on; what lies before is the dictionary.
    ///
    /// # Errors
    /// A match that begins before the dictionary or goes on behind `out`, or too few packed bytes.
    pub fn decode(
        &mut self,
        range: &mut RangeDecoder<'_>,
        out: &mut [u8],
        position: usize,
    ) -> Result<Stop, Corrupt> {
        let literals: &mut Literals = (&mut *self.literals).try_into().map_err(|_| Corrupt)?;
        let result = run(
            range,
            &mut self.model,
            literals,
            self.properties,
            out,
            position,
        );
        if range.overran() {
            Err(Corrupt)
        } else {
            result
        }
    }
}

/// The loop over symbols; literals, two thirds of them, are decoded in it, so that what they need stays in registers.
fn run(
    outer_range: &mut RangeDecoder<'_>,
    model: &mut Model,
    literals: &mut Literals,
    properties: Properties,
    out: &mut [u8],
    mut position: usize,
) -> Result<Stop, Corrupt> {
    let mut range = *outer_range;
    let mut state = model.state;
    while position < out.len() {
        let position_state = position & properties.position_mask;
        if !range.bit(&mut model.is_match[state % STATES][position_state % POSITION_STATES]) {
            let previous = match position.checked_sub(1) {
                Some(before) => usize::from(out[before]),
                None => 0,
            };
            let context = ((position & properties.literal_position_mask)
                << properties.literal_context_bits)
                + (previous >> (8 - properties.literal_context_bits));
            let coder = &mut literals[context % LITERAL_CODERS];
            out[position] = if state < AFTER_LITERAL {
                literal(&mut range, coder)
            } else {
                let place = position.wrapping_sub(model.distances[0] + 1);
                let expected = *out.get(place).ok_or(Corrupt)?;
                literal_after_match(&mut range, coder, expected)
            };
            position += 1;
            state = NEXT_AFTER_LITERAL[state % STATES];
            continue;
        }
        model.state = state;
        *outer_range = range;
        let length = model.match_length(outer_range, position_state);
        range = *outer_range;
        state = model.state;
        let distance = model.distances[0];
        if distance >= position || length > out.len() - position {
            return if distance == END_MARK {
                Ok(Stop::EndMark(position))
            } else {
                Err(Corrupt)
            };
        }
        copy_match(out, position, distance + 1, length);
        position += length;
    }
    *outer_range = range;
    model.state = state;
    Ok(Stop::Full)
}

#[inline(always)]
fn literal(range: &mut RangeDecoder<'_>, coder: &mut [Probability; LITERAL_NODES]) -> u8 {
    let mut node = 1;
    for _ in 0..8 {
        node = range.choose(&mut coder[node % 0x100], node << 1, node << 1 | 1);
    }
    node as u8
}

/// A literal where the match before did not go on: the byte that would have continued it is context as long as the
/// bits agree.
#[inline(always)]
fn literal_after_match(
    range: &mut RangeDecoder<'_>,
    coder: &mut [Probability; LITERAL_NODES],
    expected: u8,
) -> u8 {
    let mut expected = usize::from(expected);
    let (mut node, mut agrees) = (1, 0x100);
    for _ in 0..8 {
        expected <<= 1;
        let expected_bit = expected & agrees;
        (node, agrees) = range.choose(
            &mut coder[(agrees + expected_bit + node) % LITERAL_NODES],
            (node << 1, agrees ^ expected_bit),
            (node << 1 | 1, expected_bit),
        );
    }
    node as u8
}
