//! Inputs from others: what parsers of bytes and of text trip over.

use std::ops::Range;

use fastrand::Rng;

/// No input grows beyond this.
const LONGEST: usize = 8 << 10;

/// Makes inputs from those that it has.
#[derive(Debug)]
pub struct Mutator {
    random: Rng,
    inputs: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

/// One way to change an input.
type Change = fn(&mut Mutator, &mut Vec<u8>);

const CHANGES: [Change; 8] = [
    |this, input| flip_bit(this, input),
    |this, input| set_byte(this, input),
    |this, input| set_number(this, input),
    |this, input| step_number(this, input),
    remove,
    repeat,
    insert_word,
    splice,
];

impl Mutator {
    /// One that begins with these inputs, of which there is at least one.
    pub fn new(seed: u64, inputs: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> Self {
        Self {
            random: Rng::with_seed(seed),
            inputs,
            words,
        }
    }

    /// An input that is a few changes away from one that it has.
    pub fn make(&mut self) -> Vec<u8> {
        let mut input = self.inputs[self.random.usize(..self.inputs.len())].clone();
        for _ in 0..1 << self.random.u32(0..4) {
            CHANGES[self.random.usize(..CHANGES.len())](self, &mut input);
            input.truncate(LONGEST);
        }
        input
    }

    /// Makes inputs from this one too.
    pub fn keep(&mut self, input: Vec<u8>) {
        self.inputs.push(input);
    }

    /// A part of `length` bytes: short ones are more likely.
    fn part(&mut self, length: usize) -> Range<usize> {
        let most = 1 << self.random.u32(0..12);
        let size = self.random.usize(..=length.min(most));
        let start = self.random.usize(..=length - size);
        start..start + size
    }

    /// The place of a little-endian number of one, two, four or eight bytes, if there is room.
    fn number(&mut self, input: &[u8]) -> Option<Range<usize>> {
        let size = 1 << self.random.u32(0..4);
        let last = input.len().checked_sub(size)?;
        let start = self.random.usize(..=last);
        Some(start..start + size)
    }
}

fn flip_bit(this: &mut Mutator, input: &mut [u8]) {
    if let Some(byte) = this.random.choice(input.iter_mut()) {
        *byte ^= 1 << this.random.u32(0..8);
    }
}

fn set_byte(this: &mut Mutator, input: &mut [u8]) {
    if let Some(byte) = this.random.choice(input.iter_mut()) {
        *byte = this.random.u8(..);
    }
}

/// Sets a number to one beside a power of two, or to its negative: where checks of sizes go wrong.
fn set_number(this: &mut Mutator, input: &mut [u8]) {
    if let Some(place) = this.number(input) {
        let power = 1u64.rotate_left(this.random.u32(0..64));
        let value = power.wrapping_add(this.random.u64(0..3)).wrapping_sub(1);
        let value = if this.random.bool() {
            value
        } else {
            value.wrapping_neg()
        };
        let size = place.len();
        input[place].copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// Adds a little to a number.
fn step_number(this: &mut Mutator, input: &mut [u8]) {
    if let Some(place) = this.number(input) {
        let size = place.len();
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&input[place.clone()]);
        let step = this.random.u64(0..33).wrapping_sub(16);
        let value = u64::from_le_bytes(bytes).wrapping_add(step);
        input[place].copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

fn remove(this: &mut Mutator, input: &mut Vec<u8>) {
    let part = this.part(input.len());
    input.drain(part);
}

fn repeat(this: &mut Mutator, input: &mut Vec<u8>) {
    let part = this.part(input.len());
    let again = input[part.clone()].repeat(this.random.usize(1..4));
    input.splice(part.end..part.end, again);
}

/// Puts a word somewhere, in place of what is there or before it.
fn insert_word(this: &mut Mutator, input: &mut Vec<u8>) {
    if let Some(word) = this.random.choice(&this.words).cloned() {
        let start = this.random.usize(..=input.len());
        let replaced = if this.random.bool() { word.len() } else { 0 };
        let end = input.len().min(start + replaced);
        input.splice(start..end, word);
    }
}

/// Puts a part of another input in place of a part of this one.
fn splice(this: &mut Mutator, input: &mut Vec<u8>) {
    let other = this.random.usize(..this.inputs.len());
    let from = this.part(this.inputs[other].len());
    let to = this.part(input.len());
    let part = this.inputs[other][from].to_vec();
    input.splice(to, part);
}
