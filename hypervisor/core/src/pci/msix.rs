//! The MSI-X capability and its table, as dom0 programs them (PCI Local Bus 3.0, 6.8.2).
//!
//! The table lies in the function's own memory: the machine side intercepts its pages and brings reads and writes here.

use alloc::vec;
use alloc::vec::Vec;

use super::{Access, Message, PciConfig, Sbdf, Width, find_capability};

/// Capability ID.
const ID: u8 = 0x11;
/// Bytes of a table entry.
const ENTRY: usize = 16;
/// Message control, high byte: enable and function mask.
const ENABLE: u8 = 1 << 7;
const FUNCTION_MASK: u8 = 1 << 6;
/// Vector control: the entry is masked.
const MASKED: u32 = 1;

/// One entry of the table: address low and high, data, vector control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry([u32; 4]);

/// dom0's programming of a function's MSI-X.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msix {
    capability: u16,
    bar: u8,
    offset: u32,
    control: u8,
    entries: Vec<Entry>,
}

impl Msix {
    /// Reads a function's capability; `None` if it has none, or one that names no BAR.
    pub fn find(config: &mut impl PciConfig, sbdf: Sbdf) -> Option<Self> {
        const BAR: u32 = 0b111;
        const SIZE: u32 = 0x7FF;
        let capability = find_capability(config, sbdf, ID)?;
        let mut read = |offset, width| {
            config.read(Access {
                sbdf,
                register: capability + offset,
                width,
            })
        };
        // The capability's twelve bytes end inside the space that capabilities may use.
        if capability > 0x100 - 12 {
            return None;
        }
        let entries = read(2, Width::Word) & SIZE;
        let table = read(4, Width::Dword);
        let bar = (table & BAR) as u8;
        (bar < 6).then(|| Self {
            capability,
            bar,
            offset: table & !BAR,
            control: 0,
            // As after reset.
            entries: vec![Entry([0, 0, 0, MASKED]); entries as usize + 1],
        })
    }

    /// Offset of the capability in configuration space.
    pub const fn capability(&self) -> u16 {
        self.capability
    }

    /// The byte of configuration space that holds the enable and function-mask bits.
    pub const fn control_register(&self) -> u16 {
        self.capability + 3
    }

    /// The bits of that byte that dom0 set.
    pub const fn control(&self) -> u8 {
        self.control
    }

    /// Sets them.
    pub const fn set_control(&mut self, value: u8) {
        self.control = value & (ENABLE | FUNCTION_MASK);
    }

    /// The bits of the control byte that are dom0's.
    pub const fn control_mask() -> u8 {
        ENABLE | FUNCTION_MASK
    }

    /// Whether dom0 has MSI-X on.
    pub const fn enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Number of entries.
    pub const fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the table.
    pub const fn size(&self) -> u64 {
        (self.entries.len() * ENTRY) as u64
    }

    /// Host-physical address of the table by the function's BAR; `None` while it does not decode memory.
    pub fn place(&self, config: &mut impl PciConfig, sbdf: Sbdf) -> Option<u64> {
        const MEMORY: u32 = 1 << 1;
        const PORTS: u32 = 1;
        const KIND: u32 = 0b110;
        const KIND_64_BIT: u32 = 0b100;
        let mut read = |register| {
            config.read(Access {
                sbdf,
                register,
                width: Width::Dword,
            })
        };
        let command = read(4);
        let register = 0x10 + 4 * u16::from(self.bar);
        let low = read(register);
        if command & MEMORY == 0 || low & PORTS != 0 {
            return None;
        }
        let high = match low & KIND {
            KIND_64_BIT if self.bar < 5 => read(register + 4),
            KIND_64_BIT => return None,
            _ => 0,
        };
        let base = u64::from(high) << 32 | u64::from(low & !0xF);
        if base == 0 {
            return None;
        }
        base.checked_add(self.offset.into())
    }

    /// What dom0 reads at a byte offset of the table.
    pub fn read(&self, offset: usize, width: u8) -> u64 {
        (0..usize::from(width.min(8))).fold(0, |value, i| {
            let at = offset + i;
            let byte = self
                .entries
                .get(at / ENTRY)
                .map_or(0, |entry| entry.0[at % ENTRY / 4] >> (8 * (at % 4)) as u32);
            value | u64::from(byte as u8) << (8 * i)
        })
    }

    /// dom0 writes at a byte offset of the table: the entry that is different now, if any.
    pub fn write(&mut self, offset: usize, width: u8, value: u64) -> Option<usize> {
        let index = offset / ENTRY;
        let entry = self.entries.get_mut(index)?;
        let before = *entry;
        for i in 0..usize::from(width.min(8)) {
            let at = offset % ENTRY + i;
            if at >= ENTRY {
                break;
            }
            let shift = 8 * (at % 4);
            let word = &mut entry.0[at / 4];
            *word = *word & !(0xFF << shift) | u32::from((value >> (8 * i)) as u8) << shift;
        }
        // Reserved bits of the vector control read 0; address bits 1:0 too.
        entry.0[3] &= MASKED;
        entry.0[0] &= !3;
        (*entry != before).then_some(index)
    }

    /// The message of an entry that may signal; `None` where it is masked or MSI-X is off.
    pub fn message(&self, index: usize) -> Option<Message> {
        let Entry([low, high, data, control]) = *self.entries.get(index)?;
        (self.enabled() && control & MASKED == 0).then_some(Message {
            address: u64::from(high) << 32 | u64::from(low),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::testing::{Device, msi_and_msix};

    fn table() -> Msix {
        Msix::find(&mut msi_and_msix(), Sbdf::default()).expect("the device has MSI-X")
    }

    #[test]
    fn the_capability_tells_size_and_place() {
        let (mut device, table) = (msi_and_msix(), table());
        assert_eq!((table.capability(), table.entries()), (0x70, 4));
        assert_eq!(table.place(&mut device, Sbdf::default()), None);
        device.0[4] = 2;
        assert_eq!(
            table.place(&mut device, Sbdf::default()),
            Some(0x1_FEB0_2000)
        );
    }

    #[test]
    fn a_table_in_no_memory_has_no_place() {
        let table = table();
        let mut device = msi_and_msix();
        device.0[4] = 2;
        device.0[0x10] = 1;
        assert_eq!(table.place(&mut device, Sbdf::default()), None);
        device.0[0x10..0x18].fill(0);
        assert_eq!(table.place(&mut device, Sbdf::default()), None);
    }

    #[test]
    fn an_entry_speaks_when_unmasked_and_enabled() {
        let mut table = table();
        assert_eq!(table.write(16, 8, 0xFEE0_1003), Some(1));
        assert_eq!(table.write(24, 4, 0x4041), Some(1));
        assert_eq!(table.write(24, 4, 0x4041), None);
        assert_eq!(table.message(1), None);
        assert_eq!(table.write(28, 4, 0xFFFF_FFFE), Some(1));
        assert_eq!(table.message(1), None);
        table.set_control(0xFF);
        let message = Message {
            address: 0xFEE0_1000,
            data: 0x4041,
        };
        assert_eq!(table.message(1), Some(message));
        assert_eq!(table.message(0), None);
        assert_eq!(table.read(24, 8), 0x4041);
    }

    #[test]
    fn accesses_past_the_end_do_nothing() {
        let mut table = table();
        assert_eq!(table.write(64, 4, 1), None);
        assert_eq!(table.read(64, 4), 0);
        assert_eq!(table.write(60, 8, u64::MAX), None);
        assert_eq!(table.message(100), None);
    }

    #[test]
    fn a_capability_at_the_end_of_the_space_is_not_followed() {
        let mut device = Device([0; 256]);
        device.0[0x06] = 0x10;
        device.0[0x34] = 0xF8;
        device.0[0xF8] = ID;
        assert_eq!(Msix::find(&mut device, Sbdf::default()), None);
    }
}
