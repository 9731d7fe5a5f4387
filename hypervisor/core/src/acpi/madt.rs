//! The multiple APIC description table (ACPI 6.5, 5.2.12): CPUs, I/O APICs and how interrupts are wired.

use alloc::vec::Vec;

use super::tables::HEADER;
use super::{Table, number};
use crate::address::HostPhys;

/// A CPU that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its local APIC's ID.
    pub apic_id: u32,
    /// Its processor UID.
    pub uid: u32,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicEntry {
    /// Its ID.
    pub id: u8,
    /// Its register page.
    pub address: HostPhys,
    /// Its first global system interrupt.
    pub gsi_base: u32,
}

/// An ISA interrupt that is not wired one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// The ISA interrupt.
    pub irq: u8,
    /// The global system interrupt it is.
    pub gsi: u32,
    /// Polarity in bits 1:0 (3: active low), trigger mode in bits 3:2 (3: level).
    pub flags: u16,
}

/// A global system interrupt that is an NMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NmiSource {
    /// The interrupt.
    pub gsi: u32,
    /// As in [`Override::flags`].
    pub flags: u16,
}

/// A local APIC's pin that is an NMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNmi {
    /// The processor's UID; `None` for all.
    pub uid: Option<u32>,
    /// 0 or 1.
    pub lint: u8,
    /// As in [`Override::flags`].
    pub flags: u16,
}

/// The table's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Madt {
    /// CPUs that are enabled.
    pub cpus: Vec<Cpu>,
    /// CPUs that are not enabled but may be brought online.
    pub pluggable_cpus: Vec<Cpu>,
    /// I/O APICs.
    pub io_apics: Vec<IoApicEntry>,
    /// ISA interrupts wired otherwise.
    pub overrides: Vec<Override>,
    /// I/O APIC pins that are NMIs.
    pub nmi_sources: Vec<NmiSource>,
    /// Local APIC pins that are NMIs.
    pub local_nmis: Vec<LocalNmi>,
}

/// Reads one kind of entry into the table; `None` if it is too short.
type Reader = fn(&mut Madt, &[u8]) -> Option<()>;

/// Entries by their type; what is not listed is passed over.
const READERS: [(u8, Reader); 7] = [
    (0, Madt::local_apic),
    (1, Madt::io_apic),
    (2, Madt::interrupt_override),
    (3, Madt::nmi_source),
    (4, Madt::local_nmi),
    (9, Madt::local_x2apic),
    (10, Madt::local_x2apic_nmi),
];

impl Madt {
    /// Reads the table; what is not known is passed over, and what is behind a damaged entry is not read.
    pub fn parse(table: &Table) -> Self {
        const MULTIPLE_FIELDS: usize = 8;
        let mut madt = Self::default();
        let mut rest = table.bytes.get(HEADER + MULTIPLE_FIELDS..).unwrap_or(&[]);
        while let &[kind, length, ..] = rest {
            let Some((entry, behind)) = rest.split_at_checked(length.into()) else {
                break;
            };
            if entry.len() < 2 {
                break;
            }
            if let Some((_, read)) = READERS.iter().find(|(known, _)| *known == kind) {
                read(&mut madt, entry);
            }
            rest = behind;
        }
        madt
    }

    /// The global system interrupt of an ISA interrupt, with its flags (0 where ISA's own hold: edge, active high).
    pub fn isa_gsi(&self, irq: u8) -> (u32, u16) {
        let found = self.overrides.iter().find(|entry| entry.irq == irq);
        found.map_or((irq.into(), 0), |entry| (entry.gsi, entry.flags))
    }

    /// Adds what the interrupt controllers' edge/level control registers (ports 0x4D0 and 0x4D1, a bit for each ISA
    /// interrupt) say and the table does not: a level-triggered interrupt without an override is one that the firmware
    /// gave to PCI's INTx lines, which are active low. An OS without 8259s would take it for ISA's, edge and high, and
    /// could not give it to the device any more.
    pub fn add_level_triggered(&mut self, edge_level: u16) {
        /// Timer, keyboard, cascade, clock and coprocessor are always edge: bits set there are no such registers.
        const RESERVED: u16 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 13;
        const LEVEL_LOW: u16 = 0b1111;
        if edge_level & RESERVED != 0 {
            return;
        }
        for irq in (0..16).filter(|irq| edge_level & 1 << irq != 0) {
            if self.overrides.iter().all(|known| known.irq != irq) {
                self.overrides.push(Override {
                    irq,
                    gsi: irq.into(),
                    flags: LEVEL_LOW,
                });
            }
        }
    }

    fn local_apic(&mut self, entry: &[u8]) -> Option<()> {
        // Firmware fills unused places with this.
        const NO_APIC: u64 = 0xFF;
        let (uid, id, flags) = (
            number(entry, 2, 1)?,
            number(entry, 3, 1)?,
            number(entry, 4, 4)?,
        );
        if id != NO_APIC {
            self.add_cpu(id as u32, uid as u32, flags);
        }
        Some(())
    }

    fn local_x2apic(&mut self, entry: &[u8]) -> Option<()> {
        const NO_APIC: u64 = 0xFFFF_FFFF;
        let (id, flags, uid) = (
            number(entry, 4, 4)?,
            number(entry, 8, 4)?,
            number(entry, 12, 4)?,
        );
        if id != NO_APIC {
            self.add_cpu(id as u32, uid as u32, flags);
        }
        Some(())
    }

    fn io_apic(&mut self, entry: &[u8]) -> Option<()> {
        self.io_apics.push(IoApicEntry {
            id: number(entry, 2, 1)? as u8,
            address: HostPhys(number(entry, 4, 4)?),
            gsi_base: number(entry, 8, 4)? as u32,
        });
        Some(())
    }

    fn interrupt_override(&mut self, entry: &[u8]) -> Option<()> {
        self.overrides.push(Override {
            irq: number(entry, 3, 1)? as u8,
            gsi: number(entry, 4, 4)? as u32,
            flags: number(entry, 8, 2)? as u16,
        });
        Some(())
    }

    fn nmi_source(&mut self, entry: &[u8]) -> Option<()> {
        self.nmi_sources.push(NmiSource {
            flags: number(entry, 2, 2)? as u16,
            gsi: number(entry, 4, 4)? as u32,
        });
        Some(())
    }

    fn local_nmi(&mut self, entry: &[u8]) -> Option<()> {
        const ALL: u64 = 0xFF;
        let uid = number(entry, 2, 1)?;
        self.local_nmis.push(LocalNmi {
            uid: (uid != ALL).then_some(uid as u32),
            flags: number(entry, 3, 2)? as u16,
            lint: number(entry, 5, 1)? as u8,
        });
        Some(())
    }

    fn local_x2apic_nmi(&mut self, entry: &[u8]) -> Option<()> {
        const ALL: u64 = 0xFFFF_FFFF;
        let uid = number(entry, 4, 4)?;
        self.local_nmis.push(LocalNmi {
            uid: (uid != ALL).then_some(uid as u32),
            flags: number(entry, 2, 2)? as u16,
            lint: number(entry, 8, 1)? as u8,
        });
        Some(())
    }

    /// Firmware may list a CPU both ways.
    fn add_cpu(&mut self, apic_id: u32, uid: u32, flags: u64) {
        const ENABLED: u64 = 1 << 0;
        const ONLINE_CAPABLE: u64 = 1 << 1;
        const MOST: usize = 4096;
        let list = if flags & ENABLED != 0 {
            &mut self.cpus
        } else if flags & ONLINE_CAPABLE != 0 {
            &mut self.pluggable_cpus
        } else {
            return;
        };
        if list.len() < MOST && !list.iter().any(|cpu| cpu.apic_id == apic_id) {
            list.push(Cpu { apic_id, uid });
        }
    }
}
