//! Memory for data on its way: page-aligned, as devices that read and write it directly want it, and bounded.

/// Alignment of a buffer.
const ALIGNMENT: usize = 4096;
/// Sizes that buffers come in: for what a request itself can name, and for all that an indirect one can.
const SIZES: [usize; 2] = [64 << 10, 1 << 20];
/// Bytes that a disk's requests may have on their way at once. A guest that asks for more waits.
const LIMIT: usize = 16 << 20;

/// A page-aligned piece of memory.
#[derive(Debug)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    class: usize,
}

impl Buffer {
    fn new(class: usize) -> Self {
        let memory = vec![0; SIZES[class] + ALIGNMENT].into_boxed_slice();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self {
            memory,
            start,
            class,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + SIZES[self.class]]
    }

    /// Its bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + SIZES[self.class]]
    }
}

/// Where buffers come from and go back to.
#[derive(Debug, Default)]
pub struct Pool {
    free: [Vec<Buffer>; SIZES.len()],
    used: usize,
}

impl Pool {
    /// Whether another request may be begun.
    pub const fn has_room(&self) -> bool {
        self.used < LIMIT
    }

    /// A buffer of at least so many bytes. What is in it is left from an earlier request of the same disk and guest.
    ///
    /// # Panics
    /// If a request of the protocol cannot be so long.
    pub fn take(&mut self, bytes: usize) -> Buffer {
        let class = SIZES.iter().position(|size| *size >= bytes);
        let class = class.expect("no request is longer than the longest buffer");
        self.used += SIZES[class];
        self.free[class].pop().unwrap_or_else(|| Buffer::new(class))
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        self.used -= SIZES[buffer.class];
        self.free[buffer.class].push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_large_enough_and_bounded() {
        let mut pool = Pool::default();
        let mut taken = Vec::new();
        while pool.has_room() {
            let buffer = pool.take(100 << 10);
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.bytes().len(), 1 << 20);
            taken.push(buffer);
        }
        assert_eq!(taken.len(), 16);
        taken.drain(..).for_each(|buffer| pool.give(buffer));
        assert!(pool.has_room());
        assert_eq!(pool.take(512).bytes().len(), 64 << 10);
    }
}
