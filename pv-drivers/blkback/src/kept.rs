//! Pages whose grants the guest keeps (`feature-persistent`): mapped at their first use, and then for as long as they are used.
//!
//! They are as many as [`MOST`]. Beyond that a page takes the place of the one that was not used for the longest time, if that is long
//! enough: a guest that goes around more pages than these shall not have one mapped for each request. What is not mapped is copied by
//! the hypervisor, as without the feature.

use hashbrown::HashMap;

/// Pages of a disk that stay mapped at most: what Linux's back end keeps of a ring (its parameter `max_persistent_grants`).
pub const MOST: usize = 1056;
/// Uses of other pages after which one is not in use any more.
const PATIENCE: u64 = 4 * MOST as u64;

/// The mapped pages; `P` unmaps itself when it is dropped.
#[derive(Debug)]
pub struct Kept<P> {
    pages: HashMap<u32, Page<P>>,
    /// Uses so far.
    uses: u64,
    /// No page is out of use before so many.
    full_until: u64,
}

#[derive(Debug)]
struct Page<P> {
    mapping: P,
    used: u64,
}

impl<P> Default for Kept<P> {
    fn default() -> Self {
        Self {
            pages: HashMap::new(),
            uses: 0,
            full_until: 0,
        }
    }
}

impl<P> Kept<P> {
    /// The page with a grant; `map` maps it where it is not yet. `None`: it cannot be mapped, or there is no room for it.
    pub fn page(&mut self, grant: u32, map: impl FnOnce() -> Option<P>) -> Option<&P> {
        self.uses += 1;
        if !self.pages.contains_key(&grant) {
            self.make_room()?;
            let mapping = map()?;
            self.pages.insert(grant, Page { mapping, used: 0 });
        }
        let page = self.pages.get_mut(&grant)?;
        page.used = self.uses;
        Some(&page.mapping)
    }

    fn make_room(&mut self) -> Option<()> {
        if self.pages.len() < MOST {
            return Some(());
        }
        if self.uses < self.full_until {
            return None;
        }
        let (oldest, page) = self.pages.iter().min_by_key(|(_, page)| page.used)?;
        self.full_until = page.used + PATIENCE;
        if self.uses < self.full_until {
            return None;
        }
        let oldest = *oldest;
        self.pages.remove(&oldest);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// A page that counts how many are mapped.
    struct Fake(u32, Rc<Cell<usize>>);

    impl Drop for Fake {
        fn drop(&mut self) {
            self.1.set(self.1.get() - 1);
        }
    }

    #[derive(Default)]
    struct Bench {
        kept: Kept<Fake>,
        mapped: Rc<Cell<usize>>,
    }

    impl Bench {
        /// Whether a page is mapped when it is used; if it was not it is as it becomes so.
        fn uses(&mut self, grant: u32) -> bool {
            let mapped = self.mapped.clone();
            let page = self.kept.page(grant, || {
                mapped.set(mapped.get() + 1);
                Some(Fake(grant, mapped.clone()))
            });
            page.is_some_and(|page| page.0 == grant)
        }
    }

    const MANY: u32 = MOST as u32;

    #[test]
    fn a_page_is_mapped_once_and_unmapped_at_the_end() {
        let mut bench = Bench::default();
        assert!((0..3 * MANY).all(|nth| bench.uses(nth % MANY)));
        assert_eq!(bench.mapped.get(), MOST);
        drop(bench.kept);
        assert_eq!(bench.mapped.get(), 0);
    }

    #[test]
    fn pages_in_use_are_not_given_up_for_others() {
        let mut bench = Bench::default();
        for _ in 0..10 {
            let mapped = (0..MANY + 100).filter(|&nth| bench.uses(nth)).count();
            assert_eq!((mapped, bench.mapped.get()), (MOST, MOST));
        }
    }

    #[test]
    fn a_page_that_is_not_used_any_more_makes_room() {
        let mut bench = Bench::default();
        assert!((0..MANY).all(|nth| bench.uses(nth)));
        assert!(!bench.uses(MANY));
        while !bench.uses(MANY) {
            assert!((1..MANY).all(|nth| bench.uses(nth)));
        }
        assert_eq!(bench.mapped.get(), MOST);
        assert!(!bench.uses(0) && bench.uses(1));
    }

    #[test]
    fn what_cannot_be_mapped_takes_no_room() {
        let mut kept = Kept::<()>::default();
        for grant in 0..2 * MANY {
            assert!(kept.page(grant, || None).is_none());
        }
        assert!(kept.page(7, || Some(())).is_some());
    }
}
