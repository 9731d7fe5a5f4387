//! Message-signalled interrupts on the wire: the device gets a message with a vector of ours, and what dom0 programmed is
//! where the interrupt is delivered to.

use alloc::vec::Vec;

use oxen_core::apic::io::Message as Interrupt;
use oxen_core::apic::{Delivery, Destination, Trigger};
use oxen_core::id::CpuId;
use oxen_core::pci::{Access, Message, Msi, Msix, PciConfig, Sbdf, Width};

use super::hardware::Hardware;
use super::tables::Tables;
use crate::cpu;
use crate::interrupt::vectors::{self, Source};

/// Where messages go on the wire (SDM vol. 3, 11.11.1).
const MESSAGE_BASE: u32 = 0xFEE0_0000;

/// A message's sender and the vector that stands for it.
struct Slot {
    sbdf: Sbdf,
    /// Entry of the MSI-X table; 0 for MSI, which a function does not use at the same time.
    entry: usize,
    vector: u8,
    interrupt: Option<Interrupt>,
}

/// All messages in use, by slot.
#[derive(Default)]
pub struct Messages(Vec<Option<Slot>>);

impl Messages {
    /// What dom0 wants delivered for the message in `slot`.
    pub fn at(&self, slot: u32) -> Option<Interrupt> {
        self.0.get(slot as usize)?.as_ref()?.interrupt
    }

    /// Programs a function's MSI capability (PCI Local Bus 3.0, 6.8.1), disabled while it changes.
    pub fn route_msi(&mut self, hardware: &mut Hardware, sbdf: Sbdf, capability: u16, msi: &Msi) {
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
            self.release(sbdf);
            return;
        }
        let Some(vector) = self.vector(sbdf, 0, msi.message()) else {
            return;
        };
        hardware.write(at(4, Width::Dword), address());
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

    /// Programs a function's MSI-X: its whole table, then its control bits. It stays off while its table has no place.
    pub fn route_msix(
        &mut self,
        hardware: &mut Hardware,
        tables: &Tables,
        sbdf: Sbdf,
        msix: &Msix,
    ) {
        let control = Access {
            sbdf,
            register: msix.control_register(),
            width: Width::Byte,
        };
        let others = hardware.read(control) & !u32::from(Msix::control_mask());
        if !msix.enabled() || !tables.has(sbdf) {
            hardware.write(control, others);
            self.release(sbdf);
            return;
        }
        for index in 0..msix.entries() {
            self.route_entry(tables, sbdf, index, msix.message(index));
        }
        hardware.write(control, others | u32::from(msix.control()));
    }

    /// Programs one entry of a table: masked where dom0 has it masked.
    pub fn route_entry(
        &mut self,
        tables: &Tables,
        sbdf: Sbdf,
        index: usize,
        message: Option<Message>,
    ) {
        tables.mask(sbdf, index);
        if message.is_none() {
            return;
        }
        if let Some(vector) = self.vector(sbdf, index, message) {
            tables.program(sbdf, index, address(), vector.into());
        }
    }

    /// The vector of a message, which is remembered with where dom0 wants it.
    fn vector(&mut self, sbdf: Sbdf, entry: usize, message: Option<Message>) -> Option<u8> {
        let interrupt = message.and_then(decode);
        let used = self
            .0
            .iter_mut()
            .flatten()
            .find(|slot| slot.sbdf == sbdf && slot.entry == entry);
        if let Some(slot) = used {
            slot.interrupt = interrupt;
            return Some(slot.vector);
        }
        let free = self.0.iter().position(Option::is_none);
        let index = free.unwrap_or(self.0.len());
        let Some(vector) = vectors::allocate(Source::Message(index as u32)) else {
            log::warn!("no interrupt vector left: message {entry} of {sbdf} stays off");
            return None;
        };
        let slot = Some(Slot {
            sbdf,
            entry,
            vector,
            interrupt,
        });
        match free {
            Some(index) => self.0[index] = slot,
            None => self.0.push(slot),
        }
        Some(vector)
    }

    /// Gives back the vectors of a function that does not signal any more.
    fn release(&mut self, sbdf: Sbdf) {
        for place in &mut self.0 {
            if let Some(slot) = place.take_if(|slot| slot.sbdf == sbdf) {
                vectors::release(slot.vector);
            }
        }
    }
}

/// Address that leads a message to the CPU that takes device interrupts.
fn address() -> u32 {
    let apic_id = cpu::percpu::by_id(CpuId(0)).map_or(0, |cpu| cpu.apic_id());
    MESSAGE_BASE | (apic_id & 0xFF) << 12
}

/// What dom0's address and data mean (SDM vol. 3, 11.11).
fn decode(message: Message) -> Option<Interrupt> {
    const LOGICAL: u64 = 1 << 2;
    let id = (message.address >> 12 & 0xFF) as u32;
    Some(Interrupt {
        delivery: Delivery::from_bits(u64::from(message.data >> 8))?,
        vector: message.data as u8,
        destination: if message.address & LOGICAL != 0 {
            Destination::Logical(id)
        } else {
            Destination::Physical(id)
        },
        trigger: Trigger::Edge,
    })
}
