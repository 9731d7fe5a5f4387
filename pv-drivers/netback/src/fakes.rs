//! Pages and an interface that are memory, for tests.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use crate::machine::{Fetch, Interface, Made, Pages, Store};
use crate::vnet::{HEADER, Header};

/// Granted pages by reference. What is not there was revoked.
#[derive(Debug, Default)]
pub struct Granted(pub BTreeMap<u32, Vec<u8>>);

impl Pages for Granted {
    fn fetch<'a>(&mut self, copies: impl Iterator<Item = Fetch<'a>>) -> io::Result<Made> {
        let copied = copies.map(|copy| {
            let page = self.0.get(&copy.reference)?;
            let offset = usize::from(copy.offset);
            copy.to.copy_from_slice(&page[offset..][..copy.to.len()]);
            Some(())
        });
        Ok(copied.map(|done| done.is_some()).collect())
    }

    fn store<'a>(&mut self, copies: impl Iterator<Item = Store<'a>>) -> io::Result<Made> {
        let copied = copies.map(|copy| {
            let page = self.0.get_mut(&copy.reference)?;
            page[..copy.from.len()].copy_from_slice(copy.from);
            Some(())
        });
        Ok(copied.map(|done| done.is_some()).collect())
    }
}

/// An interface: what was sent on it, and what arrives.
#[derive(Debug, Default)]
pub struct Wire {
    /// Oldest first.
    pub sent: Vec<(Header, Vec<u8>)>,
    /// Next first.
    pub arriving: VecDeque<(Header, Vec<u8>)>,
    /// How many the kernel drops first, because it cannot say what they are.
    pub unknown: u32,
}

impl Interface for Wire {
    fn send(&mut self, header: &Header, first: &mut [u8], rest: &[&[u8]]) -> io::Result<()> {
        // Whatever was there is nobody's.
        first[..HEADER].fill(0xEE);
        self.sent
            .push((*header, [&first[HEADER..], &rest.concat()].concat()));
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(Header, usize)>> {
        if let Some(less) = self.unknown.checked_sub(1) {
            self.unknown = less;
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let Some((header, packet)) = self.arriving.pop_front() else {
            return Ok(None);
        };
        buffer[..HEADER].fill(0xEE);
        buffer[HEADER..][..packet.len()].copy_from_slice(&packet);
        Ok(Some((header, packet.len())))
    }
}
