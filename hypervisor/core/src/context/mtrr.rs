//! The MTRR record (`hvm_hw_mtrr`): memory types, which guests set and read back.

use oxen_abi::Errno;
use oxen_abi::domctl::context as record;

use super::check::is_pat;
use super::{long, put};

/// MTRRcap: eight variable ranges, fixed ones, write-combining (SDM vol. 3, figure 12-5).
pub const CAPABILITIES: u64 = 0x508;
const FIXED: usize = 136;
const CAPABILITY: usize = 224;
const DEFAULT: usize = 232;

/// Memory types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtrr {
    /// Page-attribute table.
    pub pat: u64,
    /// Bases and masks of the variable ranges by turns.
    pub variable: [u64; 16],
    /// Fixed ranges.
    pub fixed: [u64; 11],
    /// Default type, and what is on.
    pub default: u64,
}

impl Mtrr {
    /// Reads and checks a record.
    ///
    /// # Errors
    /// `Inval` for memory types that there are not, and for more ranges than eight.
    pub fn read(bytes: &[u8; record::MTRR_SIZE]) -> Result<Self, Errno> {
        const COUNT: u64 = 0xFF;
        const DEFINED: u64 = 0xCFF;
        let mtrr = Self {
            pat: long(bytes, 0),
            variable: core::array::from_fn(|index| long(bytes, 8 + 8 * index)),
            fixed: core::array::from_fn(|index| long(bytes, FIXED + 8 * index)),
            default: long(bytes, DEFAULT),
        };
        let bases = mtrr.variable.iter().step_by(2);
        let fits = is_pat(mtrr.pat)
            && mtrr.default & !DEFINED == 0
            && is_type(mtrr.default as u8)
            && long(bytes, CAPABILITY) & COUNT <= CAPABILITIES & COUNT
            && mtrr
                .fixed
                .iter()
                .all(|range| range.to_le_bytes().into_iter().all(is_type))
            && bases.into_iter().all(|&base| is_type(base as u8));
        if fits { Ok(mtrr) } else { Err(Errno::Inval) }
    }

    /// The record.
    pub fn to_record(&self) -> [u8; record::MTRR_SIZE] {
        let mut bytes = [0; record::MTRR_SIZE];
        put(&mut bytes, 0, self.pat);
        for (index, &value) in self.variable.iter().enumerate() {
            put(&mut bytes, 8 + 8 * index, value);
        }
        for (index, &value) in self.fixed.iter().enumerate() {
            put(&mut bytes, FIXED + 8 * index, value);
        }
        put(&mut bytes, CAPABILITY, CAPABILITIES);
        put(&mut bytes, DEFAULT, self.default);
        bytes
    }
}

/// Uncacheable, write-combining, write-through, write-protected, write-back (SDM vol. 3, table 12-8).
const fn is_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}
