//! Execution on values: the caller reads and writes the device and the registers.

use super::{Arithmetic, MmioInstruction, Operation};

const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const OVERFLOW: u64 = 1 << 11;
const ALL: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// What the instruction leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// New value of the memory operand.
    pub memory: Option<u64>,
    /// Register to set: its encoding and its whole new value.
    pub register: Option<(u8, u64)>,
    /// New flags.
    pub rflags: Option<u64>,
}

impl MmioInstruction {
    /// Computes the outcome from the memory operand's value and the whole value of the register operand's register.
    /// String instructions have none of their own.
    pub fn execute(&self, memory: u64, register: u64, rflags: u64) -> Outcome {
        let mask = mask(self.width);
        let memory = memory & mask;
        let high = self.register.is_some_and(|(_, high)| high);
        let operand = self
            .immediate
            .unwrap_or(if high { register >> 8 } else { register })
            & mask;
        let set = |value: u64, width: u8| {
            self.register
                .map(|(index, high)| (index, merge(register, value, width, high)))
        };
        let mut outcome = Outcome::default();
        match self.operation {
            Operation::Load {
                register_width,
                signed,
            } => {
                let unused = 64 - 8 * u32::from(self.width);
                let value = if signed {
                    ((memory << unused) as i64 >> unused) as u64
                } else {
                    memory
                };
                outcome.register = set(value, register_width);
            }
            Operation::Store => outcome.memory = Some(operand),
            Operation::Modify { arithmetic, write } => {
                let (result, flags) = compute(arithmetic, memory, operand, self.width);
                outcome.memory = write.then_some(result);
                outcome.rflags = Some(rflags & !ALL | flags);
            }
            Operation::Accumulate { arithmetic, write } => {
                let (result, flags) = compute(arithmetic, operand, memory, self.width);
                outcome.register = if write { set(result, self.width) } else { None };
                outcome.rflags = Some(rflags & !ALL | flags);
            }
            Operation::Exchange => {
                outcome.memory = Some(operand);
                outcome.register = set(memory, self.width);
            }
            Operation::String(_) => {}
        }
        outcome
    }
}

fn compute(arithmetic: Arithmetic, a: u64, b: u64, width: u8) -> (u64, u64) {
    let (mask, sign) = (mask(width), 1 << (8 * u32::from(width) - 1));
    let (result, mut flags) = match arithmetic {
        Arithmetic::Add => {
            let result = a.wrapping_add(b) & mask;
            let overflow = (a ^ result) & (b ^ result) & sign != 0;
            (
                result,
                bit(result < a, CARRY) | bit(overflow, OVERFLOW) | (a ^ b ^ result) & ADJUST,
            )
        }
        Arithmetic::Subtract => {
            let result = a.wrapping_sub(b) & mask;
            let overflow = (a ^ b) & (a ^ result) & sign != 0;
            (
                result,
                bit(a < b, CARRY) | bit(overflow, OVERFLOW) | (a ^ b ^ result) & ADJUST,
            )
        }
        Arithmetic::Or => (a | b, 0),
        Arithmetic::And => (a & b, 0),
        Arithmetic::Xor => (a ^ b, 0),
    };
    flags |= bit(result == 0, ZERO) | bit(result & sign != 0, SIGN);
    flags |= bit((result as u8).count_ones().is_multiple_of(2), PARITY);
    (result, flags)
}

/// The register after a part of it is written: 32-bit writes clear the upper half, narrower ones leave the rest.
fn merge(old: u64, value: u64, width: u8, high: bool) -> u64 {
    match (width, high) {
        (1, true) => old & !0xFF00 | (value & 0xFF) << 8,
        (1 | 2, _) => old & !mask(width) | value & mask(width),
        _ => value & mask(width),
    }
}

const fn mask(width: u8) -> u64 {
    if width >= 8 {
        u64::MAX
    } else {
        (1 << (8 * width as u32)) - 1
    }
}

const fn bit(set: bool, flag: u64) -> u64 {
    if set { flag } else { 0 }
}
