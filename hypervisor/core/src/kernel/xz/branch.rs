//! The x86 branch filter of xz: calls and jumps were stored with absolute targets, because those repeat more often than
//! relative ones; here they become relative again.

/// Bytes of a call or jump with a 32-bit displacement.
const INSTRUCTION: usize = 5;
/// A filter looks back so far for opcodes that it left alone.
const REACH: usize = 3;

/// Undoes the filter on a whole block, whose first byte had stream position `start`.
pub fn undo_x86(block: &mut [u8], start: u32) {
    let mut left_alone = LeftAlone::default();
    let mut at = 0;
    while let Some(opcode) = next_opcode(block, at) {
        at = opcode;
        let Some(instruction) = block[at..].first_chunk::<INSTRUCTION>() else {
            return;
        };
        let &[_, a, b, c, top] = instruction;
        let earlier = left_alone.before(at);
        let is_taken = is_sign(top)
            && match earlier {
                Earlier::None => true,
                // Its displacement's top byte is one of this instruction's bytes.
                Earlier::One(distance) => !is_sign(instruction[INSTRUCTION - 1 - distance]),
                Earlier::Several => false,
            };
        if !is_taken {
            left_alone.add(at);
            at += 1;
            continue;
        }
        let next = start.wrapping_add((at + INSTRUCTION) as u32);
        let overlap = match earlier {
            Earlier::One(distance) => distance as u32,
            _ => 0,
        };
        let target = relative(u32::from_le_bytes([a, b, c, top]), next, overlap);
        block[at + 1..at + INSTRUCTION].copy_from_slice(&target.to_le_bytes());
        at += INSTRUCTION;
    }
}

/// The displacement of an absolute target, with its top byte 0 or 0xFF. With an opcode left alone `overlap` bytes before,
/// the encoder went on until the byte where that one's displacement ends was no sign.
fn relative(absolute: u32, next: u32, overlap: u32) -> u32 {
    let mut value = absolute;
    let displacement = loop {
        let displacement = value.wrapping_sub(next);
        if overlap == 0 || !is_sign((displacement >> (24 - 8 * overlap)) as u8) {
            break displacement;
        }
        value = displacement ^ (u32::MAX >> (8 * overlap));
    };
    // Bit 24 is the sign, repeated above.
    ((displacement << 7) as i32 >> 7) as u32
}

const fn is_sign(byte: u8) -> bool {
    matches!(byte, 0 | 0xFF)
}

/// Which opcodes just before were left alone.
#[derive(Default)]
struct LeftAlone {
    /// Bit *n*: one lies *n* bytes before `anchor`.
    places: u32,
    anchor: usize,
}

enum Earlier {
    None,
    /// So many bytes before.
    One(usize),
    Several,
}

impl LeftAlone {
    fn before(&self, at: usize) -> Earlier {
        let gone = at - self.anchor;
        if gone > REACH {
            return Earlier::None;
        }
        let places = self.places << gone & ((2 << REACH) - 1);
        match places.count_ones() {
            0 => Earlier::None,
            1 => Earlier::One(places.trailing_zeros() as usize),
            _ => Earlier::Several,
        }
    }

    fn add(&mut self, at: usize) {
        let gone = at - self.anchor;
        self.places = if gone > REACH { 0 } else { self.places << gone };
        self.places |= 1;
        self.anchor = at;
    }
}

/// The first call (0xE8) or jump (0xE9) from `at` on.
fn next_opcode(block: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (steps, rest) = block.get(at..)?.as_chunks::<8>();
    for (index, step) in steps.iter().enumerate() {
        // Bytes that are 0xE8 or 0xE9 become zero; the lowest set flag is that of the first zero byte.
        let difference = (u64::from_le_bytes(*step) ^ (ONES * 0xE8)) & (ONES * 0xFE);
        let zero = difference.wrapping_sub(ONES) & !difference & (ONES * 0x80);
        if zero != 0 {
            return Some(at + index * 8 + (zero.trailing_zeros() / 8) as usize);
        }
    }
    let found = rest.iter().position(|byte| byte & 0xFE == 0xE8)?;
    Some(at + steps.len() * 8 + found)
}
