//! What a domain has mapped of others by its privilege: by place, as much as there is memory for.

use core::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use oxen_abi::Errno;

use crate::address::Gfn;

/// The list; `T` stands for what is known of a mapping.
///
/// It takes memory only for what it holds: with the last mapping all of it is given back.
pub struct ForeignList<T> {
    table: HashTable<(Gfn, T)>,
    hasher: DefaultHashBuilder,
}

impl<T> ForeignList<T> {
    /// Nothing is mapped.
    pub fn new() -> Self {
        Self {
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Mappings in all.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Makes room for one more, which [`Self::insert`] then has.
    ///
    /// # Errors
    /// `NoMem`.
    pub fn reserve(&mut self) -> Result<(), Errno> {
        let hasher = &self.hasher;
        self.table
            .try_reserve(1, |(place, _)| hasher.hash_one(place))
            .map_err(|_| Errno::NoMem)
    }

    /// Notes a mapping, in place of the one that is returned. Room for it was made.
    pub fn insert(&mut self, place: Gfn, mapping: T) -> Option<T> {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(place);
        if let Some((_, old)) = self.table.find_mut(hash, |(other, _)| *other == place) {
            return Some(core::mem::replace(old, mapping));
        }
        self.table
            .insert_unique(hash, (place, mapping), |(place, _)| hasher.hash_one(place));
        None
    }

    /// Whether something is mapped there.
    pub fn contains(&self, place: Gfn) -> bool {
        let hash = self.hasher.hash_one(place);
        self.table
            .find(hash, |(other, _)| *other == place)
            .is_some()
    }

    /// Takes a mapping out.
    pub fn remove(&mut self, place: Gfn) -> Option<T> {
        let hash = self.hasher.hash_one(place);
        let entry = self.table.find_entry(hash, |(other, _)| *other == place);
        let ((_, mapping), _) = entry.ok()?.remove();
        if self.table.is_empty() {
            self.table = HashTable::new();
        }
        Some(mapping)
    }
}

impl<T> Default for ForeignList<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_list_agrees_with_a_map(steps in prop::collection::vec((0u8..3, 0u64..40, any::<u32>()), 1..200)) {
            let mut list = ForeignList::new();
            let mut model = BTreeMap::new();
            for (step, place, value) in steps {
                if step == 0 {
                    prop_assert_eq!(list.remove(Gfn(place)), model.remove(&place));
                } else {
                    prop_assert_eq!(list.reserve(), Ok(()));
                    prop_assert_eq!(list.insert(Gfn(place), value), model.insert(place, value));
                }
                prop_assert_eq!(list.len(), model.len());
                prop_assert_eq!(list.contains(Gfn(place)), model.contains_key(&place));
            }
            for place in model.into_keys() {
                list.remove(Gfn(place));
            }
            prop_assert_eq!(list.table.capacity(), 0);
        }
    }
}
