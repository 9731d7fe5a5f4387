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
        pieces(offset, into.len(), |at, range| {
            let part = &mut into[range];
            match part.len() {
                WORD => part.copy_from_slice(&self.u64(at).load(Ordering::Relaxed).to_le_bytes()),
                HALF => part.copy_from_slice(&self.u32(at).load(Ordering::Relaxed).to_le_bytes()),
                QUARTER => {
                    part.copy_from_slice(&self.u16(at).load(Ordering::Relaxed).to_le_bytes())
                }
                _ => part[0] = self.u8(at).load(Ordering::Relaxed),
            }
        });
    }

    /// Copies `from` to `offset`; each byte is written once.
    pub fn write(&self, offset: usize, from: &[u8]) {
        pieces(offset, from.len(), |at, range| {
            let part = &from[range];
            if let Ok(word) = part.try_into() {
                self.u64(at)
                    .store(u64::from_le_bytes(word), Ordering::Relaxed);
            } else if let Ok(half) = part.try_into() {
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
        for offset in (0..PAGE_SIZE).step_by(8) {
            self.u64(offset).store(0, Ordering::Relaxed);
        }
    }
}

const WORD: usize = size_of::<u64>();
const HALF: usize = size_of::<u32>();
const QUARTER: usize = size_of::<u16>();

/// Splits a range of a page into aligned words, and halves, quarters and bytes before and behind them: `each` gets the offset in the page and
/// the range of the buffer.
fn pieces(offset: usize, len: usize, mut each: impl FnMut(usize, core::ops::Range<usize>)) {
    assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset);
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let fits = |size: usize| at.is_multiple_of(size) && len - done >= size;
        let size = if fits(WORD) {
            WORD
        } else if fits(HALF) {
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
