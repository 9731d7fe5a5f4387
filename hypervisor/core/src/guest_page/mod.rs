//! A page that a guest can write at any moment: reachable only by atomic reads and writes, never by reference.

#[cfg(all(test, feature = "loom"))]
mod modelled;
#[cfg(not(all(test, feature = "loom")))]
mod raw;

use core::sync::atomic::Ordering;

use crate::address::PAGE_SIZE;
#[cfg(all(test, feature = "loom"))]
pub use modelled::GuestPage;
#[cfg(not(all(test, feature = "loom")))]
pub use raw::GuestPage;

impl GuestPage {
    /// Copies out `into.len()` bytes from `offset`; each byte is read once.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let (before, rest) = into.split_at_mut(head(offset, into.len()));
        self.read_less(offset, before);
        if rest.is_empty() {
            return;
        }
        let place = offset + before.len();
        let (words, after) = rest.as_chunks_mut();
        let behind = place + WORD * words.len();
        for (there, word) in self.words(place, words.len()).zip(words) {
            *word = there.load(Ordering::Relaxed).to_le_bytes();
        }
        self.read_less(behind, after);
    }

    /// Copies `from` to `offset`; each byte is written once.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let (before, rest) = from.split_at(head(offset, from.len()));
        self.write_less(offset, before);
        if rest.is_empty() {
            return;
        }
        let place = offset + before.len();
        let (words, after) = rest.as_chunks();
        for (there, word) in self.words(place, words.len()).zip(words) {
            there.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
        self.write_less(place + WORD * words.len(), after);
    }

    /// Reads less than a word, within one.
    fn read_less(&self, offset: usize, into: &mut [u8]) {
        pieces(offset, into.len(), |at, range| {
            let part = &mut into[range];
            match part.len() {
                HALF => part.copy_from_slice(&self.u32(at).load(Ordering::Relaxed).to_le_bytes()),
                QUARTER => {
                    part.copy_from_slice(&self.u16(at).load(Ordering::Relaxed).to_le_bytes())
                }
                _ => part[0] = self.u8(at).load(Ordering::Relaxed),
            }
        });
    }

    /// Writes less than a word, within one.
    fn write_less(&self, offset: usize, from: &[u8]) {
        pieces(offset, from.len(), |at, range| {
            let part = &from[range];
            if let Ok(half) = part.try_into() {
                self.u32(at)
                    .store(u32::from_le_bytes(half), Ordering::Relaxed);
            } else if let Ok(quarter) = part.try_into() {
                self.u16(at)
                    .store(u16::from_le_bytes(quarter), Ordering::Relaxed);
            } else {
                self.u8(at).store(part[0], Ordering::Relaxed);
            }
        });
    }

    /// Sets every byte to zero.
    pub fn zero(&self) {
        for word in self.words(0, PAGE_SIZE / WORD) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

const WORD: usize = size_of::<u64>();
const HALF: usize = size_of::<u32>();
const QUARTER: usize = size_of::<u16>();

/// How many of `len` bytes at `offset` come before the first whole word.
const fn head(offset: usize, len: usize) -> usize {
    assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset);
    let before = offset.wrapping_neg() % WORD;
    if before < len { before } else { len }
}

/// Splits less than a word into aligned halves, quarters and bytes: `each` gets the offset in the page and the range of the buffer.
#[inline]
fn pieces(offset: usize, len: usize, mut each: impl FnMut(usize, core::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let fits = |size: usize| at.is_multiple_of(size) && len - done >= size;
        let size = if fits(HALF) {
            HALF
        } else if fits(QUARTER) {
            QUARTER
        } else {
            1
        };
        each(at, done..done + size);
        done += size;
    }
}

/// Host-side pages for tests.
#[cfg(test)]
pub mod testing {
    #[cfg(feature = "loom")]
    pub use super::modelled::leaked_page;
    #[cfg(not(feature = "loom"))]
    pub use super::raw::leaked_page;
}

#[cfg(test)]
mod tests {
    use super::testing::leaked_page;
    use super::*;

    #[test]
    fn bytes_written_are_read_back_at_their_offset() {
        let page = leaked_page();
        page.write(PAGE_SIZE - 4, &[1, 2, 3, 4]);
        let mut out = [0; 4];
        page.read(PAGE_SIZE - 4, &mut out);
        assert_eq!(out, [1, 2, 3, 4]);
        assert_eq!(page.u32(PAGE_SIZE - 4).load(Ordering::Relaxed), 0x0403_0201);
        page.zero();
        assert_eq!(page.u32(PAGE_SIZE - 4).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn copies_of_any_alignment_and_length_are_whole() {
        let page = leaked_page();
        let data: [u8; 40] = core::array::from_fn(|i| i as u8 + 1);
        for offset in 0..9 {
            for len in 0..data.len() {
                page.zero();
                page.write(offset, &data[..len]);
                let mut out = [0; 64];
                page.read(0, &mut out);
                assert!(out[..offset].iter().all(|&byte| byte == 0));
                assert_eq!(out[offset..offset + len], data[..len]);
                assert!(out[offset + len..].iter().all(|&byte| byte == 0));
                let mut back = [0; 40];
                page.read(offset, &mut back[..len]);
                assert_eq!(back[..len], data[..len]);
            }
        }
    }

    #[test]
    fn pages_are_copied_at_any_offset() {
        let (one, other) = (leaked_page(), leaked_page());
        let data: [u8; 64] = core::array::from_fn(|i| i as u8 + 1);
        one.write(100, &data);
        for (at, len) in [(0, 64), (3, 61), (PAGE_SIZE - 17, 17), (5, 0), (8, 7)] {
            other.zero();
            other.copy_from(at, &one, 100, len);
            let mut all = [0; PAGE_SIZE];
            other.read(0, &mut all);
            assert_eq!(all[at..at + len], data[..len]);
            assert!(
                all[..at]
                    .iter()
                    .chain(&all[at + len..])
                    .all(|&byte| byte == 0)
            );
        }
    }

    #[test]
    #[should_panic]
    fn a_copy_over_the_end_is_refused() {
        let page = leaked_page();
        page.copy_from(0, &leaked_page(), PAGE_SIZE - 1, 2);
    }

    #[test]
    #[should_panic]
    fn an_access_over_the_end_is_refused() {
        leaked_page().u64(PAGE_SIZE - 4);
    }
}
