//! The decoder.

use super::{Arithmetic, CodeSize, DecodeError, MmioInstruction, Operation, StringKind};

/// Prefixes and REX, and where the opcode begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefixes {
    mode: CodeSize,
    operand_override: bool,
    address_override: bool,
    repeat: bool,
    rex: u8,
    opcode_at: usize,
}

impl Prefixes {
    pub(super) fn parse(bytes: &[u8], mode: CodeSize) -> Result<Self, DecodeError> {
        let mut this = Self {
            mode,
            operand_override: false,
            address_override: false,
            repeat: false,
            rex: 0,
            opcode_at: 0,
        };
        loop {
            let byte = *bytes.get(this.opcode_at).ok_or(DecodeError::TooShort)?;
            match byte {
                0x66 => this.operand_override = true,
                0x67 => this.address_override = true,
                0xF2 | 0xF3 => this.repeat = true,
                0xF0 | 0x2E | 0x36 | 0x3E | 0x26 | 0x64 | 0x65 => {}
                0x40..=0x4F if mode == CodeSize::Bits64 => {
                    // REX counts only right before the opcode.
                    this.rex = byte;
                    this.opcode_at += 1;
                    let next = *bytes.get(this.opcode_at).ok_or(DecodeError::TooShort)?;
                    let prefix = matches!(
                        next,
                        0x40..=0x4F
                            | 0x66
                            | 0x67
                            | 0xF0
                            | 0xF2
                            | 0xF3
                            | 0x2E
                            | 0x36
                            | 0x3E
                            | 0x26
                            | 0x64
                            | 0x65
                    );
                    if prefix {
                        this.rex = 0;
                        continue;
                    }
                    return Ok(this);
                }
                _ => return Ok(this),
            }
            this.opcode_at += 1;
        }
    }

    pub(super) const fn address_mask(&self) -> u64 {
        match (self.mode, self.address_override) {
            (CodeSize::Bits64, false) => u64::MAX,
            (CodeSize::Bits64, true) | (CodeSize::Bits32, false) | (CodeSize::Bits16, true) => {
                0xFFFF_FFFF
            }
            (CodeSize::Bits32, true) | (CodeSize::Bits16, false) => 0xFFFF,
        }
    }

    const fn operand_width(&self) -> u8 {
        if self.rex & 8 != 0 {
            return 8;
        }
        match (self.mode, self.operand_override) {
            (CodeSize::Bits16, false) | (CodeSize::Bits32 | CodeSize::Bits64, true) => 2,
            _ => 4,
        }
    }
}

/// How an opcode's operands and operation are found.
#[derive(Clone, Copy)]
enum Form {
    /// ModRM with a register operand.
    Register(Operation),
    /// ModRM and an immediate.
    Immediate(Operation),
    /// ModRM whose register field selects the arithmetic, and an immediate; the flag says the immediate is one byte.
    Group1 { byte_immediate: bool },
    /// TEST with an immediate (register field 0 or 1).
    Group3,
    /// Accumulator and an absolute address.
    Absolute(Operation),
    /// Implicit registers.
    String(StringKind),
    /// MOVZX or MOVSX: the memory operand's width is fixed.
    Extend { width: u8, signed: bool },
}

const LOAD: Operation = Operation::Load {
    register_width: 0,
    signed: false,
};

/// One-byte opcodes with the width of their operands: true is one byte.
fn one_byte(opcode: u8) -> Option<(Form, bool)> {
    let byte = opcode & 1 == 0;
    let form = match opcode {
        0x88 | 0x89 => Form::Register(Operation::Store),
        0x8A | 0x8B => Form::Register(LOAD),
        0xC6 | 0xC7 => Form::Immediate(Operation::Store),
        0xA0 | 0xA1 => Form::Absolute(LOAD),
        0xA2 | 0xA3 => Form::Absolute(Operation::Store),
        0xA4 | 0xA5 => Form::String(StringKind::Move),
        0xAA | 0xAB => Form::String(StringKind::Store),
        0x86 | 0x87 => Form::Register(Operation::Exchange),
        0x84 | 0x85 => Form::Register(Operation::Modify {
            arithmetic: Arithmetic::And,
            write: false,
        }),
        0x80 | 0x81 => Form::Group1 {
            byte_immediate: opcode == 0x80,
        },
        0x83 => {
            return Some((
                Form::Group1 {
                    byte_immediate: true,
                },
                false,
            ));
        }
        0xF6 | 0xF7 => Form::Group3,
        0x63 => {
            return Some((
                Form::Extend {
                    width: 4,
                    signed: true,
                },
                false,
            ));
        }
        0x00..=0x3B if opcode & 7 < 4 => {
            let (arithmetic, write) = arithmetic(opcode >> 3)?;
            if opcode & 2 == 0 {
                Form::Register(Operation::Modify { arithmetic, write })
            } else {
                Form::Register(Operation::Accumulate { arithmetic, write })
            }
        }
        _ => return None,
    };
    Some((form, byte))
}

fn two_byte(opcode: u8) -> Option<Form> {
    Some(match opcode {
        0xB6 => Form::Extend {
            width: 1,
            signed: false,
        },
        0xB7 => Form::Extend {
            width: 2,
            signed: false,
        },
        0xBE => Form::Extend {
            width: 1,
            signed: true,
        },
        0xBF => Form::Extend {
            width: 2,
            signed: true,
        },
        _ => return None,
    })
}

/// The arithmetic of opcode row or ModRM field `number`, and whether its result is written. ADC and SBB are not used.
const fn arithmetic(number: u8) -> Option<(Arithmetic, bool)> {
    match number {
        0 => Some((Arithmetic::Add, true)),
        1 => Some((Arithmetic::Or, true)),
        4 => Some((Arithmetic::And, true)),
        5 => Some((Arithmetic::Subtract, true)),
        6 => Some((Arithmetic::Xor, true)),
        7 => Some((Arithmetic::Subtract, false)),
        _ => None,
    }
}

/// Decodes the instruction at the start of `bytes`.
///
/// # Errors
/// The instruction does not end within `bytes`, or cannot be emulated.
pub fn decode(bytes: &[u8], mode: CodeSize) -> Result<MmioInstruction, DecodeError> {
    let prefixes = Prefixes::parse(bytes, mode)?;
    let opcode = *bytes.get(prefixes.opcode_at).ok_or(DecodeError::TooShort)?;
    let (form, byte, at) = if opcode == 0x0F {
        let second = *bytes
            .get(prefixes.opcode_at + 1)
            .ok_or(DecodeError::TooShort)?;
        (
            two_byte(second).ok_or(DecodeError::Unsupported)?,
            false,
            prefixes.opcode_at + 2,
        )
    } else {
        let (form, byte) = one_byte(opcode).ok_or(DecodeError::Unsupported)?;
        (form, byte, prefixes.opcode_at + 1)
    };
    let wide = prefixes.operand_width();
    let width = if byte { 1 } else { wide };
    let mut decoder = Decoder {
        bytes,
        prefixes,
        at,
    };
    let (operation, width, register, immediate) = match form {
        Form::Register(operation) => {
            let field = decoder.modrm()?;
            let operation = match operation {
                Operation::Load { .. } => Operation::Load {
                    register_width: width,
                    signed: false,
                },
                other => other,
            };
            (operation, width, Some(decoder.register(field, byte)), None)
        }
        Form::Immediate(operation) => {
            if decoder.modrm()? & 7 != 0 {
                return Err(DecodeError::Unsupported);
            }
            (operation, width, None, Some(decoder.immediate(width)?))
        }
        Form::Group1 { byte_immediate } => {
            let (arithmetic, write) =
                arithmetic(decoder.modrm()? & 7).ok_or(DecodeError::Unsupported)?;
            let immediate = decoder.immediate(if byte_immediate { 1 } else { width })?;
            (
                Operation::Modify { arithmetic, write },
                width,
                None,
                Some(immediate),
            )
        }
        Form::Group3 => {
            if decoder.modrm()? & 7 > 1 {
                return Err(DecodeError::Unsupported);
            }
            let operation = Operation::Modify {
                arithmetic: Arithmetic::And,
                write: false,
            };
            (operation, width, None, Some(decoder.immediate(width)?))
        }
        Form::Absolute(operation) => {
            decoder.take(address_bytes(&decoder.prefixes))?;
            let operation = match operation {
                Operation::Load { .. } => Operation::Load {
                    register_width: width,
                    signed: false,
                },
                other => other,
            };
            (operation, width, Some((0, false)), None)
        }
        Form::String(kind) => (Operation::String(kind), width, None, None),
        Form::Extend { width, signed } => {
            if opcode == 0x63 && mode != CodeSize::Bits64 {
                return Err(DecodeError::Unsupported);
            }
            let field = decoder.modrm()?;
            (
                Operation::Load {
                    register_width: wide,
                    signed,
                },
                width,
                Some((field, false)),
                None,
            )
        }
    };
    Ok(MmioInstruction {
        length: u8::try_from(decoder.at).map_err(|_| DecodeError::Unsupported)?,
        width,
        operation,
        register,
        immediate,
        repeat: prefixes.repeat,
        address_mask: prefixes.address_mask(),
    })
}

/// Length of an instruction that always exits (CPUID, HLT, RDMSR, VMCALL, port accesses and their like), for CPUs that do
/// not report it. `None` for any other, and for one that is cut off.
pub fn instruction_length(bytes: &[u8], mode: CodeSize) -> Option<u8> {
    let prefixes = Prefixes::parse(bytes, mode).ok()?;
    let at = prefixes.opcode_at;
    let body = match *bytes.get(at)? {
        // CPUID, RDMSR, WRMSR, INVD, WBINVD, RDPMC; three bytes: VMCALL, VMMCALL, XSETBV. MOV CR8 has a ModRM byte.
        0x0F => match *bytes.get(at + 1)? {
            0x01 | 0x20 | 0x22 => 3,
            _ => 2,
        },
        // IN and OUT with an immediate port.
        0xE4..=0xE7 => 2,
        // HLT, INS, OUTS, IN and OUT by DX, PAUSE (its F3 is a prefix).
        0xF4 | 0x6C..=0x6F | 0xEC..=0xEF | 0x90 => 1,
        _ => return None,
    };
    u8::try_from(bytes.get(..at + body)?.len()).ok()
}

const fn address_bytes(prefixes: &Prefixes) -> usize {
    match prefixes.address_mask() {
        u64::MAX => 8,
        0xFFFF => 2,
        _ => 4,
    }
}

struct Decoder<'a> {
    bytes: &'a [u8],
    prefixes: Prefixes,
    at: usize,
}

impl Decoder<'_> {
    fn take(&mut self, count: usize) -> Result<u64, DecodeError> {
        let part = self
            .bytes
            .get(self.at..self.at + count)
            .ok_or(DecodeError::TooShort)?;
        self.at += count;
        Ok(part
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// Reads ModRM, SIB and displacement; returns the register field with its REX bit. A register as the memory operand
    /// cannot have faulted.
    fn modrm(&mut self) -> Result<u8, DecodeError> {
        let modrm = self.take(1)? as u8;
        let (mode, memory) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            return Err(DecodeError::Unsupported);
        }
        let displacement = if self.prefixes.address_mask() == 0xFFFF {
            match (mode, memory) {
                (0, 6) | (2, _) => 2,
                (1, _) => 1,
                _ => 0,
            }
        } else {
            let base = if memory == 4 {
                self.take(1)? as u8 & 7
            } else {
                memory
            };
            match (mode, base) {
                (0, 5) | (2, _) => 4,
                (1, _) => 1,
                _ => 0,
            }
        };
        self.take(displacement)?;
        Ok(modrm >> 3 & 7 | (self.prefixes.rex & 4) << 1)
    }

    /// Byte registers 4 to 7 are AH to BH unless there is a REX prefix.
    const fn register(&self, field: u8, byte: bool) -> (u8, bool) {
        if byte && self.prefixes.rex == 0 && field >= 4 {
            (field - 4, true)
        } else {
            (field, false)
        }
    }

    fn immediate(&mut self, width: u8) -> Result<u64, DecodeError> {
        let bytes = width.min(4);
        let value = self.take(usize::from(bytes))?;
        let unused = 64 - 8 * u32::from(bytes);
        Ok(((value << unused) as i64 >> unused) as u64)
    }
}
