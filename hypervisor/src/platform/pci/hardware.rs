//! The machine's configuration space: by memory where there is a window, by ports else.

use alloc::vec::Vec;

use oxen_core::acpi::McfgSegment;
use oxen_core::pci::{Access, PciConfig, Width};
use x86_64::instructions::port::Port;

use super::{ADDRESS, DATA, size};
use crate::memory::paging::{self, Permission};

const ENABLE: u32 = 1 << 31;

/// A memory-mapped window and our mapping of it.
struct Window {
    segment: McfgSegment,
    base: usize,
}

/// All of configuration space.
pub struct Hardware {
    windows: Vec<Window>,
}

impl Hardware {
    /// Maps the windows that the firmware describes.
    pub fn map(segments: &[McfgSegment]) -> Self {
        let windows = segments
            .iter()
            .map(|&segment| {
                let first = segment.base + (u64::from(segment.first_bus) << 20);
                let base = paging::map_device(first, size(&segment), Permission::Device);
                Window {
                    segment,
                    base: base.expose_provenance(),
                }
            })
            .collect();
        Self { windows }
    }

    /// Address of a register in a window's mapping.
    fn mapped(&self, access: Access) -> Option<usize> {
        let bus = (access.sbdf.bdf >> 8) as u8;
        let window = self.windows.iter().find(|window| {
            let McfgSegment {
                segment,
                first_bus,
                last_bus,
                ..
            } = window.segment;
            segment == access.sbdf.segment && (first_bus..=last_bus).contains(&bus)
        })?;
        let function = usize::from(access.sbdf.bdf) - (usize::from(window.segment.first_bus) << 8);
        Some(window.base + (function << 12) + usize::from(access.register))
    }

    fn select(access: Access) -> Option<u16> {
        if access.register > 0xFF || access.sbdf.segment != 0 {
            return None;
        }
        let address = ENABLE | u32::from(access.sbdf.bdf) << 8 | u32::from(access.register & 0xFC);
        // SAFETY: the address port belongs to us; the lock around the hardware keeps address and data together.
        unsafe { Port::<u32>::new(ADDRESS).write(address) };
        Some(DATA + (access.register & 3))
    }
}

impl PciConfig for Hardware {
    fn read(&mut self, access: Access) -> u32 {
        if let Some(address) = self.mapped(access) {
            let pointer = core::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: inside a window's mapping and aligned, as `Access` promises; configuration reads are dom0's right.
            return unsafe {
                match access.width {
                    Width::Byte => pointer.read_volatile().into(),
                    Width::Word => pointer.cast::<u16>().read_volatile().into(),
                    Width::Dword => pointer.cast::<u32>().read_volatile(),
                }
            };
        }
        let Some(port) = Self::select(access) else {
            return access.width.mask();
        };
        // SAFETY: the data port, after its address.
        unsafe {
            match access.width {
                Width::Byte => Port::<u8>::new(port).read().into(),
                Width::Word => Port::<u16>::new(port).read().into(),
                Width::Dword => Port::<u32>::new(port).read(),
            }
        }
    }

    fn write(&mut self, access: Access, value: u32) {
        if let Some(address) = self.mapped(access) {
            let pointer = core::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: as for `read`.
            unsafe {
                match access.width {
                    Width::Byte => pointer.write_volatile(value as u8),
                    Width::Word => pointer.cast::<u16>().write_volatile(value as u16),
                    Width::Dword => pointer.cast::<u32>().write_volatile(value),
                }
            }
            return;
        }
        let Some(port) = Self::select(access) else {
            return;
        };
        // SAFETY: as for `read`.
        unsafe {
            match access.width {
                Width::Byte => Port::<u8>::new(port).write(value as u8),
                Width::Word => Port::<u16>::new(port).write(value as u16),
                Width::Dword => Port::<u32>::new(port).write(value),
            }
        }
    }
}
