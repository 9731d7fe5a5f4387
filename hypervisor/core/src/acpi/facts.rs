//! What the hypervisor needs to know: CPUs and I/O APICs (MADT), fixed hardware (FADT), configuration space (MCFG).

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

/// The multiple APIC description table (ACPI 5.2.12).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Madt {
    /// CPUs that are enabled.
    pub cpus: Vec<Cpu>,
    /// I/O APICs.
    pub io_apics: Vec<IoApicEntry>,
    /// Overrides.
    pub overrides: Vec<Override>,
}

impl Madt {
    /// Reads the table; what is not known is passed over.
    pub fn parse(table: &Table) -> Self {
        const ENABLED: u64 = 1;
        let mut madt = Self::default();
        let mut rest = table.bytes.get(HEADER + 8..).unwrap_or(&[]);
        while let (Some(&kind), Some(&length)) = (rest.first(), rest.get(1)) {
            let Some(entry) = rest
                .get(..usize::from(length))
                .filter(|entry| entry.len() >= 2)
            else {
                break;
            };
            let field = |offset, size| number(entry, offset, size);
            match kind {
                0 => {
                    if let (Some(uid), Some(id), Some(flags)) =
                        (field(2, 1), field(3, 1), field(4, 4))
                        && flags & ENABLED != 0
                    {
                        madt.add_cpu(id as u32, uid as u32);
                    }
                }
                1 => {
                    if let (Some(id), Some(address), Some(base)) =
                        (field(2, 1), field(4, 4), field(8, 4))
                    {
                        let address = HostPhys(address);
                        madt.io_apics.push(IoApicEntry {
                            id: id as u8,
                            address,
                            gsi_base: base as u32,
                        });
                    }
                }
                2 => {
                    if let (Some(irq), Some(gsi), Some(flags)) =
                        (field(3, 1), field(4, 4), field(8, 2))
                    {
                        madt.overrides.push(Override {
                            irq: irq as u8,
                            gsi: gsi as u32,
                            flags: flags as u16,
                        });
                    }
                }
                9 => {
                    if let (Some(id), Some(flags), Some(uid)) =
                        (field(4, 4), field(8, 4), field(12, 4))
                        && flags & ENABLED != 0
                    {
                        madt.add_cpu(id as u32, uid as u32);
                    }
                }
                _ => {}
            }
            rest = &rest[entry.len()..];
        }
        madt
    }

    /// The global system interrupt of an ISA interrupt, with its flags (0 where ISA's own hold: edge, active high).
    pub fn isa_gsi(&self, irq: u8) -> (u32, u16) {
        let found = self.overrides.iter().find(|entry| entry.irq == irq);
        found.map_or((irq.into(), 0), |entry| (entry.gsi, entry.flags))
    }

    /// Firmware may list a CPU both ways.
    fn add_cpu(&mut self, apic_id: u32, uid: u32) {
        if !self.cpus.iter().any(|cpu| cpu.apic_id == apic_id) {
            self.cpus.push(Cpu { apic_id, uid });
        }
    }
}

/// The fixed ACPI description table (ACPI 5.2.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fadt {
    /// The differentiated system description table.
    pub dsdt: HostPhys,
    /// System control interrupt.
    pub sci: u16,
    /// Port of PM1a control, 0 without.
    pub pm1a_control: u16,
    /// Port of PM1b control, 0 without.
    pub pm1b_control: u16,
    /// Port of the power-management timer, 0 without.
    pub pm_timer: u16,
}

impl Fadt {
    /// Reads the table. Ports come from the legacy fields, which every machine with fixed hardware fills.
    pub fn parse(table: &Table) -> Self {
        let field = |offset, size| number(&table.bytes, offset, size).unwrap_or(0);
        let dsdt = match field(140, 8) {
            0 => field(40, 4),
            extended => extended,
        };
        Self {
            dsdt: HostPhys(dsdt),
            sci: field(46, 2) as u16,
            pm1a_control: field(64, 4) as u16,
            pm1b_control: field(68, 4) as u16,
            pm_timer: field(76, 4) as u16,
        }
    }
}

/// A range of memory-mapped configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McfgSegment {
    /// Where bus 0 of the segment would begin.
    pub base: HostPhys,
    /// PCI segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

impl McfgSegment {
    /// Reads all entries of the table (PCI firmware specification 4.1.2).
    pub fn parse_all(table: &Table) -> Vec<Self> {
        let entries = table.bytes.get(HEADER + 8..).unwrap_or(&[]);
        entries
            .chunks_exact(16)
            .filter_map(|entry| {
                Some(Self {
                    base: HostPhys(number(entry, 0, 8)?),
                    segment: number(entry, 8, 2)? as u16,
                    first_bus: entry[10],
                    last_bus: entry[11],
                })
            })
            .collect()
    }
}

/// SLP_TYPa and SLP_TYPb of S5, from the package named `_S5_` in a definition block: the name, PackageOp, length, element
/// count, then integers as ZeroOp, OneOp or BytePrefix and a byte. dom0 owns AML; this one package is all we read.
pub fn sleep_type_s5(dsdt: &[u8]) -> Option<(u8, u8)> {
    const PACKAGE: u8 = 0x12;
    const BYTE_PREFIX: u8 = 0x0A;
    let at = dsdt
        .windows(5)
        .position(|window| window.starts_with(b"_S5_") && window[4] == PACKAGE)?;
    let body = dsdt.get(at + 5..)?;
    // The length's own bytes: one, and as many more as its top two bits say.
    let mut rest = body.get(1 + usize::from(body.first()? >> 6) + 1..)?;
    let mut integer = || {
        let (&first, tail) = rest.split_first()?;
        let (value, tail) = match first {
            BYTE_PREFIX => tail.split_first().map(|(&value, tail)| (value, tail))?,
            0 | 1 => (first, tail),
            _ => return None,
        };
        rest = tail;
        Some(value)
    };
    let a = integer()?;
    Some((a & 7, integer().unwrap_or(0) & 7))
}
