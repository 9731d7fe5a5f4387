//! PCI configuration for dom0: its accesses pass through us, so that message-signalled interrupts carry our vectors.

use alloc::vec::Vec;

use oxen_core::acpi::McfgSegment;
use oxen_core::address::GuestPhys;
use oxen_core::apic::io::Message;
use oxen_core::apic::{Delivery, Destination, Trigger};
use oxen_core::id::CpuId;
use oxen_core::pci::{Access, Effect, Msi, PciConfig, Sbdf, VirtualPci, Width};
use spin::Mutex;
use x86_64::instructions::port::Port;

use super::firmware;
use crate::cpu;
use crate::domain;
use crate::interrupt::vectors::{self, Source};
use crate::memory::paging::{self, Permission};

/// The address and data ports of configuration mechanism 1.
const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;
const ENABLE: u32 = 1 << 31;

/// A memory-mapped window and our mapping of it.
struct Window {
    segment: McfgSegment,
    base: usize,
}

/// A device's message, with the vector that stands for it on the wire.
struct Routed {
    sbdf: Sbdf,
    vector: u8,
    msi: Msi,
}

struct State {
    policy: VirtualPci,
    /// What dom0 last wrote to the address port.
    latch: u32,
    routed: Vec<Routed>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static HARDWARE: Mutex<Hardware> = Mutex::new(Hardware {
    windows: Vec::new(),
});

/// The machine's configuration space: by memory where there is a window, by ports else.
struct Hardware {
    windows: Vec<Window>,
}

/// Maps the windows that the firmware describes.
pub fn init(segments: &[McfgSegment]) {
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
    *HARDWARE.lock() = Hardware { windows };
    *STATE.lock() = Some(State {
        policy: VirtualPci::default(),
        latch: 0,
        routed: Vec::new(),
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
    access.map_or(u32::MAX, |access| {
        state.policy.read(&mut *HARDWARE.lock(), access)
    })
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
    let mut guard = STATE.lock();
    let access = window_access(address, width);
    let value = match (guard.as_mut(), access) {
        (Some(state), Some(access)) => state.policy.read(&mut *HARDWARE.lock(), access),
        _ => u32::MAX,
    };
    value.into()
}

/// dom0 writes through a window.
pub fn write_window(address: GuestPhys, width: u8, value: u64) {
    let mut guard = STATE.lock();
    if let (Some(state), Some(access)) = (guard.as_mut(), window_access(address, width)) {
        state.write(access, value as u32);
    }
}

/// A device's message arrived.
pub fn raised(slot: u32) {
    let guard = STATE.lock();
    let message = guard
        .as_ref()
        .and_then(|state| state.routed.get(slot as usize))
        .and_then(|routed| decode(&routed.msi));
    drop(guard);
    if let (Some(dom0), Some(message)) = (domain::dom0(), message) {
        dom0.deliver(&message);
    }
}

impl State {
    fn write(&mut self, access: Access, value: u32) {
        let mut hardware = HARDWARE.lock();
        if let Effect::Msi {
            sbdf,
            capability,
            msi,
        } = self.policy.write(&mut *hardware, access, value)
        {
            self.route(&mut hardware, sbdf, capability, msi);
        }
    }

    /// Programs the device with a message of ours; dom0's own is where [`raised`] delivers to.
    fn route(&mut self, hardware: &mut Hardware, sbdf: Sbdf, capability: u16, msi: Msi) {
        let slot = match self.routed.iter().position(|routed| routed.sbdf == sbdf) {
            Some(slot) => {
                self.routed[slot].msi = msi;
                slot
            }
            None if !msi.enabled => return,
            None => {
                let slot = self.routed.len();
                let Some(vector) = vectors::allocate(Source::Message(slot as u32)) else {
                    log::warn!("no interrupt vector left: messages of {sbdf} stay off");
                    return;
                };
                self.routed.push(Routed { sbdf, vector, msi });
                slot
            }
        };
        let vector = self.routed[slot].vector;
        program(hardware, sbdf, capability, &msi, vector);
    }
}

/// Writes the MSI capability (PCI Local Bus 3.0, 6.8.1), disabled while it changes.
fn program(hardware: &mut Hardware, sbdf: Sbdf, capability: u16, msi: &Msi, vector: u8) {
    const MESSAGE_BASE: u32 = 0xFEE0_0000;
    const CONTROL_ENABLE: u32 = 1 << 0;
    const CONTROL_MULTIPLE: u32 = 0b111 << 4;
    const CONTROL_64_BIT: u32 = 1 << 7;
    const CONTROL_MASKING: u32 = 1 << 8;
    let at = |offset, width| Access {
        sbdf,
        register: capability + offset,
        width,
    };
    let control = hardware.read(at(2, Width::Word)) & !(CONTROL_ENABLE | CONTROL_MULTIPLE);
    hardware.write(at(2, Width::Word), control);
    if !msi.enabled {
        return;
    }
    let apic_id = cpu::percpu::by_id(CpuId(0)).map_or(0, |cpu| cpu.apic_id());
    hardware.write(at(4, Width::Dword), MESSAGE_BASE | (apic_id & 0xFF) << 12);
    let data_at = if control & CONTROL_64_BIT != 0 {
        hardware.write(at(8, Width::Dword), 0);
        12
    } else {
        8
    };
    hardware.write(at(data_at, Width::Word), vector.into());
    if control & CONTROL_MASKING != 0 {
        hardware.write(at(data_at + 4, Width::Dword), msi.masked.into());
    }
    hardware.write(at(2, Width::Word), control | CONTROL_ENABLE);
}

/// What dom0's address and data mean (SDM vol. 3, 11.11).
fn decode(msi: &Msi) -> Option<Message> {
    const LOGICAL: u64 = 1 << 2;
    if !msi.enabled || msi.masked {
        return None;
    }
    let id = (msi.address >> 12 & 0xFF) as u32;
    Some(Message {
        delivery: Delivery::from_bits(u64::from(msi.data >> 8))?,
        vector: msi.data as u8,
        destination: if msi.address & LOGICAL != 0 {
            Destination::Logical(id)
        } else {
            Destination::Physical(id)
        },
        trigger: Trigger::Edge,
    })
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

impl Hardware {
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
