//! Which registers carry what (`public/arch-x86/xen-x86_64.h`, `xen-x86_32.h`).

use oxen_abi::Errno;

/// A hypercall's arguments as the guest passed them.
pub type Arguments = [u64; 5];

/// General-purpose registers by their x86 encoding.
type Gprs = [u64; 16];

const RAX: usize = 0;

/// How a caller passes number, arguments and result.
#[derive(Debug, PartialEq, Eq)]
pub struct Convention {
    arguments: [usize; 5],
    /// Bits of a register that count.
    mask: u64,
}

impl Convention {
    /// RDI, RSI, RDX, R10, R8.
    const BITS_64: Self = Self {
        arguments: [7, 6, 2, 10, 8],
        mask: u64::MAX,
    };

    /// EBX, ECX, EDX, ESI, EDI.
    const BITS_32: Self = Self {
        arguments: [3, 1, 2, 6, 7],
        mask: 0xFFFF_FFFF,
    };

    /// That of callers in 64-bit code, or in any other.
    pub const fn of(is_64_bit: bool) -> &'static Self {
        if is_64_bit {
            &Self::BITS_64
        } else {
            &Self::BITS_32
        }
    }

    /// The hypercall's number.
    pub const fn number(&self, registers: &Gprs) -> u64 {
        registers[RAX] & self.mask
    }

    /// Its arguments.
    pub fn arguments(&self, registers: &Gprs) -> Arguments {
        // The remainder spares the hot path a check for each.
        self.arguments
            .map(|register| registers[register % 16] & self.mask)
    }

    /// Sets argument `index`, which there is, for a call that goes on where it is.
    pub const fn set_argument(&self, registers: &mut Gprs, index: usize, value: u64) {
        registers[self.arguments[index]] = value & self.mask;
    }

    /// Sets what the call returns.
    pub const fn set_result(&self, registers: &mut Gprs, result: Result<u64, Errno>) {
        let value = match result {
            Ok(value) => value,
            Err(error) => error.encode(),
        };
        registers[RAX] = value & self.mask;
    }
}
