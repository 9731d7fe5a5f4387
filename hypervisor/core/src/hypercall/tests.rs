//! Arguments of callers in 64-bit and in 32-bit code.

use std::cell::RefCell;

use oxen_abi::Errno;
use oxen_abi::sched::{POLL_NARROW, POLL_SIZE};

use super::{Argument, Caller, Convention};

/// A caller with 32 bytes of memory.
struct Guest {
    is_64_bit: bool,
    memory: RefCell<[u8; 32]>,
}

const START: u64 = 0x1000;

impl Guest {
    /// One whose bytes are their own offsets.
    fn new(is_64_bit: bool) -> Self {
        Self {
            is_64_bit,
            memory: RefCell::new(std::array::from_fn(|offset| offset as u8)),
        }
    }

    fn with<T>(
        &self,
        pointer: u64,
        length: usize,
        copy: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, Errno> {
        let start = pointer.wrapping_sub(START) as usize;
        let end = start.checked_add(length).ok_or(Errno::Fault)?;
        let mut memory = self.memory.borrow_mut();
        memory.get_mut(start..end).map(copy).ok_or(Errno::Fault)
    }
}

impl Caller for Guest {
    fn is_64_bit(&self) -> bool {
        self.is_64_bit
    }

    fn copy_in(&self, pointer: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        self.with(pointer, bytes.len(), |from| bytes.copy_from_slice(from))
    }

    fn copy_out(&self, pointer: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.with(pointer, bytes.len(), |to| to.copy_from_slice(bytes))
    }
}

/// Each register holds its own encoding in every byte.
fn registers() -> [u64; 16] {
    std::array::from_fn(|register| u64::from_le_bytes([register as u8; 8]))
}

#[test]
fn arguments_come_in_the_order_of_the_public_headers() {
    const RSI: u64 = 0x0606_0606_0606_0606;
    let long = Convention::of(true);
    assert_eq!(long.number(&registers()), 0);
    let first_bytes = long.arguments(&registers()).map(|argument| argument & 0xFF);
    assert_eq!(first_bytes, [7, 6, 2, 10, 8]);
    assert_eq!(long.arguments(&registers())[1], RSI);

    let narrow = Convention::of(false);
    let first_bytes = narrow
        .arguments(&registers())
        .map(|argument| argument & 0xFF);
    assert_eq!(first_bytes, [3, 1, 2, 6, 7]);
    assert_eq!(narrow.arguments(&registers())[3], RSI & 0xFFFF_FFFF);
}

#[test]
fn a_32_bit_caller_gets_32_bits_back() {
    let call = |is_64_bit| {
        let mut registers = registers();
        let convention = Convention::of(is_64_bit);
        convention.set_result(&mut registers, Err(Errno::NoSys));
        convention.set_argument(&mut registers, 0, 0x1_0000_0002);
        (registers[0], convention.arguments(&registers)[0])
    };
    assert_eq!(call(true), (-38i64 as u64, 0x1_0000_0002));
    assert_eq!(call(false), (-38i32 as u32 as u64, 2));
}

#[test]
fn a_call_that_goes_on_changes_no_other_register() {
    for is_64_bit in [false, true] {
        let convention = Convention::of(is_64_bit);
        for index in 0..5 {
            let mut changed = registers();
            convention.set_argument(&mut changed, index, 5);
            let differ = registers()
                .iter()
                .zip(&changed)
                .filter(|(a, b)| a != b)
                .count();
            assert_eq!((differ, convention.arguments(&changed)[index]), (1, 5));
        }
    }
}

#[test]
fn a_structure_of_a_32_bit_caller_becomes_the_64_bit_one() {
    let read =
        |is_64_bit| Argument::<POLL_SIZE>::read_either(&Guest::new(is_64_bit), START, POLL_NARROW);
    let long = read(true).expect("it is there");
    assert_eq!(
        (long.u32(0), long.u32(8), long.u32(16)),
        (0x0302_0100, 0x0B0A_0908, 0x1312_1110)
    );
    let narrow = read(false).expect("it is there");
    assert_eq!(narrow.u64(0), 0x0302_0100);
    assert_eq!(narrow.u64(8), 0x0706_0504);
    assert_eq!(narrow.u64(16), 0x0F0E_0D0C_0B0A_0908);
}

#[test]
fn a_32_bit_structure_is_read_to_its_own_end_only() {
    // The 64-bit one would go on behind the last byte.
    let at = START + 32 - 16;
    let read =
        |is_64_bit| Argument::<POLL_SIZE>::read_either(&Guest::new(is_64_bit), at, POLL_NARROW);
    assert_eq!(read(true), Err(Errno::Fault));
    assert!(read(false).is_ok());
}

#[test]
fn fields_that_were_set_are_written_back() {
    let guest = Guest::new(true);
    let mut argument = Argument::<16>::read(&guest, START).expect("it is there");
    argument.set_u8(0, 0xFF);
    argument.set_u16(2, 0xEEDD);
    argument.set_u32(4, 0xCCBB_AA99);
    argument.set_u64(8, 0x8877_6655_4433_2211);
    assert_eq!(argument.write(&guest, START + 16), Ok(()));
    let back = Argument::<16>::read(&guest, START + 16).expect("it is there");
    assert_eq!(back, argument);
    assert_eq!(back.bytes()[..4], [0xFF, 1, 0xDD, 0xEE]);
    assert_eq!(
        (back.u16(2), back.u32(4), back.u64(8)),
        (0xEEDD, 0xCCBB_AA99, 0x8877_6655_4433_2211)
    );
    assert_eq!(argument.write(&guest, START + 17), Err(Errno::Fault));
}
