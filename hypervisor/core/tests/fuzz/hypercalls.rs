//! Registers and structures of hypercalls.

use std::cell::Cell;

use oxen_abi::memory::{
    ADD_TO_PHYSMAP_NARROW, ADD_TO_PHYSMAP_SIZE, MEMORY_MAP_NARROW, MEMORY_MAP_SIZE,
    REMOVE_FROM_PHYSMAP_NARROW, REMOVE_FROM_PHYSMAP_SIZE,
};
use oxen_abi::sched::{POLL_NARROW, POLL_SIZE};
use oxen_abi::{Errno, Narrow};
use oxen_core::hypercall::{Argument, Caller, Convention};

use super::{byte, number, target};

/// A caller with some memory from address 0, and what of it was read last.
struct Guest<'a> {
    is_64_bit: bool,
    memory: &'a [u8],
    read: Cell<usize>,
}

impl Caller for Guest<'_> {
    fn is_64_bit(&self) -> bool {
        self.is_64_bit
    }

    fn copy_in(&self, pointer: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        self.read.set(bytes.len());
        let rest = usize::try_from(pointer)
            .ok()
            .and_then(|start| self.memory.get(start..));
        let part = rest
            .and_then(|rest| rest.get(..bytes.len()))
            .ok_or(Errno::Fault)?;
        bytes.copy_from_slice(part);
        Ok(())
    }

    fn copy_out(&self, _: u64, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::Fault)
    }
}

/// Each field is what the caller has at its place, in the caller's own layout, and nothing else is taken from it.
fn structure<const N: usize>(
    guest: &Guest<'_>,
    pointer: u64,
    narrow: &Narrow,
) -> Result<(), Errno> {
    let argument = Argument::<N>::read_either(guest, pointer, narrow)?;
    let from = &guest.memory[pointer as usize..];
    if guest.is_64_bit {
        assert_eq!((guest.read.get(), &argument.bytes()[..]), (N, &from[..N]));
        return Ok(());
    }
    let mut expected = [0; N];
    for &(small, wide, size) in narrow {
        expected[wide..wide + size].copy_from_slice(&from[small..small + size]);
        assert!(small + size <= guest.read.get() && guest.read.get() <= N);
    }
    assert_eq!(argument.bytes(), &expected);
    Ok(())
}

#[test]
fn hypercalls() {
    target("hypercalls").iterations(60_000).run(|mut input| {
        let is_64_bit = byte(&mut input) & 1 != 0;
        let mut registers: [u64; 16] = std::array::from_fn(|_| number(&mut input));
        let convention = Convention::of(is_64_bit);
        let arguments = convention.arguments(&registers);
        let wide = convention.number(&registers) >> 32 != 0
            || arguments.iter().any(|argument| argument >> 32 != 0);
        assert!(is_64_bit || !wide, "a 32-bit caller has no such registers");

        let guest = Guest {
            is_64_bit,
            memory: input,
            read: Cell::new(0),
        };
        let pointer = arguments[1];
        let results = [
            structure::<POLL_SIZE>(&guest, pointer, POLL_NARROW),
            structure::<ADD_TO_PHYSMAP_SIZE>(&guest, pointer, ADD_TO_PHYSMAP_NARROW),
            structure::<REMOVE_FROM_PHYSMAP_SIZE>(&guest, pointer, REMOVE_FROM_PHYSMAP_NARROW),
            structure::<MEMORY_MAP_SIZE>(&guest, pointer, MEMORY_MAP_NARROW),
        ];

        // A call that goes on has the same arguments but for the one that was set.
        for index in 0..5 {
            convention.set_argument(&mut registers, index, 7);
            let mut expected = arguments;
            expected[..=index].fill(7);
            assert_eq!(convention.arguments(&registers), expected);
        }
        (is_64_bit, results)
    });
}
