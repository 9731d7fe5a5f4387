//! Decoding and execution of the instructions that touch emulated device memory.
//!
//! The hypervisor knows the guest-physical address from the fault, so an effective address is never computed: the
//! decoder finds the length, the width, the operation and the register operand.

mod decode;
mod execute;

pub use decode::{decode, instruction_length};
pub use execute::Outcome;

/// How the CPU reads instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// Real mode and 16-bit segments.
    Bits16,
    /// 32-bit segments.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

/// The bytes are not an instruction that can be emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The instruction goes on past the given bytes.
    TooShort,
    /// An opcode, or a form of it, that no driver uses on device memory.
    Unsupported,
}

/// A string instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringKind {
    /// STOS.
    Store,
    /// MOVS.
    Move,
}

/// What is computed of the memory operand and the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// ADD.
    Add,
    /// OR.
    Or,
    /// AND, and TEST where nothing is written.
    And,
    /// SUB, and CMP where nothing is written.
    Subtract,
    /// XOR.
    Xor,
}

/// What the instruction does with its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Memory to register, extended to the register's width.
    Load {
        /// Width of the register in bytes.
        register_width: u8,
        /// Whether the sign is extended.
        signed: bool,
    },
    /// Register or immediate to memory.
    Store,
    /// Memory ← memory op operand, with flags; or only the flags.
    Modify {
        /// The computation.
        arithmetic: Arithmetic,
        /// Whether the result goes anywhere.
        write: bool,
    },
    /// Register ← register op memory, with flags; or only the flags.
    Accumulate {
        /// The computation.
        arithmetic: Arithmetic,
        /// Whether the result goes anywhere.
        write: bool,
    },
    /// XCHG.
    Exchange,
    /// STOS or MOVS.
    String(StringKind),
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioInstruction {
    /// Bytes of the instruction.
    pub length: u8,
    /// Bytes of the memory operand.
    pub width: u8,
    /// What it does.
    pub operation: Operation,
    /// The register operand: its encoding, and whether it is bits 15:8 of it (AH to BH).
    pub register: Option<(u8, bool)>,
    /// The immediate operand, sign-extended.
    pub immediate: Option<u64>,
    /// Whether it has a REP prefix.
    pub repeat: bool,
    /// Mask of the address size, for the registers of string instructions.
    pub address_mask: u64,
}

impl MmioInstruction {
    /// Whether the memory operand is read.
    pub const fn reads_memory(&self) -> bool {
        !matches!(self.operation, Operation::Store | Operation::String(_))
    }

    /// Encoding of the register operand.
    pub fn source_register(&self) -> Option<u8> {
        self.register.map(|(index, _)| index)
    }
}

/// Mask of the registers that address memory in the instruction at the start of `bytes`.
pub fn address_mask(bytes: &[u8], mode: CodeSize) -> u64 {
    decode::Prefixes::parse(bytes, mode).map_or(u64::MAX, |prefixes| prefixes.address_mask())
}

#[cfg(test)]
mod tests;
