//! Sets of CPUs: plain values for affinity, atomic ones for what CPUs tell one another.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::id::CpuId;

/// CPUs that the scheduler can serve.
pub const MAX_CPUS: usize = WORDS * WORD_BITS;

/// Bytes of a set in the ABI's form.
pub const BITMAP_BYTES: usize = MAX_CPUS / 8;

const WORDS: usize = 4;
const WORD_BITS: usize = u64::BITS as usize;

/// A set of CPUs; those from [`MAX_CPUS`] on are in none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuSet([u64; WORDS]);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self([0; WORDS]);
    /// Every CPU there can be.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// The CPUs numbered below `count`.
    pub fn first(count: usize) -> Self {
        (0..count.min(MAX_CPUS))
            .map(|cpu| CpuId(cpu as u16))
            .collect()
    }

    /// From the ABI's form: bit `n % 8` of byte `n / 8` is CPU `n`; bits from `bits` on, and CPUs from [`MAX_CPUS`] on, are left
    /// out.
    pub fn from_bitmap(bytes: &[u8], bits: usize) -> Self {
        (0..bits.min(bytes.len() * 8).min(MAX_CPUS))
            .filter(|cpu| bytes[cpu / 8] >> (cpu % 8) & 1 != 0)
            .map(|cpu| CpuId(cpu as u16))
            .collect()
    }

    /// The ABI's form.
    pub fn to_bitmap(self) -> [u8; BITMAP_BYTES] {
        let mut bytes = [0; BITMAP_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(WORD_BITS / 8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Whether `cpu` is in it.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.0
            .get(cpu.index() / WORD_BITS)
            .is_some_and(|word| word >> (cpu.index() % WORD_BITS) & 1 != 0)
    }

    /// Puts `cpu` in.
    pub fn insert(&mut self, cpu: CpuId) {
        if let Some(word) = self.0.get_mut(cpu.index() / WORD_BITS) {
            *word |= 1 << (cpu.index() % WORD_BITS);
        }
    }

    /// Takes `cpu` out.
    pub fn remove(&mut self, cpu: CpuId) {
        if let Some(word) = self.0.get_mut(cpu.index() / WORD_BITS) {
            *word &= !(1 << (cpu.index() % WORD_BITS));
        }
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// Whether there is none in it.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Its members, by number.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + use<> {
        let mut rest = *self;
        core::iter::from_fn(move || {
            let (index, word) = rest
                .0
                .iter_mut()
                .enumerate()
                .find(|(_, word)| **word != 0)?;
            let bit = word.trailing_zeros() as usize;
            *word &= *word - 1;
            Some(CpuId((index * WORD_BITS + bit) as u16))
        })
    }

    /// Its members, by number, from the first behind `cpu` round to `cpu` itself.
    pub fn iter_after(&self, cpu: CpuId) -> impl Iterator<Item = CpuId> + use<> {
        let mut low = Self::EMPTY;
        for (index, word) in low.0.iter_mut().enumerate() {
            let first = index * WORD_BITS;
            let below = (cpu.index() + 1).saturating_sub(first);
            let mask = 1u64
                .checked_shl(below as u32)
                .map_or(u64::MAX, |bit| bit - 1);
            *word = self.0[index] & mask;
        }
        let high = Self(core::array::from_fn(|i| self.0[i] & !low.0[i]));
        high.iter().chain(low.iter())
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<T: IntoIterator<Item = CpuId>>(cpus: T) -> Self {
        let mut set = Self::EMPTY;
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("{all}");
        }
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A set that every CPU may change.
///
/// Sequentially consistent: a CPU that announces itself and then looks for work, and one that announces work and then
/// looks for a CPU, must not both miss the other.
pub(super) struct AtomicCpuSet([AtomicU64; WORDS]);

impl AtomicCpuSet {
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn word(&self, cpu: CpuId) -> Option<&AtomicU64> {
        self.0.get(cpu.index() / WORD_BITS)
    }

    pub fn insert(&self, cpu: CpuId) {
        if let Some(word) = self.word(cpu) {
            word.fetch_or(1 << (cpu.index() % WORD_BITS), Ordering::SeqCst);
        }
    }

    /// Takes `cpu` out; whether it was in, so that of several who claim it one wins.
    pub fn take(&self, cpu: CpuId) -> bool {
        let bit = 1 << (cpu.index() % WORD_BITS);
        self.word(cpu).is_some_and(|word| {
            // The load keeps the common case, that it is not in, free of a locked instruction.
            word.load(Ordering::SeqCst) & bit != 0
                && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
        })
    }

    /// Makes `cpu` a member or not.
    pub fn set(&self, cpu: CpuId, member: bool) {
        if !member {
            self.take(cpu);
        } else if !self.load().contains(cpu) {
            self.insert(cpu);
        }
    }

    /// The same as of [`Self::load`], without the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::SeqCst) == 0)
    }

    pub fn load(&self) -> CpuSet {
        CpuSet(core::array::from_fn(|i| self.0[i].load(Ordering::SeqCst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_is_a_set(members in proptest::collection::btree_set(0u16..300, 0..40), from in 0u16..260) {
            let set: CpuSet = members.iter().map(|&cpu| CpuId(cpu)).collect();
            let valid: BTreeSet<u16> = members.into_iter().filter(|&cpu| (cpu as usize) < MAX_CPUS).collect();
            prop_assert_eq!(set.len(), valid.len());
            prop_assert_eq!(set.is_empty(), valid.is_empty());
            prop_assert!(set.iter().map(|cpu| cpu.0).eq(valid.iter().copied()));
            let round = valid.range(from + 1..).chain(valid.range(..=from));
            prop_assert!(set.iter_after(CpuId(from)).map(|cpu| cpu.0).eq(round.copied()));
            prop_assert_eq!(CpuSet::from_bitmap(&set.to_bitmap(), MAX_CPUS), set);
            let below: CpuSet = set.iter().filter(|cpu| cpu.0 < 13).collect();
            prop_assert_eq!(CpuSet::from_bitmap(&set.to_bitmap()[..2], 13), below);
            let atomic = AtomicCpuSet::new();
            set.iter().for_each(|cpu| atomic.set(cpu, true));
            prop_assert_eq!(atomic.load(), set);
            for cpu in set.iter() {
                prop_assert!(atomic.take(cpu));
                prop_assert!(!atomic.take(cpu));
            }
            prop_assert!(atomic.load().is_empty());
        }
    }
}
