//! Memory for data on its way: page-aligned, as devices that read and write it directly want it, and bounded.

use std::io;

/// Alignment of a buffer.
const ALIGNMENT: usize = 4096;
/// Sizes that buffers come in: for the page that most small requests are, for the 32 pages that Linux's front end has in an indirect
/// one unless it is told otherwise, and for all that one can have.
const SIZES: [usize; 3] = [4 << 10, 128 << 10, 1 << 20];
/// Buffers of each size that the kernel can be made to know: it need not look their pages up for each request. It keeps them in
/// memory, so there are few.
const KNOWN: [usize; SIZES.len()] = [64, 8, 0];
/// Bytes that a disk's requests may have on their way at once. A guest that asks for more waits.
const LIMIT: usize = 16 << 20;

/// A page-aligned piece of memory.
#[derive(Debug)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    class: usize,
    known: Option<u16>,
}

impl Buffer {
    fn new(class: usize) -> Self {
        let memory = vec![0; SIZES[class] + ALIGNMENT].into_boxed_slice();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self {
            memory,
            start,
            class,
            known: None,
        }
    }

    /// The number by which the kernel knows it, if it does.
    pub const fn known(&self) -> Option<u16> {
        self.known
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
    /// Makes the buffers that the kernel is to know, and has `register` tell it their memory: by number, the first being 0. Where
    /// that fails they are buffers as all others.
    pub fn make_known(&mut self, register: impl FnOnce(&[libc::iovec]) -> io::Result<()>) {
        let mut buffers: Vec<Buffer> = (KNOWN.into_iter().enumerate())
            .flat_map(|(class, count)| (0..count).map(move |_| Buffer::new(class)))
            .collect();
        let memory: Vec<libc::iovec> = (buffers.iter_mut())
            .map(|buffer| {
                let bytes = buffer.bytes_mut();
                libc::iovec {
                    iov_base: bytes.as_mut_ptr().cast(),
                    iov_len: bytes.len(),
                }
            })
            .collect();
        match register(&memory) {
            Ok(()) => {
                for (number, buffer) in (0..).zip(&mut buffers) {
                    buffer.known = Some(number);
                }
            }
            Err(error) => log::warn!(
                "the kernel takes no note of buffers, which costs some speed: {error} (is the limit of locked memory lower than {} KiB?)",
                memory.iter().map(|part| part.iov_len).sum::<usize>() / 1024
            ),
        }
        for buffer in buffers {
            self.free[buffer.class].push(buffer);
        }
    }

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
            let buffer = pool.take(129 << 10);
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.bytes().len(), 1 << 20);
            taken.push(buffer);
        }
        assert_eq!(taken.len(), 16);
        taken.drain(..).for_each(|buffer| pool.give(buffer));
        assert!(pool.has_room());
        let sizes = [512, 4096, 4608].map(|bytes| pool.take(bytes).bytes().len());
        assert_eq!(sizes, [4 << 10, 4 << 10, 128 << 10]);
    }

    #[test]
    fn the_kernel_knows_what_was_made_known_to_it_and_nothing_else() {
        let mut pool = Pool::default();
        let mut told = Vec::new();
        pool.make_known(|memory| {
            told.extend(memory.iter().map(|part| part.iov_base as usize));
            Ok(())
        });
        for (size, count) in SIZES.into_iter().zip(KNOWN) {
            let mut taken: Vec<Buffer> = (0..=count).map(|_| pool.take(size)).collect();
            assert!(taken.pop().is_some_and(|buffer| buffer.known().is_none()));
            for buffer in &taken {
                let number = usize::from(buffer.known().expect("known"));
                assert_eq!(buffer.bytes().as_ptr() as usize, told[number]);
            }
        }
        let mut pool = Pool::default();
        pool.make_known(|_| Err(io::ErrorKind::OutOfMemory.into()));
        assert_eq!(pool.take(4096).known(), None);
    }
}
