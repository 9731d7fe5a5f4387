//! PCI configuration for dom0: its accesses pass through us, so that message-signalled interrupts carry our vectors.

mod hardware;
mod messages;
mod tables;

use oxen_core::acpi::McfgSegment;
use oxen_core::address::{Gfn, GuestPhys};
use oxen_core::pci::{Access, Effect, PciConfig, Sbdf, VirtualPci, Width};
use spin::Mutex;

use super::firmware;
use crate::domain;
use hardware::Hardware;
use messages::Messages;
use tables::Tables;

/// The address and data ports of configuration mechanism 1.
const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;

struct State {
    hardware: Hardware,
    policy: VirtualPci,
    /// What dom0 last wrote to the address port.
    latch: u32,
    messages: Messages,
    tables: Tables,
}

/// Held while configuration is read or written; a domain's map may be changed meanwhile, never the other way round.
static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Maps the windows that the firmware describes.
pub fn init(segments: &[McfgSegment]) {
    *STATE.lock() = Some(State {
        hardware: Hardware::map(segments),
        policy: VirtualPci::default(),
        latch: 0,
        messages: Messages::default(),
        tables: Tables::default(),
    });
}

/// dom0 reads one of the eight ports.
pub fn read_port(port: u16, width: u8) -> u32 {
    let mut guard = STATE.lock();
    let Some(state) = guard.as_mut() else {
        return u32::MAX;
    };
    if port < DATA {
        return if port == ADDRESS && width == 4 {
            state.latch
        } else {
            u32::MAX
        };
    }
    let access =
        Width::from_bytes(width).and_then(|width| Access::from_ports(state.latch, port, width));
    access.map_or(u32::MAX, |access| state.read(access))
}

/// dom0 writes one of the eight ports.
pub fn write_port(port: u16, width: u8, value: u32) {
    let mut guard = STATE.lock();
    let Some(state) = guard.as_mut() else { return };
    if port < DATA {
        if port == ADDRESS && width == 4 {
            state.latch = value;
        }
        return;
    }
    if let Some(access) =
        Width::from_bytes(width).and_then(|width| Access::from_ports(state.latch, port, width))
    {
        state.write(access, value);
    }
}

/// Whether there is such a function.
pub fn is_present(sbdf: Sbdf) -> bool {
    const NOBODY: u32 = 0xFFFF;
    let mut guard = STATE.lock();
    guard
        .as_mut()
        .is_some_and(|state| state.hardware.read(Access::vendor(sbdf)) != NOBODY)
}

/// Whether an address lies in a memory-mapped window.
pub fn owns(address: GuestPhys) -> bool {
    firmware::get().is_some_and(|firmware| {
        firmware
            .mcfg
            .iter()
            .any(|segment| offset(segment, address).is_some())
    })
}

/// dom0 reads through a window.
pub fn read_window(address: GuestPhys, width: u8) -> u64 {
    let access = window_access(address, width);
    let value = match (STATE.lock().as_mut(), access) {
        (Some(state), Some(access)) => state.read(access),
        _ => u32::MAX,
    };
    value.into()
}

/// dom0 writes through a window.
pub fn write_window(address: GuestPhys, width: u8, value: u64) {
    if let (Some(state), Some(access)) = (STATE.lock().as_mut(), window_access(address, width)) {
        state.write(access, value as u32);
    }
}

/// Whether a page holds a part of an MSI-X table, so that accesses must come to [`read_memory`] and [`write_memory`].
pub fn intercepts(gfn: Gfn) -> bool {
    STATE.lock().as_mut().is_some_and(|state| {
        state.find_tables();
        state.tables.cover(gfn)
    })
}

/// dom0 reads in such a page; `None` for others.
pub fn read_memory(address: GuestPhys, width: u8) -> Option<u64> {
    let mut guard = STATE.lock();
    let state = guard.as_mut()?;
    match state.tables.entry(address) {
        Some((sbdf, offset)) => Some(state.policy.msix(sbdf)?.read(offset, width)),
        None => state.tables.read_beside(address, width),
    }
}

/// dom0 writes in such a page; false for others.
pub fn write_memory(address: GuestPhys, width: u8, value: u64) -> bool {
    let mut guard = STATE.lock();
    let Some(state) = guard.as_mut() else {
        return false;
    };
    let Some((sbdf, offset)) = state.tables.entry(address) else {
        return state.tables.write_beside(address, width, value);
    };
    let Some(msix) = state.policy.msix(sbdf) else {
        return false;
    };
    if let Some(index) = msix.write(offset, width, value) {
        let message = msix.message(index);
        let enabled = msix.enabled();
        if enabled {
            state
                .messages
                .route_entry(&state.tables, sbdf, index, message);
        }
    }
    true
}

/// A device's message arrived.
pub fn raised(slot: u32) {
    let message = STATE
        .lock()
        .as_ref()
        .and_then(|state| state.messages.at(slot));
    if let (Some(dom0), Some(message)) = (domain::dom0(), message) {
        dom0.deliver(&message);
    }
}

impl State {
    fn read(&mut self, access: Access) -> u32 {
        self.policy.read(&mut self.hardware, access)
    }

    fn write(&mut self, access: Access, value: u32) {
        match self.policy.write(&mut self.hardware, access, value) {
            Effect::None => {}
            Effect::Msi {
                sbdf,
                capability,
                msi,
            } => self
                .messages
                .route_msi(&mut self.hardware, sbdf, capability, &msi),
            Effect::Msix(sbdf) | Effect::Moved(sbdf) => {
                self.place(sbdf);
                self.route_msix(sbdf);
            }
        }
    }

    /// Looks where the tables are that dom0 may have come to know of.
    fn find_tables(&mut self) {
        let functions: alloc::vec::Vec<Sbdf> = self.policy.msix_functions().collect();
        for sbdf in functions {
            self.place(sbdf);
        }
    }

    fn place(&mut self, sbdf: Sbdf) {
        let Some(msix) = self.policy.msix(sbdf) else {
            return;
        };
        let place = msix.place(&mut self.hardware, sbdf);
        self.tables.place(sbdf, place, msix);
    }

    fn route_msix(&mut self, sbdf: Sbdf) {
        if let Some(msix) = self.policy.msix(sbdf) {
            self.messages
                .route_msix(&mut self.hardware, &self.tables, sbdf, msix);
        }
    }
}

fn size(segment: &McfgSegment) -> u64 {
    (u64::from(segment.last_bus.saturating_sub(segment.first_bus)) + 1) << 20
}

/// Offset of an address in a segment's window.
fn offset(segment: &McfgSegment, address: GuestPhys) -> Option<u64> {
    let first = segment.base.0 + (u64::from(segment.first_bus) << 20);
    address
        .0
        .checked_sub(first)
        .filter(|&offset| offset < size(segment))
}

fn window_access(address: GuestPhys, width: u8) -> Option<Access> {
    let (segment, offset) = firmware::get()?
        .mcfg
        .iter()
        .find_map(|segment| Some((segment, offset(segment, address)?)))?;
    Access::from_window(
        segment.segment,
        segment.first_bus,
        offset,
        Width::from_bytes(width)?,
    )
}
