//! The console ring (`public/io/console.h`): 1024 bytes to the guest, 2048 from it, and an index for either end of both.
//!
//! The guest can write anything anywhere in the page at any time. The two indices that are the daemon's are read once, when the
//! ring is opened; the guest's are read once per operation and judged before use.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Loom tries out short rings.
const MODELLED: bool = cfg!(all(test, feature = "loom"));
const IN: usize = 0;
const IN_SIZE: u32 = if MODELLED { 2 } else { 1024 };
const OUT: usize = 1024;
const OUT_SIZE: u32 = if MODELLED { 2 } else { 2048 };
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// A guest's index that is further from ours than the ring is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    ours: u32,
    theirs: u32,
}

impl fmt::Display for BadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the guest's ring index {:#x} is out of reach of ours, {:#x}",
            self.theirs, self.ours
        )
    }
}

/// The page that daemon and guest share. Offsets are in bytes, those of indices multiples of 4; what is not in the page is not there.
pub trait Page {
    /// Reads an index that the other side writes; what it wrote before is visible then.
    fn load(&self, offset: usize) -> u32;
    /// Writes an index that the other side reads; what was written before is visible by then, and what the other side did before its
    /// next write is read after.
    fn store(&self, offset: usize, value: u32);
    /// Copies bytes out. The other side may change them meanwhile.
    fn read(&self, offset: usize, bytes: &mut [u8]);
    /// Copies bytes in, of words that the other side does not write.
    fn write(&self, offset: usize, bytes: &[u8]);
}

/// Memory that another domain writes to at any time is seen as atomic words only.
impl<T: AsRef<[AtomicU32]>> Page for T {
    fn load(&self, offset: usize) -> u32 {
        (self.as_ref().get(offset / 4)).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, offset: usize, value: u32) {
        if let Some(word) = self.as_ref().get(offset / 4) {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let mut word = [0; 4];
        for (at, byte) in (offset..).zip(bytes) {
            if at == offset || at % 4 == 0 {
                let there = self.as_ref().get(at / 4);
                word = there.map_or(word, |word| word.load(Ordering::Relaxed).to_le_bytes());
            }
            *byte = word[at % 4];
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            if let Some(word) = self.as_ref().get(at / 4) {
                let mut whole = word.load(Ordering::Relaxed).to_le_bytes();
                whole[at % 4] = *byte;
                word.store(u32::from_le_bytes(whole), Ordering::Relaxed);
            }
        }
    }
}

/// A guest's console ring.
#[derive(Debug)]
pub struct ConsoleRing<P> {
    page: P,
    out_cons: u32,
    in_prod: u32,
}

impl<P: Page> ConsoleRing<P> {
    /// Over a mapped page. Goes on where the daemon before this one stopped.
    pub fn new(page: P) -> Self {
        Self {
            out_cons: page.load(OUT_CONS),
            in_prod: page.load(IN_PROD),
            page,
        }
    }

    /// Takes all that the guest wrote. Tell the guest if it is not empty: it may wait for room.
    ///
    /// # Errors
    /// The guest's index makes no sense.
    pub fn take(&mut self) -> Result<Vec<u8>, BadIndex> {
        let prod = self.page.load(OUT_PROD);
        let count = distance(prod, self.out_cons, OUT_SIZE).ok_or(BadIndex {
            ours: self.out_cons,
            theirs: prod,
        })?;
        let mut bytes = vec![0; count as usize];
        let at = self.out_cons % OUT_SIZE;
        let (head, tail) = bytes.split_at_mut(count.min(OUT_SIZE - at) as usize);
        // `head` ends at the end of the ring at the latest.
        self.page.read(OUT + at as usize, head);
        self.page.read(OUT, tail);
        self.out_cons = prod;
        self.page.store(OUT_CONS, prod);
        Ok(bytes)
    }

    /// Bytes that [`ConsoleRing::put`] takes now.
    ///
    /// # Errors
    /// The guest's index makes no sense.
    pub fn room(&self) -> Result<usize, BadIndex> {
        let cons = self.page.load(IN_CONS);
        let used = distance(self.in_prod, cons, IN_SIZE).ok_or(BadIndex {
            ours: self.in_prod,
            theirs: cons,
        })?;
        Ok((IN_SIZE - used) as usize)
    }

    /// Gives the guest as many of `bytes` as there is room for; how many. Tell the guest if there were any.
    ///
    /// # Errors
    /// The guest's index makes no sense.
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        let count = bytes.len().min(self.room()?);
        let at = self.in_prod % IN_SIZE;
        let (head, tail) = bytes[..count].split_at(count.min((IN_SIZE - at) as usize));
        self.page.write(IN + at as usize, head);
        self.page.write(IN, tail);
        self.in_prod = self.in_prod.wrapping_add(count as u32);
        self.page.store(IN_PROD, self.in_prod);
        Ok(count)
    }
}

/// How far `ahead` is ahead of `behind`, if that is possible in a ring of `size`.
fn distance(ahead: u32, behind: u32, size: u32) -> Option<u32> {
    let distance = ahead.wrapping_sub(behind);
    (distance <= size).then_some(distance)
}

/// The guest's end of a ring, for tests.
#[cfg(test)]
pub mod guest {
    use super::*;

    /// A page for tests, which is not mapped.
    pub type Memory = Box<[AtomicU32]>;

    /// A zeroed page.
    pub fn page() -> Memory {
        (0..1024).map(|_| AtomicU32::new(0)).collect()
    }

    /// Writes as a guest does: as much as there is room for.
    pub fn write(ring: &ConsoleRing<Memory>, bytes: &[u8]) -> usize {
        let (prod, cons) = (ring.page.load(OUT_PROD), ring.page.load(OUT_CONS));
        let room = OUT_SIZE - prod.wrapping_sub(cons);
        let count = bytes.len().min(room as usize);
        for (i, byte) in bytes[..count].iter().enumerate() {
            let at = prod.wrapping_add(i as u32) % OUT_SIZE;
            ring.page.write(OUT + at as usize, &[*byte]);
        }
        ring.page.store(OUT_PROD, prod.wrapping_add(count as u32));
        count
    }

    /// Reads as a guest does.
    pub fn read(ring: &ConsoleRing<Memory>, most: usize) -> Vec<u8> {
        let (prod, cons) = (ring.page.load(IN_PROD), ring.page.load(IN_CONS));
        let count = most.min(prod.wrapping_sub(cons) as usize);
        let mut bytes = vec![0; count];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = cons.wrapping_add(i as u32) % IN_SIZE;
            let mut one = [0];
            ring.page.read(IN + at as usize, &mut one);
            *byte = one[0];
        }
        ring.page.store(IN_CONS, cons.wrapping_add(count as u32));
        bytes
    }

    /// Sets the index of what the guest wrote.
    pub fn set_out_prod(ring: &ConsoleRing<Memory>, value: u32) {
        ring.page.store(OUT_PROD, value);
    }

    /// Sets the index of what it read.
    pub fn set_in_cons(ring: &ConsoleRing<Memory>, value: u32) {
        ring.page.store(IN_CONS, value);
    }

    /// A ring whose indices begin at `start`.
    pub fn ring(start: u32) -> ConsoleRing<Memory> {
        let page = page();
        for index in [IN_CONS, IN_PROD, OUT_CONS, OUT_PROD] {
            page.store(index, start);
        }
        ConsoleRing::new(page)
    }
}

#[cfg(all(test, feature = "loom"))]
mod all_orders;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_indices_are_refused_and_touch_nothing() {
        let mut ring = guest::ring(7);
        guest::set_out_prod(&ring, 7 + OUT_SIZE + 1);
        assert!(ring.take().is_err());
        guest::set_out_prod(&ring, 6);
        assert!(ring.take().is_err());
        guest::set_in_cons(&ring, 8);
        assert!(ring.put(b"x").is_err());
        assert!(ring.room().is_err());
        guest::set_in_cons(&ring, 7);
        guest::set_out_prod(&ring, 7);
        assert_eq!(ring.take(), Ok(vec![]));
        assert_eq!(ring.put(b"x"), Ok(1));
    }

    #[test]
    fn a_ring_is_full_at_its_size() {
        let mut ring = guest::ring(u32::MAX - 3);
        assert_eq!(ring.put(&[1; 3000]), Ok(1024));
        assert_eq!(ring.room(), Ok(0));
        assert_eq!(guest::write(&ring, &[2; 3000]), 2048);
        assert_eq!(ring.take(), Ok(vec![2; 2048]));
    }

    #[derive(Clone, Debug)]
    enum Step {
        GuestWrites(Vec<u8>),
        Take,
        Put(Vec<u8>),
        GuestReads(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..2500);
        prop_oneof![
            bytes().prop_map(Step::GuestWrites),
            Just(Step::Take),
            bytes().prop_map(Step::Put),
            (0_usize..1500).prop_map(Step::GuestReads),
        ]
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(start: u32, steps in prop::collection::vec(step(), 0..40)) {
            let mut ring = guest::ring(start);
            let (mut written, mut taken) = (vec![], vec![]);
            let (mut put, mut read) = (vec![], vec![]);
            for step in steps {
                match step {
                    Step::GuestWrites(bytes) => {
                        let count = guest::write(&ring, &bytes);
                        written.extend_from_slice(&bytes[..count]);
                    }
                    Step::Take => taken.extend(ring.take().expect("an honest guest")),
                    Step::Put(bytes) => {
                        let count = ring.put(&bytes).expect("an honest guest");
                        put.extend_from_slice(&bytes[..count]);
                    }
                    Step::GuestReads(most) => read.extend(guest::read(&ring, most)),
                }
            }
            taken.extend(ring.take().expect("an honest guest"));
            read.extend(guest::read(&ring, usize::MAX));
            prop_assert_eq!(written, taken);
            prop_assert_eq!(put, read);
        }

        #[test]
        fn no_index_makes_it_read_more_than_a_ring(start: u32, prod: u32, cons: u32) {
            let mut ring = guest::ring(start);
            guest::set_out_prod(&ring, prod);
            guest::set_in_cons(&ring, cons);
            if let Ok(bytes) = ring.take() {
                prop_assert!(bytes.len() <= 2048);
            }
            if let Ok(count) = ring.put(&[0; 4096]) {
                prop_assert!(count <= 1024);
            }
        }
    }
}
