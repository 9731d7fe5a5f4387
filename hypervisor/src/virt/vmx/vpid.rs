//! Virtual processor IDs: one for each vCPU, from one set for all CPUs, given back when the vCPU goes.
//!
//! A CPU may still hold translations under an ID that is given out again: whoever gets it drops them at its first load.

use spin::Mutex;

const WORDS: usize = (1 << 16) / 64;

/// A set bit is an ID in use. 0 is the hypervisor's own (SDM vol. 3, 29.1).
static USED: Mutex<[u64; WORDS]> = Mutex::new({
    let mut words = [0; WORDS];
    words[0] = 1;
    words
});

/// An ID that nobody else has.
#[derive(Debug)]
pub struct Vpid(u16);

impl Vpid {
    /// The lowest free ID.
    pub fn allocate() -> Option<Self> {
        let mut used = USED.lock();
        let (index, word) = used
            .iter_mut()
            .enumerate()
            .find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        Some(Self((index * 64) as u16 + bit as u16))
    }

    /// Its number.
    pub const fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Vpid {
    fn drop(&mut self) {
        USED.lock()[usize::from(self.0 / 64)] &= !(1 << (self.0 % 64));
    }
}
