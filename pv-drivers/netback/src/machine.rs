//! What the two directions of a queue work on.

use std::io;
use std::mem::take;
use std::sync::Arc;

use arrayvec::ArrayVec;
use oxen_xen::gntalloc::OwnGrants;
use oxen_xen::gntdev::{CopyBatch, GrantPart, Grants};

use crate::vnet::Header;

/// A copy out of a page of the guest.
#[derive(Debug)]
pub struct Fetch<'a> {
    /// The page.
    pub reference: u32,
    /// First byte; the copy ends within the page.
    pub offset: u16,
    /// Where the bytes go; not empty.
    pub to: &'a mut [u8],
}

/// A copy to the beginning of a page of the guest.
#[derive(Debug)]
pub struct Store<'a> {
    /// The page.
    pub reference: u32,
    /// What is copied: a page at most, not empty.
    pub from: &'a [u8],
}

/// Copies of a batch at most.
pub const COPIES: usize = 64;
/// For each copy of a batch, whether it was made.
pub type Made = ArrayVec<bool, COPIES>;

/// Pages that a guest grants. What is more than [`COPIES`] is left out.
pub trait Pages {
    /// Copies out of them.
    ///
    /// # Errors
    /// Nothing can be copied at all.
    fn fetch<'a>(&mut self, copies: impl Iterator<Item = Fetch<'a>>) -> io::Result<Made>;

    /// Copies into them.
    ///
    /// # Errors
    /// As for [`Pages::fetch`].
    fn store<'a>(&mut self, copies: impl Iterator<Item = Store<'a>>) -> io::Result<Made>;
}

/// A queue of an interface that packets go through.
pub trait Interface {
    /// Sends a packet of several parts. Before the first there are [`crate::vnet::HEADER`] bytes for the header.
    ///
    /// # Errors
    /// The kernel does not take it.
    fn send(&mut self, header: &Header, first: &mut [u8], rest: &[&[u8]]) -> io::Result<()>;

    /// Takes a packet that has arrived, if there is one. It comes behind [`crate::vnet::HEADER`] bytes of the buffer; what is told is its own size.
    ///
    /// # Errors
    /// The interface is gone.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(Header, usize)>>;
}

/// Pages of a domain.
#[derive(Debug)]
pub struct GuestPages {
    grants: Grants,
    domid: u16,
    /// Memory for batches.
    batch: CopyBatch<'static>,
}

impl GuestPages {
    /// Pages that `domid` grants, and memory of this process that is named by grants too.
    pub const fn new(grants: Grants, domid: u16, own: Option<Arc<OwnGrants>>) -> Self {
        Self {
            grants,
            domid,
            batch: CopyBatch::new(own),
        }
    }

    const fn part(&self, reference: u32, offset: u16) -> GrantPart {
        GrantPart {
            domid: self.domid,
            reference,
            offset,
        }
    }

    fn run(&mut self, mut batch: CopyBatch<'_>) -> io::Result<Made> {
        let result = self.grants.copy(&mut batch);
        let made = batch.outcomes().map(|outcome| outcome == 0).collect();
        self.batch = batch.emptied();
        result.map(|()| made)
    }
}

impl Pages for GuestPages {
    fn fetch<'a>(&mut self, copies: impl Iterator<Item = Fetch<'a>>) -> io::Result<Made> {
        let mut batch = take(&mut self.batch);
        for copy in copies.take(COPIES) {
            batch.from_grant(self.part(copy.reference, copy.offset), copy.to);
        }
        self.run(batch)
    }

    fn store<'a>(&mut self, copies: impl Iterator<Item = Store<'a>>) -> io::Result<Made> {
        let mut batch = take(&mut self.batch);
        for copy in copies.take(COPIES) {
            batch.to_grant(copy.from, self.part(copy.reference, 0));
        }
        self.run(batch)
    }
}
