//! Walks of page tables that a guest can fill with anything.

use std::cell::Cell;

use oxen_core::address::{GuestLinear, GuestPhys};
use oxen_core::memory::walk::{Access, GuestPhysRead, Paging, translate};

use super::{byte, number, target};

/// Guest memory from address 0, and how often a walk read it.
struct Memory<'a>(&'a [u8], Cell<u32>);

impl Memory<'_> {
    fn read<const N: usize>(&self, address: GuestPhys) -> Option<[u8; N]> {
        assert!(
            address.0.is_multiple_of(N as u64),
            "an entry lies across pages"
        );
        assert!(address.0 >> 52 == 0, "no such physical address");
        self.1.set(self.1.get() + 1);
        let start = usize::try_from(address.0).ok()?;
        let rest = self.0.get(start..)?;
        // The last entry may be cut short.
        let mut bytes = [0; N];
        let count = rest.len().min(N);
        bytes[..count].copy_from_slice(&rest[..count]);
        Some(bytes)
    }
}

impl GuestPhysRead for Memory<'_> {
    fn read_u64(&self, address: GuestPhys) -> Option<u64> {
        self.read(address).map(u64::from_le_bytes)
    }

    fn read_u32(&self, address: GuestPhys) -> Option<u32> {
        self.read(address).map(u32::from_le_bytes)
    }
}

/// Registers of the five ways to walk, with all protections that they know if `strict`.
fn paging(mode: u8, cr3: u64, strict: bool) -> Paging {
    let (cr0, cr4, efer) = match mode % 5 {
        0 => (1 << 31, 1 << 4, 0),
        1 => (1 << 31, 1 << 5, 0),
        2 => (1 << 31, 1 << 5, 1 << 10),
        3 => (1 << 31, 1 << 5 | 1 << 12, 1 << 10),
        _ => (0, 0, 0),
    };
    let (write_protect, smep_smap, no_execute) = (1 << 16, 0b11 << 20, 1 << 11);
    Paging {
        cr0: cr0 | if strict { write_protect } else { 0 },
        cr3,
        cr4: cr4 | if strict { smep_smap } else { 0 },
        efer: efer | if strict { no_execute } else { 0 },
        rflags: 0,
    }
}

#[test]
fn page_walks() {
    target("page_walks").iterations(60_000).run(|mut input| {
        let (mode, kind) = (byte(&mut input), byte(&mut input));
        let (cr3, linear) = (number(&mut input), GuestLinear(number(&mut input)));
        let memory = Memory(input, Cell::new(0));
        let access = Access {
            write: kind & 1 != 0,
            user: kind & 2 != 0,
            execute: kind & 4 != 0,
        };
        let walk = |access, strict| translate(&memory, &paging(mode, cr3, strict), linear, access);
        let found = walk(access, true);
        assert!(memory.1.get() <= 5, "a walk has five levels at most");
        match found {
            Ok(translation) => {
                // What is refused to nobody with all protections on is there without them, too.
                assert_eq!(walk(access, false), found);
                assert_eq!(translation.address.0 & 0xFFF, linear.0 & 0xFFF);
                assert!(matches!(translation.page_shift, 12 | 21 | 22 | 30 | 32));
                assert!(translation.address.0 >> 52 == 0);
                if access.write {
                    let read = Access {
                        write: false,
                        ..access
                    };
                    assert_eq!(walk(read, true), found);
                }
            }
            // The error code says what the access was (SDM vol. 3, 4.7).
            Err(fault) => assert_eq!(
                fault.error_code & !1,
                u32::from(access.write) << 1
                    | u32::from(access.user) << 2
                    | u32::from(access.execute) << 4
            ),
        }
        (
            mode % 5,
            found.map(|translation| translation.page_shift),
            memory.1.get(),
        )
    });
}
