use super::*;
use proptest::prelude::*;

fn long(bytes: &[u8]) -> MmioInstruction {
    decode(bytes, CodeSize::Bits64).expect("a supported instruction")
}

#[test]
fn plain_moves_of_64_bit_code() {
    // mov eax, [rdi]
    let load = long(&[0x8B, 0x07, 0x90]);
    assert_eq!(
        (load.length, load.width, load.register),
        (2, 4, Some((0, false)))
    );
    assert_eq!(
        load.execute(0xFFFF_FFFF, u64::MAX, 2).register,
        Some((0, 0xFFFF_FFFF))
    );
    // mov [rax + 0x80], r9d
    let store = long(&[0x44, 0x89, 0x88, 0x80, 0, 0, 0]);
    assert_eq!((store.length, store.register), (7, Some((9, false))));
    assert_eq!(store.execute(0, 0x1_2345_6789, 2).memory, Some(0x2345_6789));
    // mov dword ptr [rip + 0x10], 0xFEE
    let immediate = long(&[0xC7, 0x05, 0x10, 0, 0, 0, 0xEE, 0x0F, 0, 0]);
    assert_eq!((immediate.length, immediate.immediate), (10, Some(0xFEE)));
    // mov rax, moffs64
    assert_eq!(long(&[0x48, 0xA1, 0, 0, 0, 0, 0, 0, 0, 0]).length, 10);
    // mov [rsp + rcx*4 + 8], bx
    assert_eq!(long(&[0x66, 0x89, 0x5C, 0x8C, 0x08]).width, 2);
}

#[test]
fn byte_registers_with_and_without_rex() {
    // mov ah, [rdi]; mov spl, [rdi]
    assert_eq!(long(&[0x8A, 0x27]).register, Some((0, true)));
    assert_eq!(
        long(&[0x8A, 0x27]).execute(0xAB, 0x1111, 2).register,
        Some((0, 0xAB11))
    );
    assert_eq!(long(&[0x40, 0x8A, 0x27]).register, Some((4, false)));
}

#[test]
fn extensions_fill_the_register() {
    // movzx eax, byte ptr [rdi]; movsx rax, word ptr [rdi]; movsxd rax, dword ptr [rdi]
    assert_eq!(
        long(&[0x0F, 0xB6, 0x07])
            .execute(0xFF, u64::MAX, 2)
            .register,
        Some((0, 0xFF))
    );
    assert_eq!(
        long(&[0x48, 0x0F, 0xBF, 0x07])
            .execute(0x8000, 0, 2)
            .register,
        Some((0, 0xFFFF_FFFF_FFFF_8000))
    );
    assert_eq!(
        long(&[0x48, 0x63, 0x07])
            .execute(0x8000_0000, 0, 2)
            .register,
        Some((0, 0xFFFF_FFFF_8000_0000))
    );
}

#[test]
fn arithmetic_sets_flags_as_the_cpu_does() {
    // test dword ptr [rdi], 1 → ZF, PF
    let test = long(&[0xF7, 0x07, 1, 0, 0, 0]);
    let outcome = test.execute(2, 0, 2);
    assert_eq!(
        (outcome.memory, outcome.rflags),
        (None, Some(2 | 1 << 6 | 1 << 2))
    );
    // or dword ptr [rdi], 0x10 (sign-extended byte)
    assert_eq!(
        long(&[0x83, 0x0F, 0x10]).execute(1, 0, 2).memory,
        Some(0x11)
    );
    // cmp eax, [rdi] with eax < memory → CF, SF, AF
    let compare = long(&[0x3B, 0x07]).execute(2, 1, 2);
    assert_eq!(
        (compare.register, compare.rflags.map(|flags| flags & 0x81)),
        (None, Some(0x81))
    );
    // xchg [rdi], ecx
    let exchange = long(&[0x87, 0x0F]).execute(5, 7, 2);
    assert_eq!(
        (exchange.memory, exchange.register),
        (Some(7), Some((1, 5)))
    );
}

#[test]
fn sixteen_bit_forms_and_strings() {
    // mov ax, [0x1234] in real mode; rep movsd
    let load = decode(&[0x8B, 0x06, 0x34, 0x12], CodeSize::Bits16).expect("supported");
    assert_eq!((load.length, load.width), (4, 2));
    let string = long(&[0xF3, 0xA5]);
    assert_eq!(
        (string.operation, string.repeat, string.width),
        (Operation::String(StringKind::Move), true, 4)
    );
    assert_eq!(
        decode(&[0xA5], CodeSize::Bits16).map(|i| i.address_mask),
        Ok(0xFFFF)
    );
}

#[test]
fn what_cannot_be_emulated_is_named() {
    assert_eq!(
        decode(&[0x8B], CodeSize::Bits64),
        Err(DecodeError::TooShort)
    );
    assert_eq!(
        decode(&[0x0F, 0x6F, 0x07], CodeSize::Bits64),
        Err(DecodeError::Unsupported)
    );
    assert_eq!(
        decode(&[0x8B, 0xC0], CodeSize::Bits64),
        Err(DecodeError::Unsupported)
    );
    assert_eq!(decode(&[], CodeSize::Bits64), Err(DecodeError::TooShort));
}

#[test]
fn lengths_of_instructions_that_exit() {
    let length = |bytes: &[u8]| instruction_length(bytes, CodeSize::Bits64);
    assert_eq!(length(&[0x0F, 0xA2]), Some(2));
    assert_eq!(length(&[0x66, 0x0F, 0xA2]), Some(3));
    assert_eq!(length(&[0x0F, 0x01, 0xD9]), Some(3));
    assert_eq!(length(&[0xF4]), Some(1));
    assert_eq!(length(&[0xF3, 0x6E]), Some(2));
    assert_eq!(length(&[0xC3]), None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..16), mode in 0..3) {
        let mode = [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64][mode as usize];
        if let Ok(instruction) = decode(&bytes, mode) {
            prop_assert!(usize::from(instruction.length) <= bytes.len());
            instruction.execute(u64::MAX, 1, 2);
        }
        instruction_length(&bytes, mode);
        address_mask(&bytes, mode);
    }
}
