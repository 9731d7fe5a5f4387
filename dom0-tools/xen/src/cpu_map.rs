//! Sets of CPUs.

/// A set of CPUs, of any size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuMap {
    bytes: Vec<u8>,
}

impl CpuMap {
    /// CPUs `0..count`.
    pub fn first(count: u32) -> Self {
        (0..count).collect()
    }

    /// From the form that the hypervisor writes: bit `n % 8` of byte `n / 8`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
        }
    }

    /// Adds a CPU.
    pub fn insert(&mut self, cpu: u32) {
        let byte = cpu as usize / 8;
        if byte >= self.bytes.len() {
            self.bytes.resize(byte + 1, 0);
        }
        self.bytes[byte] |= 1 << (cpu % 8);
    }

    /// Whether `cpu` is in the set.
    pub fn contains(&self, cpu: u32) -> bool {
        self.bytes
            .get(cpu as usize / 8)
            .is_some_and(|byte| byte & 1 << (cpu % 8) != 0)
    }

    /// Its CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.bits()).filter(|&cpu| self.contains(cpu))
    }

    /// Whether there is no CPU in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(|&byte| byte == 0)
    }

    /// The form that the hypervisor reads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bits in [`CpuMap::as_bytes`].
    pub fn bits(&self) -> u32 {
        u32::try_from(self.bytes.len() * 8).unwrap_or(u32::MAX)
    }
}

impl FromIterator<u32> for CpuMap {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut this = Self::default();
        cpus.into_iter().for_each(|cpu| this.insert(cpu));
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_map_is_a_sorted_set(cpus in prop::collection::vec(0_u32..300, 0..20)) {
            let map: CpuMap = cpus.iter().copied().collect();
            let set: BTreeSet<u32> = cpus.into_iter().collect();
            prop_assert_eq!(map.is_empty(), set.is_empty());
            prop_assert_eq!(CpuMap::from_bytes(map.as_bytes()), map.clone());
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), set.into_iter().collect::<Vec<_>>());
        }
    }
}
