//! Device memory: what dom0 reaches directly, by mapping on first touch, and what is emulated or refused.

use oxen_core::address::{Gfn, GuestPhys, Mfn, PAGE_SIZE};
use oxen_core::memory::p2m::Kind;

use super::{firmware, irq, pci};
use crate::domain::Domain;
use crate::interrupt::io_apic;
use crate::memory::frames;

/// First page of the local APICs, which every CPU has at the same place.
const LOCAL_APIC: Gfn = Gfn(0xFEE00);

/// Maps a page of the machine's device memory where the control domain touched it; false if it may not have it, so that
/// the access is emulated.
pub fn map_on_demand(domain: &Domain, gfn: Gfn) -> bool {
    if !domain.privileged || is_ours(gfn) || pci::intercepts(gfn) {
        return false;
    }
    let mut p2m = domain.p2m.lock();
    match p2m.lookup(gfn) {
        // Another vCPU may have been faster; other things only lack a right, such as to write to a page granted for reading.
        Some(mapping) => mapping.kind == Kind::Device,
        None => p2m.map(gfn, Mfn(gfn.0), 1, Kind::Device).is_ok(),
    }
}

/// Reads emulated device memory; where there is nothing, all bits are ones.
pub fn read(domain: &Domain, address: GuestPhys, width: u8) -> u64 {
    match emulated_io_apic(domain, address) {
        Some(apic) => u64::from(irq::read(apic, address.page_offset() as u32)),
        None if !domain.privileged => u64::MAX,
        None if pci::owns(address) => pci::read_window(address, width),
        None => pci::read_memory(address, width).unwrap_or(u64::MAX),
    }
}

/// Writes emulated device memory; where there is nothing, the write is lost.
pub fn write(domain: &Domain, address: GuestPhys, width: u8, value: u64) {
    if let Some(apic) = emulated_io_apic(domain, address) {
        irq::write(apic, address.page_offset() as u32, value as u32);
    } else if domain.privileged {
        if pci::owns(address) {
            pci::write_window(address, width, value);
        } else {
            pci::write_memory(address, width, value);
        }
    }
}

fn emulated_io_apic(domain: &Domain, address: GuestPhys) -> Option<usize> {
    if !domain.privileged {
        return None;
    }
    io_apic::all().position(|(entry, _)| entry.address.frame().0 == address.frame().0)
}

/// Whether a page may be a PCI function's memory.
pub fn is_device(gfn: Gfn) -> bool {
    !is_ours(gfn)
}

/// RAM of any kind that the domain does not have yet is not its; local and I/O APICs, configuration windows, IOMMUs, and
/// the timer that tables hide.
fn is_ours(gfn: Gfn) -> bool {
    let address = Mfn(gfn.0).address();
    gfn == LOCAL_APIC
        || frames::is_ram(Mfn(gfn.0))
        || io_apic::owns(address)
        || pci::owns(gfn.address())
        || is_kept(gfn)
}

/// Registers of the IOMMUs and of the HPET.
fn is_kept(gfn: Gfn) -> bool {
    let page = gfn.address().0..gfn.address().0 + PAGE_SIZE as u64;
    firmware::get().is_some_and(|firmware| {
        firmware
            .kept
            .iter()
            .any(|range| range.start < page.end && page.start < range.end)
    })
}
