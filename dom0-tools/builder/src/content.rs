//! What of a kernel is to be written: new memory is zero already.

use crate::PAGE_SIZE;

/// Bytes compared at a time.
const PIECE: usize = 64;

/// The parts of `bytes`, which belong at guest-physical `address`, that lie in pages with anything but zeroes; as few and as
/// long as can be.
pub fn runs(address: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && is_zero(page(address, bytes, at)) {
            at += page(address, bytes, at).len();
        }
        let start = at;
        while at < bytes.len() && !is_zero(page(address, bytes, at)) {
            at += page(address, bytes, at).len();
        }
        (start < at).then(|| (address + start as u64, &bytes[start..at]))
    })
}

/// What lies in one page of the guest from byte `at` on.
fn page(address: u64, bytes: &[u8], at: usize) -> &[u8] {
    let left = PAGE_SIZE - (address + at as u64) % PAGE_SIZE;
    let end = bytes.len().min(at + left as usize);
    &bytes[at..end]
}

fn is_zero(bytes: &[u8]) -> bool {
    // Whole pieces, which the compiler turns into few wide instructions; most pages end it at their first.
    bytes
        .chunks(PIECE)
        .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = PAGE_SIZE as usize;

    #[test]
    fn pages_of_zeroes_are_left_out() {
        let mut bytes = vec![0; 5 * PAGE];
        bytes[PAGE - 1] = 1;
        bytes[PAGE] = 1;
        bytes[4 * PAGE] = 1;
        let found: Vec<_> = runs(0x1000, &bytes)
            .map(|(at, run)| (at, run.len()))
            .collect();
        assert_eq!(found, [(0x1000, 2 * PAGE), (0x5000, PAGE)]);
        assert_eq!(runs(0, &[0; 100]).count(), 0);
        assert_eq!(runs(0, &[]).count(), 0);
    }

    proptest! {
        #[test]
        fn nothing_but_zeroes_is_left_out(
            address in 0_u64..1 << 40,
            pages in prop::collection::vec(prop::option::weighted(0.3, 0..PAGE), 0..12),
            cut in 0..PAGE,
        ) {
            let mut bytes = vec![0; pages.len() * PAGE];
            for (page, place) in pages.iter().enumerate() {
                if let Some(place) = place {
                    bytes[page * PAGE + place] = 1;
                }
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let mut copy = vec![0; bytes.len()];
            let mut last = 0;
            for (at, run) in runs(address, &bytes) {
                prop_assert!(at >= last && !run.is_empty());
                last = at + run.len() as u64 + 1;
                let from = (at - address) as usize;
                copy[from..from + run.len()].copy_from_slice(run);
            }
            prop_assert_eq!(copy, bytes);
        }
    }
}
