//! Memory for packets under way, in whole pages: a copy that crosses pages of this process would be two for the hypervisor.

use std::io;

use oxen_netif::PAGE;
use oxen_xen::gntalloc::{self, OwnGrants};
use rustix::mm::{Advice, madvise};

use crate::vnet::HEADER;

/// Bytes of a huge page, and where it begins.
const HUGE: usize = 2 << 20;

/// Zeroed pages that stay as long as the process, as the queues do that use them. Before each there is room for a header: for the first in a
/// page of its own, for others at the end of what is in the page before.
#[derive(Debug)]
pub struct Arena {
    /// The page for the first one's header, and the pages.
    memory: &'static mut [u8],
}

impl Arena {
    /// So many pages that copies name by grants, which spares the kernel from finding them.
    ///
    /// # Errors
    /// Those of [`gntalloc::pages`].
    pub fn granted(pages: usize) -> io::Result<(Self, OwnGrants)> {
        let (grants, memory) = gntalloc::pages(pages + 1)?;
        Ok((Self { memory }, grants))
    }

    /// So many pages of any memory: of a huge page if the kernel has one to spare. It holds each page of a copy while that is made, and lets
    /// go of the parts of a huge page together.
    pub fn new(pages: usize) -> Self {
        let size = (pages + 1) * PAGE;
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

    /// The first pages, and the rest but one.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn split(self, pages: usize) -> (Self, Self) {
        let (first, rest) = self.memory.split_at_mut((pages + 1) * PAGE);
        (Self { memory: first }, Self { memory: rest })
    }

    /// The bytes of all pages.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[PAGE..]
    }

    /// The bytes of all pages, to be written.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[PAGE..]
    }

    /// So many bytes from a page on, with the [`HEADER`] bytes before them, and all pages behind the first of them.
    ///
    /// # Panics
    /// There is no such page, or not as many bytes.
    #[inline]
    pub fn with_header(&mut self, page: usize, length: usize) -> (&mut [u8], &[u8]) {
        let start = (page + 1) * PAGE;
        let (first, rest) = self.memory.split_at_mut(start + length.max(PAGE));
        (&mut first[start - HEADER..start + length], rest)
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
            [2 * PAGE, 2 * PAGE]
        );
        for part in [&first, &rest] {
            assert_eq!(part.bytes().as_ptr() as usize % PAGE, 0);
            assert!(part.bytes().iter().all(|&byte| byte == 0));
        }
        let (header, behind) = first.with_header(0, 100);
        assert_eq!([header.len(), behind.len()], [HEADER + 100, PAGE]);
        header[..HEADER].fill(2);
        first.bytes_mut().fill(1);
        let (all, behind) = first.with_header(0, 2 * PAGE);
        assert_eq!([all.len(), behind.len()], [HEADER + 2 * PAGE, 0]);
        assert_eq!(all[HEADER - 1..=HEADER], [2, 1]);
        assert_eq!(first.with_header(1, 5).0, [1; HEADER + 5]);
        assert!(rest.bytes().iter().all(|&byte| byte == 0));
    }
}
