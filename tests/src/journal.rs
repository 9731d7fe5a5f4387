//! The journal that the small disk guest writes (`role=journal`): what an image of its disk must have of it.
//!
//! An entry is a page. Entry `n` is at page `n % PAGES`, its words are `n`, `n + 1` and so on. The guest writes an entry when the one
//! before it has been flushed, so that of all entries only the newest may be there in part.

/// Pages of the journal, after which it begins at the front again.
pub const PAGES: u32 = 64;
/// Bytes of a page.
const PAGE: usize = 4096;

/// Looks whether an image of the disk has all entries up to `last`, of which the guest was told that they are safe, and whole ones
/// only before the newest. Returns that one's number.
///
/// # Errors
/// The first entry that is not there.
pub fn check(image: &[u8], last: u32) -> Result<u32, String> {
    let places = (0..PAGES).map(|place| entries(image, place));
    let places: Vec<Vec<u32>> = places.collect::<Result<_, _>>()?;
    let newest = places.iter().flatten().copied().max().unwrap_or(0);
    if newest < last {
        return Err(format!("entry {last} is lost: {newest} is the newest"));
    }
    let oldest = newest.saturating_sub(PAGES - 1).max(1);
    for number in oldest..=newest {
        let found = &places[(number % PAGES) as usize];
        let under_way = number == newest && number > last;
        let whole = found[..] == [number];
        let in_part = under_way
            && found
                .iter()
                .all(|found| [number, before(number)].contains(found));
        if !whole && !in_part {
            return Err(format!("entry {number} of {newest}: {found:?} are there"));
        }
    }
    Ok(newest)
}

/// The entry that was at an entry's place before; 0 for none.
const fn before(number: u32) -> u32 {
    number.saturating_sub(PAGES)
}

/// The entries that words at a place are of, each once where it is in one piece; 0 where nothing was written.
fn entries(image: &[u8], place: u32) -> Result<Vec<u32>, String> {
    let start = place as usize * PAGE;
    let page = image.get(start..start + PAGE);
    let page = page.ok_or_else(|| format!("the image ends before page {place}"))?;
    let words = page
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word));
    let mut found: Vec<u32> = words
        .zip(0..)
        .map(|(word, nth)| match word {
            0 => 0,
            word => word.wrapping_sub(nth),
        })
        .collect();
    found.dedup();
    match found
        .iter()
        .find(|number| **number % PAGES != place && **number != 0)
    {
        Some(other) => Err(format!(
            "page {place} has words of entry {other}, or of none"
        )),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(image: &mut [u8], number: u32, bytes: std::ops::Range<usize>) {
        let entry: Vec<u8> = (0..1024)
            .flat_map(|nth| (number + nth).to_le_bytes())
            .collect();
        let start = (number % PAGES) as usize * PAGE;
        image[start..][bytes.clone()].copy_from_slice(&entry[bytes]);
    }

    /// A disk after so many entries.
    fn image(entries: u32) -> Vec<u8> {
        let mut image = vec![0; 2 * PAGES as usize * PAGE];
        for number in 1..=entries {
            write(&mut image, number, 0..PAGE);
        }
        image
    }

    #[test]
    fn what_was_told_safe_and_what_came_later_may_be_there() {
        for entries in [0, 1, 63, 64, 65, 300] {
            assert_eq!(check(&image(entries), entries), Ok(entries));
        }
        assert_eq!(check(&image(300), 290), Ok(300));
        assert_eq!(check(&image(300), 100), Ok(300));
    }

    #[test]
    fn the_newest_entry_may_be_there_in_part_until_it_is_told_safe() {
        for part in [0..512, 512..1024, 3584..4096] {
            for entries in [9, 299] {
                let mut image = image(entries);
                write(&mut image, entries + 1, part.clone());
                assert_eq!(check(&image, entries), Ok(entries + 1));
                assert!(check(&image, entries + 1).is_err());
            }
        }
    }

    #[test]
    fn a_lost_entry_is_found() {
        assert!(check(&image(299), 300).is_err());
        // One that is still in the journal, whether or not it was told yet.
        for lost in [237, 270, 299] {
            for last in [lost, lost - 1] {
                let mut image = image(300);
                write(&mut image, lost - PAGES, 0..PAGE);
                assert!(check(&image, last).is_err(), "{lost}");
                write(&mut image, lost, 0..PAGE);
                write(&mut image, lost - PAGES, 1024..1536);
                assert!(check(&image, last).is_err(), "a part of {lost}");
            }
        }
    }

    #[test]
    fn what_is_no_entry_is_found() {
        for at in [0, PAGE - 1, 10 * PAGE, PAGES as usize * PAGE - 1] {
            let mut image = image(300);
            image[at] ^= 1;
            assert!(check(&image, 300).is_err(), "{at}");
        }
        assert!(check(&[], 0).is_err());
    }
}
