//! MSI-X tables in the functions' memory. Their pages are ours; what else lies in them is passed through.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use oxen_core::address::{Gfn, GuestPhys, HostPhys, PAGE_SIZE};
use oxen_core::memory::p2m::Kind;
use oxen_core::pci::{Msix, Sbdf};

use crate::domain;
use crate::memory::paging::{self, Permission};

const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes of an entry (PCI Local Bus 3.0, 6.8.2.6), and its words.
const ENTRY: usize = 16;
const ADDRESS_LOW: usize = 0;
const ADDRESS_HIGH: usize = 4;
const DATA: usize = 8;
const CONTROL: usize = 12;
const MASKED: u32 = 1;

/// A table where it is now.
struct Table {
    sbdf: Sbdf,
    address: u64,
    size: u64,
}

impl Table {
    fn frames(&self) -> core::ops::Range<u64> {
        self.address / PAGE..(self.address + self.size).div_ceil(PAGE)
    }
}

/// All tables that are in reach.
#[derive(Default)]
pub struct Tables {
    placed: Vec<Table>,
    /// Our mappings, by frame; kept for good, since functions come back to where they were.
    mapped: BTreeMap<u64, usize>,
}

impl Tables {
    /// Whether a page holds a part of a table.
    pub fn cover(&self, gfn: Gfn) -> bool {
        self.placed
            .iter()
            .any(|table| table.frames().contains(&gfn.0))
    }

    /// Whether the function's table is in reach.
    pub fn has(&self, sbdf: Sbdf) -> bool {
        self.find(sbdf).is_some()
    }

    /// The table that an address lies in, and the offset there.
    pub fn entry(&self, address: GuestPhys) -> Option<(Sbdf, usize)> {
        self.placed.iter().find_map(|table| {
            let offset = address.0.checked_sub(table.address)?;
            (offset < table.size).then_some((table.sbdf, offset as usize))
        })
    }

    /// Notes that a function's table is at `place`, or nowhere. Where it is new, all entries are masked, and dom0 loses the
    /// direct way to it.
    pub fn place(&mut self, sbdf: Sbdf, place: Option<u64>, msix: &Msix) {
        let known = self.find(sbdf).map(|table| table.address);
        if known == place {
            return;
        }
        self.placed.retain(|table| table.sbdf != sbdf);
        let Some(address) = place else { return };
        let table = Table {
            sbdf,
            address,
            size: msix.size(),
        };
        if table
            .frames()
            .any(|frame| !crate::platform::mmio::is_device(Gfn(frame)))
        {
            log::warn!("the MSI-X table of {sbdf} is not in device memory: its messages stay off");
            return;
        }
        for frame in table.frames() {
            self.map(frame);
            take_from_dom0(Gfn(frame));
        }
        self.placed.push(table);
        for index in 0..msix.entries() {
            self.mask(sbdf, index);
        }
    }

    /// Masks an entry in the device.
    pub fn mask(&self, sbdf: Sbdf, index: usize) {
        self.write(sbdf, index, CONTROL, MASKED);
    }

    /// Programs an entry in the device, and unmasks it.
    pub fn program(&self, sbdf: Sbdf, index: usize, address: u32, data: u32) {
        self.write(sbdf, index, ADDRESS_LOW, address);
        self.write(sbdf, index, ADDRESS_HIGH, 0);
        self.write(sbdf, index, DATA, data);
        self.write(sbdf, index, CONTROL, 0);
    }

    /// Reads beside the tables; `None` where no page is ours.
    pub fn read_beside(&self, address: GuestPhys, width: u8) -> Option<u64> {
        let pointer = self.pointer(address, width)?;
        // SAFETY: inside a page of device memory that is mapped, and aligned; dom0 may read its device.
        Some(unsafe {
            match width {
                1 => pointer.read_volatile().into(),
                2 => pointer.cast::<u16>().read_volatile().into(),
                4 => pointer.cast::<u32>().read_volatile().into(),
                _ => pointer.cast::<u64>().read_volatile(),
            }
        })
    }

    /// Writes beside the tables; false where no page is ours.
    pub fn write_beside(&self, address: GuestPhys, width: u8, value: u64) -> bool {
        let Some(pointer) = self.pointer(address, width) else {
            return false;
        };
        // SAFETY: as for `read_beside`; no table lies there.
        unsafe {
            match width {
                1 => pointer.write_volatile(value as u8),
                2 => pointer.cast::<u16>().write_volatile(value as u16),
                4 => pointer.cast::<u32>().write_volatile(value as u32),
                _ => pointer.cast::<u64>().write_volatile(value),
            }
        }
        true
    }

    fn find(&self, sbdf: Sbdf) -> Option<&Table> {
        self.placed.iter().find(|table| table.sbdf == sbdf)
    }

    fn map(&mut self, frame: u64) {
        self.mapped.entry(frame).or_insert_with(|| {
            paging::map_device(HostPhys(frame * PAGE), PAGE, Permission::Device).expose_provenance()
        });
    }

    /// A naturally aligned place in a page that is ours now.
    fn pointer(&self, address: GuestPhys, width: u8) -> Option<*mut u8> {
        if !self.cover(address.frame())
            || !matches!(width, 1 | 2 | 4 | 8)
            || !address.0.is_multiple_of(width.into())
        {
            return None;
        }
        let page = self.mapped.get(&address.frame().0)?;
        Some(core::ptr::with_exposed_provenance_mut(
            page + address.page_offset(),
        ))
    }

    fn write(&self, sbdf: Sbdf, index: usize, word: usize, value: u32) {
        let Some(table) = self.find(sbdf) else { return };
        let address = table.address + (index * ENTRY + word) as u64;
        if address + 4 > table.address + table.size {
            return;
        }
        if let Some(page) = self.mapped.get(&(address / PAGE)) {
            let place = page + (address % PAGE) as usize;
            // SAFETY: inside the table, which `place` mapped; entries are aligned to 8 bytes by the capability, and lead
            // only to vectors of ours.
            unsafe {
                core::ptr::with_exposed_provenance_mut::<u32>(place).write_volatile(value);
            }
        }
    }
}

fn take_from_dom0(gfn: Gfn) {
    let Some(dom0) = domain::dom0() else { return };
    let mut p2m = dom0.p2m.lock();
    if p2m
        .lookup(gfn)
        .is_some_and(|mapping| mapping.kind == Kind::Device)
        && p2m.unmap(gfn, 1).is_err()
    {
        log::warn!("no memory to take {gfn} from dom0");
    }
}
