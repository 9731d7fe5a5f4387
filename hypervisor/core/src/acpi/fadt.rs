//! The fixed ACPI description table (ACPI 6.5, 5.2.9): power management registers and where the AML is.

use super::{Table, number};
use crate::address::HostPhys;

/// Where a generic address (ACPI 6.5, 5.2.3.2) points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A memory-mapped register.
    Memory(HostPhys),
    /// An I/O port.
    Port(u16),
    /// A register in the configuration space of a function on bus 0.
    PciConfig {
        /// Device number.
        device: u8,
        /// Function number.
        function: u8,
        /// Offset of the register.
        offset: u16,
    },
}

impl Place {
    /// Reads the generic address at `offset` of a table; `None` if it is 0 or in no space that is known.
    pub(super) fn read(bytes: &[u8], offset: usize) -> Option<Self> {
        const MEMORY: u64 = 0;
        const PORT: u64 = 1;
        const PCI_CONFIG: u64 = 2;
        let address = number(bytes, offset + 4, 8).filter(|&address| address != 0)?;
        match number(bytes, offset, 1)? {
            MEMORY => Some(Self::Memory(HostPhys(address))),
            PORT => u16::try_from(address).ok().map(Self::Port),
            PCI_CONFIG => Some(Self::PciConfig {
                device: u8::try_from(address >> 32 & 0xFFFF).ok()?,
                function: u8::try_from(address >> 16 & 0xFFFF).ok()?,
                offset: address as u16,
            }),
            _ => None,
        }
    }
}

/// How to reset the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// An 8-bit register.
    pub register: Place,
    /// What to write there.
    pub value: u8,
}

/// The table's content. Ports are 0 where the machine has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fadt {
    /// The differentiated system description table.
    pub dsdt: HostPhys,
    /// The firmware ACPI control structure.
    pub facs: HostPhys,
    /// System control interrupt, an ISA interrupt or a global system interrupt.
    pub sci: u16,
    /// Port by which firmware is told who owns the power management registers.
    pub smi_command: u16,
    /// Port of the PM1a event registers.
    pub pm1a_event: u16,
    /// Port of the PM1b event registers.
    pub pm1b_event: u16,
    /// Bytes of each event register block: half status, half enable.
    pub pm1_event_length: u8,
    /// Port of PM1a control.
    pub pm1a_control: u16,
    /// Port of PM1b control.
    pub pm1b_control: u16,
    /// Bytes of each control register.
    pub pm1_control_length: u8,
    /// Port of the power-management timer.
    pub pm_timer: u16,
    /// The real-time clock's register with the century, 0 without.
    pub century: u8,
    /// Fixed feature flags.
    pub flags: u32,
    /// The reset register.
    pub reset: Option<Reset>,
}

impl Fadt {
    const TIMER_32_BITS: u32 = 1 << 8;
    const RESET_REGISTER: u32 = 1 << 10;
    const HARDWARE_REDUCED: u32 = 1 << 20;

    /// Reads the table; an older, shorter one lacks the last fields. A legacy field that is 0 is taken from its extended
    /// twin.
    pub fn parse(table: &Table) -> Self {
        let bytes = &table.bytes[..];
        let field = |offset, size| number(bytes, offset, size).unwrap_or(0);
        let port = |legacy, extended| match u16::try_from(field(legacy, 4)) {
            Ok(port) if port != 0 => port,
            _ => match Place::read(bytes, extended) {
                Some(Place::Port(port)) => port,
                _ => 0,
            },
        };
        let pointer = |legacy, extended| match field(extended, 8) {
            0 => HostPhys(field(legacy, 4)),
            address => HostPhys(address),
        };
        let flags = field(112, 4) as u32;
        let register = Place::read(bytes, 116).filter(|_| flags & Self::RESET_REGISTER != 0);
        Self {
            dsdt: pointer(40, 140),
            facs: pointer(36, 132),
            sci: field(46, 2) as u16,
            smi_command: u16::try_from(field(48, 4)).unwrap_or(0),
            pm1a_event: port(56, 148),
            pm1b_event: port(60, 160),
            pm1_event_length: field(88, 1) as u8,
            pm1a_control: port(64, 172),
            pm1b_control: port(68, 184),
            pm1_control_length: field(89, 1) as u8,
            pm_timer: port(76, 208),
            century: field(108, 1) as u8,
            flags,
            reset: register.map(|register| Reset {
                register,
                value: field(128, 1) as u8,
            }),
        }
    }

    /// Whether the power-management timer counts in 32 bits rather than 24.
    pub const fn timer_has_32_bits(&self) -> bool {
        self.flags & Self::TIMER_32_BITS != 0
    }

    /// Whether the machine has none of the fixed registers.
    pub const fn is_hardware_reduced(&self) -> bool {
        self.flags & Self::HARDWARE_REDUCED != 0
    }
}
