//! Memory for packets under way, in whole pages: a copy that crosses pages of this process would be two for the hypervisor.

use oxen_netif::PAGE;

/// Zeroed memory that begins at a page.
#[derive(Debug)]
pub struct Arena {
    memory: Vec<u8>,
    /// First byte that begins a page.
    start: usize,
    size: usize,
}

impl Arena {
    /// So many pages.
    pub fn new(pages: usize) -> Self {
        let size = pages * PAGE;
        let memory = vec![0; size + PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self {
            memory,
            start,
            size,
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.size]
    }

    /// All bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.size]
    }
}
