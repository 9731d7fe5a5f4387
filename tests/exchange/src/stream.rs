//! Bytes without end that a number gives, the same everywhere.

/// Bytes of a number.
const WORD: u64 = 8;

/// A sequence of bytes, by its number: each number gives another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub u64);

impl Stream {
    /// The bytes from a place on.
    pub fn bytes(self, from: u64) -> impl Iterator<Item = u8> {
        let words = (from / WORD..).map(move |nth| mixed(mixed(self.0) ^ nth));
        let bytes = words.flat_map(u64::to_le_bytes);
        bytes.skip((from % WORD) as usize)
    }

    /// Fills `bytes` with those from a place on.
    pub fn fill(self, from: u64, bytes: &mut [u8]) {
        for (place, byte) in bytes.iter_mut().zip(self.bytes(from)) {
            *place = byte;
        }
    }

    /// Which of `bytes` is the first that is not this stream's from a place on.
    pub fn first_wrong(self, from: u64, bytes: &[u8]) -> Option<usize> {
        let mut pairs = bytes.iter().zip(self.bytes(from));
        pairs.position(|(found, wanted)| *found != wanted)
    }
}

/// A number of which each bit depends on each bit of another: by multiplying with odd numbers of mixed bits, and shifting the upper bits down
/// again.
pub(crate) const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ number >> 31).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let number = (number ^ number >> 29).wrapping_mul(0xA076_1D64_78BD_642F);
    number ^ number >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_as_in_the_whole() {
        let mut whole = [0; 100];
        Stream(7).fill(0, &mut whole);
        for from in 0..32 {
            let mut part = [0; 60];
            Stream(7).fill(from, &mut part);
            assert_eq!(part, whole[from as usize..][..60], "from {from}");
        }
        assert_eq!(Stream(7).first_wrong(11, &whole[11..]), None);
        whole[50] ^= 1;
        assert_eq!(Stream(7).first_wrong(11, &whole[11..]), Some(39));
        assert_ne!(Stream(8).first_wrong(0, &whole), None);
    }
}
