//! Instructions that touch device memory.

use oxen_core::emulate::{CodeSize, DecodeError, address_mask, decode, instruction_length};

use super::{byte, target};

/// Most bytes of an instruction (SDM vol. 2, 2.3.11).
const LONGEST: usize = 15;

/// An instruction is as long as what it needs: no byte behind it matters, and none of its own can be missing.
#[test]
fn instructions() {
    target("instructions").iterations(100_000).run(|mut input| {
        let mode = match byte(&mut input) % 3 {
            0 => CodeSize::Bits16,
            1 => CodeSize::Bits32,
            _ => CodeSize::Bits64,
        };
        let bytes = &input[..input.len().min(LONGEST)];
        address_mask(bytes, mode);
        if let Some(length) = instruction_length(bytes, mode) {
            let length = usize::from(length);
            assert_eq!(
                instruction_length(&bytes[..length], mode),
                Some(bytes[..length].len() as u8)
            );
            assert_eq!(instruction_length(&bytes[..length - 1], mode), None);
        }
        let instruction = decode(bytes, mode)?;
        let length = usize::from(instruction.length);
        assert_eq!(decode(&bytes[..length], mode), Ok(instruction));
        for cut in 0..length {
            assert_eq!(decode(&bytes[..cut], mode), Err(DecodeError::TooShort));
        }
        assert!(matches!(instruction.width, 1 | 2 | 4 | 8));
        for memory in [0, u64::MAX, 0x8000_0000_0000_0080] {
            let outcome = instruction.execute(memory, 0x0123_4567_89AB_CDEF, 2);
            let mask = u64::MAX >> (64 - 8 * instruction.width);
            assert!(outcome.memory.is_none_or(|value| value & !mask == 0));
            assert!(outcome.register.is_none_or(|(index, _)| index < 16));
            assert!(outcome.rflags.is_none_or(|flags| flags & 2 != 0));
        }
        Ok::<_, DecodeError>((length, instruction.width, instruction.operation))
    });
}
