//! Memory for packets under way, in whole pages: a copy that crosses pages of this process would be two for the hypervisor.

use std::io;

use oxen_netif::PAGE;
use oxen_xen::gntalloc::{self, OwnGrants};
use rustix::mm::{Advice, madvise};

/// Bytes of a huge page, and where it begins.
const HUGE: usize = 2 << 20;

/// Zeroed memory that begins at a page and stays as long as the process, as the queues do that use it.
#[derive(Debug)]
pub struct Arena {
    memory: &'static mut [u8],
}

impl Arena {
    /// So many pages that copies name by grants, which spares the kernel from finding them.
    ///
    /// # Errors
    /// Those of [`gntalloc::pages`].
    pub fn granted(pages: usize) -> io::Result<(Self, OwnGrants)> {
        let (grants, memory) = gntalloc::pages(pages)?;
        Ok((Self { memory }, grants))
    }

    /// So many pages of any memory: of a huge page if the kernel has one to spare. It holds each page of a copy while that is made, and lets
    /// go of the parts of a huge page together.
    pub fn new(pages: usize) -> Self {
        let size = pages * PAGE;
        let room = size.next_multiple_of(HUGE);
        let memory = vec![0; room + HUGE].leak();
        let start = memory.as_ptr().align_offset(HUGE).min(HUGE);
        let memory = &mut memory[start..][..room];
        // SAFETY: memory of this process's own, whose content the advice does not change.
        let advised = unsafe { madvise(memory.as_mut_ptr().cast(), room, Advice::LinuxHugepage) };
        if let Err(error) = advised {
            log::debug!("memory for packets is in small pages: {error}");
        }
        Self {
            memory: &mut memory[..size],
        }
    }

    /// The first pages, and the rest.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn split(self, pages: usize) -> (Self, Self) {
        let (first, rest) = self.memory.split_at_mut(pages * PAGE);
        (Self { memory: first }, Self { memory: rest })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.memory
    }

    /// All bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_begin_at_pages_and_are_zeroed() {
        let (mut first, rest) = Arena::new(5).split(2);
        assert_eq!(
            [first.bytes().len(), rest.bytes().len()],
            [2 * PAGE, 3 * PAGE]
        );
        for part in [&first, &rest] {
            assert_eq!(part.bytes().as_ptr() as usize % PAGE, 0);
            assert!(part.bytes().iter().all(|&byte| byte == 0));
        }
        first.bytes_mut().fill(1);
        assert!(rest.bytes().iter().all(|&byte| byte == 0));
    }
}
