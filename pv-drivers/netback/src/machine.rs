//! What the two directions of a queue work on.

use std::io;

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

/// Pages that a guest grants. For each copy of a batch it is told whether it was made.
pub trait Pages {
    /// Copies out of them.
    ///
    /// # Errors
    /// Nothing can be copied at all.
    fn fetch(&mut self, copies: Vec<Fetch<'_>>) -> io::Result<Vec<bool>>;

    /// Copies into them.
    ///
    /// # Errors
    /// As for [`Pages::fetch`].
    fn store(&mut self, copies: Vec<Store<'_>>) -> io::Result<Vec<bool>>;
}

/// A queue of an interface that packets go through.
pub trait Interface {
    /// Sends a packet of several parts.
    ///
    /// # Errors
    /// The kernel does not take it.
    fn send(&mut self, header: &Header, parts: &[&[u8]]) -> io::Result<()>;

    /// Takes a packet that has arrived, if there is one.
    ///
    /// # Errors
    /// The interface is gone.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(Header, usize)>>;
}

/// Pages of a domain.
#[derive(Debug)]
pub struct GuestPages {
    /// The device.
    pub grants: Grants,
    /// Whose they are.
    pub domid: u16,
}

impl GuestPages {
    fn run(&self, mut batch: CopyBatch<'_>) -> io::Result<Vec<bool>> {
        self.grants.copy(&mut batch)?;
        Ok(batch.outcomes().map(|outcome| outcome == 0).collect())
    }
}

impl Pages for GuestPages {
    fn fetch(&mut self, copies: Vec<Fetch<'_>>) -> io::Result<Vec<bool>> {
        let mut batch = CopyBatch::with_capacity(copies.len());
        for copy in copies {
            let from = GrantPart {
                domid: self.domid,
                reference: copy.reference,
                offset: copy.offset,
            };
            batch.from_grant(from, copy.to);
        }
        self.run(batch)
    }

    fn store(&mut self, copies: Vec<Store<'_>>) -> io::Result<Vec<bool>> {
        let mut batch = CopyBatch::with_capacity(copies.len());
        for copy in copies {
            let to = GrantPart {
                domid: self.domid,
                reference: copy.reference,
                offset: 0,
            };
            batch.to_grant(copy.from, to);
        }
        self.run(batch)
    }
}
