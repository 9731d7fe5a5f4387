//! The emulated I/O APIC: what dom0 programs, over the machine's real one with the same pins.

use alloc::vec;
use alloc::vec::Vec;

use super::{Delivery, Destination, Trigger};

/// Bits of a redirection entry (82093AA data sheet, 3.2.4).
const VECTOR: u64 = 0xFF;
const LOGICAL: u64 = 1 << 11;
const REMOTE_IRR: u64 = 1 << 14;
const DELIVERY_STATUS: u64 = 1 << 12;
const ACTIVE_LOW: u64 = 1 << 13;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const READ_ONLY: u64 = REMOTE_IRR | DELIVERY_STATUS;

/// Version with an EOI register.
const VERSION: u32 = 0x20;

/// An interrupt for local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// How.
    pub delivery: Delivery,
    /// The vector.
    pub vector: u8,
    /// To whom.
    pub destination: Destination,
    /// How its end is told.
    pub trigger: Trigger,
}

/// What must change on the machine's own pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinChange {
    /// Pin of this I/O APIC.
    pub pin: u8,
    /// Whether the guest lets it interrupt.
    pub enabled: bool,
    /// Trigger mode of its entry.
    pub trigger: Trigger,
    /// Polarity of its entry.
    pub active_low: bool,
}

/// One I/O APIC.
#[derive(Clone, Debug)]
pub struct IoApic {
    id: u8,
    gsi_base: u32,
    select: u8,
    entries: Vec<u64>,
}

impl IoApic {
    /// An I/O APIC with all pins masked.
    pub fn new(id: u8, gsi_base: u32, pins: u8) -> Self {
        Self {
            id,
            gsi_base,
            select: 0,
            entries: vec![MASKED; usize::from(pins)],
        }
    }

    /// Its first global system interrupt.
    pub const fn gsi_base(&self) -> u32 {
        self.gsi_base
    }

    /// The pin of a global system interrupt, if it is one of this I/O APIC's.
    pub fn pin_of(&self, gsi: u32) -> Option<u8> {
        let pin = gsi.checked_sub(self.gsi_base)?;
        ((pin as usize) < self.entries.len()).then_some(pin as u8)
    }

    /// Reads a register of the page: index at 0, data at 0x10.
    pub fn read(&self, offset: u32) -> u32 {
        match offset {
            0x00 => self.select.into(),
            0x10 => self.read_selected(),
            _ => 0,
        }
    }

    /// Writes a register of the page: index, data, or EOI at 0x40. Returns the pin to change on the machine, if any.
    pub fn write(&mut self, offset: u32, value: u32) -> Option<PinChange> {
        match offset {
            0x00 => {
                self.select = value as u8;
                None
            }
            0x10 => self.write_selected(value),
            0x40 => self.end_of_interrupt(value as u8).last(),
            _ => None,
        }
    }

    /// The machine's pin was raised: the message to deliver. A level-triggered pin stays busy until its EOI.
    pub fn raise(&mut self, pin: u8) -> Option<Message> {
        let entry = self.entries.get_mut(usize::from(pin))?;
        if *entry & MASKED != 0 || (*entry & LEVEL != 0 && *entry & REMOTE_IRR != 0) {
            return None;
        }
        let message = message(*entry)?;
        if message.trigger == Trigger::Level {
            *entry |= REMOTE_IRR;
        }
        Some(message)
    }

    /// A local APIC ended the service of a level-triggered vector: the pins that were waiting for it.
    pub fn end_of_interrupt(&mut self, vector: u8) -> impl Iterator<Item = PinChange> + '_ {
        let busy =
            move |entry: &u64| *entry & REMOTE_IRR != 0 && *entry & VECTOR == u64::from(vector);
        self.entries
            .iter_mut()
            .enumerate()
            .filter(move |(_, entry)| busy(entry))
            .map(|(pin, entry)| {
                *entry &= !REMOTE_IRR;
                change(pin, *entry)
            })
    }

    /// State of a pin's entry.
    pub fn pin(&self, pin: u8) -> Option<PinChange> {
        self.entries
            .get(usize::from(pin))
            .map(|entry| change(pin.into(), *entry))
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            0 | 2 => u32::from(self.id) << 24,
            1 => VERSION | (self.entries.len().saturating_sub(1) as u32) << 16,
            _ => {
                let (pin, high) = self.selected_entry();
                let entry = self.entries.get(pin).copied().unwrap_or(0);
                if high {
                    (entry >> 32) as u32
                } else {
                    entry as u32
                }
            }
        }
    }

    fn write_selected(&mut self, value: u32) -> Option<PinChange> {
        match self.select {
            0 => {
                self.id = (value >> 24) as u8 & 0xF;
                None
            }
            1 | 2 => None,
            _ => {
                let (pin, high) = self.selected_entry();
                let entry = self.entries.get_mut(pin)?;
                let old = *entry;
                let new = if high {
                    old & 0xFFFF_FFFF | u64::from(value) << 32
                } else {
                    old & (!0xFFFF_FFFF | READ_ONLY) | u64::from(value) & !READ_ONLY & 0x1_FFFF
                };
                // An edge-triggered entry has no remote IRR: rewriting the mode is how old drivers clear it.
                *entry = if new & LEVEL == 0 {
                    new & !REMOTE_IRR
                } else {
                    new
                };
                Some(change(pin, *entry))
            }
        }
    }

    const fn selected_entry(&self) -> (usize, bool) {
        let index = self.select.saturating_sub(0x10);
        ((index / 2) as usize, !index.is_multiple_of(2))
    }
}

fn change(pin: usize, entry: u64) -> PinChange {
    PinChange {
        pin: pin as u8,
        enabled: entry & MASKED == 0 && entry & REMOTE_IRR == 0,
        trigger: trigger(entry),
        active_low: entry & ACTIVE_LOW != 0,
    }
}

const fn trigger(entry: u64) -> Trigger {
    if entry & LEVEL != 0 {
        Trigger::Level
    } else {
        Trigger::Edge
    }
}

fn message(entry: u64) -> Option<Message> {
    let destination = (entry >> 56) as u32;
    Some(Message {
        delivery: Delivery::from_bits(entry >> 8)?,
        vector: (entry & VECTOR) as u8,
        destination: if entry & LOGICAL != 0 {
            Destination::Logical(destination)
        } else {
            Destination::Physical(destination)
        },
        trigger: trigger(entry),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(apic: &mut IoApic, pin: u8, entry: u64) -> Option<PinChange> {
        apic.write(0, u32::from(0x11 + 2 * pin));
        apic.write(0x10, (entry >> 32) as u32);
        apic.write(0, u32::from(0x10 + 2 * pin));
        apic.write(0x10, entry as u32)
    }

    #[test]
    fn a_level_pin_is_busy_until_its_vector_ends() {
        let mut apic = IoApic::new(2, 16, 24);
        assert_eq!(apic.pin_of(25), Some(9));
        assert_eq!(apic.pin_of(40), None);
        let unmasked = program(&mut apic, 9, 1 << 56 | LEVEL | ACTIVE_LOW | 0x31);
        let open = PinChange {
            pin: 9,
            enabled: true,
            trigger: Trigger::Level,
            active_low: true,
        };
        assert_eq!(unmasked, Some(open));
        let message = apic.raise(9).expect("the pin is open");
        assert_eq!(
            (message.vector, message.destination),
            (0x31, Destination::Physical(1))
        );
        assert_eq!(apic.raise(9), None);
        assert_eq!(apic.read(0x10) & REMOTE_IRR as u32, REMOTE_IRR as u32);
        assert_eq!(apic.end_of_interrupt(0x32).count(), 0);
        assert_eq!(apic.end_of_interrupt(0x31).collect::<Vec<_>>(), [open]);
        assert!(apic.raise(9).is_some());
    }

    #[test]
    fn masked_and_edge_pins() {
        let mut apic = IoApic::new(0, 0, 24);
        assert_eq!(apic.raise(4), None);
        program(&mut apic, 4, 0x41);
        assert!(apic.raise(4).is_some() && apic.raise(4).is_some());
        assert_eq!(apic.raise(99), None);
    }

    #[test]
    fn version_and_id_read_as_programmed() {
        let mut apic = IoApic::new(7, 0, 24);
        apic.write(0, 1);
        assert_eq!(apic.read(0x10), 0x0017_0020);
        apic.write(0, 0);
        assert_eq!(apic.read(0x10), 7 << 24);
        apic.write(0x10, 3 << 24);
        assert_eq!(apic.read(0x10), 3 << 24);
        apic.write(0, 0xFF);
        assert_eq!(apic.read(0x10), 0);
        assert_eq!(apic.write(0x10, 5), None);
    }
}
