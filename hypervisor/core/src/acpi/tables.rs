//! Finding tables: RSDP, XSDT or RSDT, and the tables they list (ACPI 5.2.5 to 5.2.8).

use alloc::vec;
use alloc::vec::Vec;

use super::{PhysicalRead, number, sum};
use crate::address::HostPhys;

/// Bytes of a table's header.
pub(super) const HEADER: usize = 36;
/// A table larger than this is not believed.
const LARGEST: usize = 4 << 20;
/// Most tables listed.
const MOST: usize = 256;

/// A table of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its four-letter name.
    pub signature: [u8; 4],
    /// Where it lies.
    pub address: HostPhys,
    /// The whole of it, header included.
    pub bytes: Vec<u8>,
}

/// The machine's tables.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// In the order listed.
    pub list: Vec<Table>,
}

impl Tables {
    /// Reads all tables that the RSDP at `rsdp` leads to; damaged ones are left out. `None` without a valid RSDP.
    pub fn read(memory: &impl PhysicalRead, rsdp: HostPhys) -> Option<Self> {
        let (root, entry_size) = root_table(memory, rsdp)?;
        let root = read_table(memory, root)?;
        let list = root.bytes[HEADER..]
            .chunks_exact(entry_size)
            .take(MOST)
            .filter_map(|entry| read_table(memory, HostPhys(number(entry, 0, entry_size)?)))
            .collect();
        Some(Self { list })
    }

    /// The first table of that name.
    pub fn find(&self, signature: &[u8; 4]) -> Option<&Table> {
        self.list.iter().find(|table| table.signature == *signature)
    }
}

/// Reads the table at `address`; `None` if its length is absurd or its checksum is wrong.
pub(super) fn read_table(memory: &impl PhysicalRead, address: HostPhys) -> Option<Table> {
    let mut header = [0; HEADER];
    if address.0 == 0 || !memory.read(address, &mut header) {
        return None;
    }
    let length = number(&header, 4, 4)? as usize;
    if !(HEADER..=LARGEST).contains(&length) {
        return None;
    }
    let mut bytes = vec![0; length];
    if !memory.read(address, &mut bytes) || sum(&bytes) != 0 {
        return None;
    }
    Some(Table {
        signature: [header[0], header[1], header[2], header[3]],
        address,
        bytes,
    })
}

/// Address of the XSDT or the RSDT, with the size of its entries.
fn root_table(memory: &impl PhysicalRead, rsdp: HostPhys) -> Option<(HostPhys, usize)> {
    const V1: usize = 20;
    const V2: usize = 36;
    let mut bytes = [0; V2];
    if !memory.read(rsdp, &mut bytes[..V1])
        || !bytes.starts_with(b"RSD PTR ")
        || sum(&bytes[..V1]) != 0
    {
        return None;
    }
    let revision = bytes[15];
    if revision >= 2 && memory.read(rsdp, &mut bytes) && sum(&bytes) == 0 {
        let xsdt = number(&bytes, 24, 8)?;
        if xsdt != 0 {
            return Some((HostPhys(xsdt), 8));
        }
    }
    Some((HostPhys(number(&bytes, 16, 4)?), 4))
}

/// The legacy search: the first KiB of the extended BIOS data area, then 0xE0000 to 0xFFFFF, on 16-byte boundaries.
pub fn find_rsdp(memory: &impl PhysicalRead) -> Option<HostPhys> {
    let mut segment = [0; 2];
    let area = if memory.read(HostPhys(0x40E), &mut segment) {
        u64::from(u16::from_le_bytes(segment)) << 4
    } else {
        0
    };
    let places = (area..area + 1024)
        .step_by(16)
        .chain((0xE_0000..0x10_0000).step_by(16));
    places.map(HostPhys).find(|&place| {
        let mut bytes = [0; 20];
        memory.read(place, &mut bytes) && bytes.starts_with(b"RSD PTR ") && sum(&bytes) == 0
    })
}
