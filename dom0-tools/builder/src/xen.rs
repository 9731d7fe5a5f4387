//! The real hypervisor.

use std::cell::Cell;
use std::io;
use std::ops::Range;

use oxen_xen::domain::{self, CreateDomain};
use oxen_xen::foreign::Mapping;
use oxen_xen::memory::{self, MemoryRange};
use oxen_xen::privcmd::Privcmd;
use oxen_xen::{event_channel, grant, guest_memory, hvm};

use crate::machine::Machine;

const PAGE: u64 = crate::PAGE_SIZE;
/// Pages of a guest mapped at a time: enough to make the calls few, and no burden to dom0.
const WINDOW_PAGES: u64 = 1024;
/// The domain that the daemons of console and store run in.
const CONTROL_DOMAIN: u16 = 0;

/// [`Machine`] through `/dev/xen/privcmd`.
#[derive(Debug)]
pub struct Xen<'a> {
    privcmd: &'a Privcmd,
    /// The hypervisor copies to domains' memory itself.
    copies: Cell<bool>,
}

impl<'a> Xen<'a> {
    /// Over an open device.
    pub const fn new(privcmd: &'a Privcmd) -> Self {
        Self {
            privcmd,
            copies: Cell::new(true),
        }
    }
}

/// A piece of a range of guest memory that is mapped as one.
#[derive(Debug)]
struct Window {
    /// Guest frame numbers.
    pages: Range<u64>,
    /// Where in the first page it begins.
    offset: usize,
    /// Its part of the whole range, in bytes from the range's start.
    part: Range<usize>,
}

fn windows(address: u64, size: u64) -> impl Iterator<Item = Window> {
    let end = address.saturating_add(size);
    let mut at = address;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let first = at / PAGE;
        let stop = ((first + WINDOW_PAGES) * PAGE).min(end);
        let window = Window {
            pages: first..stop.div_ceil(PAGE),
            offset: (at % PAGE) as usize,
            part: (at - address) as usize..(stop - address) as usize,
        };
        at = stop;
        Some(window)
    })
}

impl Machine for Xen<'_> {
    fn create(&self, domain: &CreateDomain) -> io::Result<u16> {
        domain::create(self.privcmd, domain)
    }

    fn destroy(&self, domid: u16) -> io::Result<()> {
        domain::destroy(self.privcmd, domid)
    }

    fn set_max_vcpus(&self, domid: u16, vcpus: u32) -> io::Result<()> {
        domain::set_max_vcpus(self.privcmd, domid, vcpus)
    }

    fn set_max_memory(&self, domid: u16, kib: u64) -> io::Result<()> {
        domain::set_max_memory(self.privcmd, domid, kib)
    }

    fn claim(&self, domid: u16, pages: u64) -> io::Result<()> {
        memory::claim_pages(self.privcmd, domid, pages)
    }

    fn populate(&self, domid: u16, gfns: &[u64], order: u32) -> io::Result<usize> {
        memory::populate_physmap(self.privcmd, domid, gfns, order)
    }

    fn set_memory_map(&self, domid: u16, map: &[MemoryRange]) -> io::Result<()> {
        memory::set_memory_map(self.privcmd, domid, map)
    }

    fn write(&self, domid: u16, address: u64, bytes: &[u8]) -> io::Result<()> {
        // Its vCPU has no registers yet, so that physical addresses are its linear ones.
        if self.copies.get() {
            match guest_memory::write(self.privcmd, domid, address, bytes) {
                Ok(()) => return Ok(()),
                Err(error) => log::debug!("domain {domid}: its pages are mapped: {error}"),
            }
            self.copies.set(false);
        }
        for window in windows(address, bytes.len() as u64) {
            let gfns: Vec<u64> = window.pages.collect();
            let mapping = Mapping::map_with(self.privcmd, domid, &gfns)?;
            mapping.write(window.offset, &bytes[window.part])?;
        }
        Ok(())
    }

    fn set_param(&self, domid: u16, index: u32, value: u64) -> io::Result<()> {
        hvm::set_param(self.privcmd, domid, index, value)
    }

    fn alloc_unbound(&self, domid: u16) -> io::Result<u32> {
        event_channel::alloc_unbound(self.privcmd, domid, CONTROL_DOMAIN)
    }

    fn seed_grants(&self, domid: u16, console: u64, store: u64) -> io::Result<()> {
        let (console, store) = ((console, CONTROL_DOMAIN), (store, CONTROL_DOMAIN));
        grant::seed(self.privcmd, domid, console, store)
    }

    fn set_context(&self, domid: u16, records: &[u8]) -> io::Result<()> {
        domain::set_hvm_context(self.privcmd, domid, records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_cover_a_range_once(address in 0_u64..1 << 40, size in 0_u64..50 << 20) {
            let mut at = address;
            for window in windows(address, size) {
                prop_assert_eq!(window.pages.start * PAGE + window.offset as u64, at);
                prop_assert_eq!(window.part.start as u64, at - address);
                at += window.part.len() as u64;
                prop_assert!(window.pages.end * PAGE >= at);
                prop_assert!((window.pages.end - 1) * PAGE < at);
                prop_assert!(window.pages.count() as u64 <= WINDOW_PAGES);
            }
            prop_assert_eq!(at, address + size);
        }
    }
}
