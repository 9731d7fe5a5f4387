//! Finding tables: RSDP, XSDT or RSDT, and the tables they list (ACPI 5.2.5 to 5.2.8).

use alloc::vec::Vec;

use super::{PhysicalRead, number, sum};
use crate::address::HostPhys;

/// Bytes of a table's header.
pub(super) const HEADER: usize = 36;
/// A table larger than this is not believed.
const LARGEST: usize = 4 << 20;
/// Most tables listed.
const MOST: usize = 256;

/// Tables whose content the hypervisor reads.
const READ: [&[u8; 4]; 7] = [
    b"APIC", b"FACP", b"MCFG", b"HPET", b"SPCR", b"DMAR", b"IVRS",
];

/// A table of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its four-letter name.
    pub signature: [u8; 4],
    /// Where it lies.
    pub address: HostPhys,
    /// Bytes, header included.
    pub length: usize,
    /// The whole of it, header included, if it is the first of a kind that the hypervisor reads; else nothing.
    pub bytes: Vec<u8>,
}

/// The machine's tables.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// In the order listed.
    pub list: Vec<Table>,
}

impl Tables {
    /// Reads all tables that the RSDP at `rsdp` leads to; damaged ones are left out. `None` without a valid RSDP, or
    /// without a valid table behind it.
    pub fn read(memory: &impl PhysicalRead, rsdp: HostPhys) -> Option<Self> {
        let roots = root_tables(memory, rsdp)?;
        let mut buffer = Vec::new();
        let (root, entry_size) = roots.into_iter().flatten().find_map(|root| {
            let (signature, _) = load(memory, root.address, &mut buffer)?;
            (signature == *root.signature).then(|| (buffer.split_off(HEADER), root.entry_size))
        })?;
        let mut tables = Self::default();
        for entry in root.chunks_exact(entry_size).take(MOST) {
            let address = HostPhys(number(entry, 0, entry_size)?);
            let Some((signature, length)) = load(memory, address, &mut buffer) else {
                continue;
            };
            let is_read = READ.contains(&&signature) && tables.find(&signature).is_none();
            tables.list.push(Table {
                signature,
                address,
                length,
                bytes: if is_read {
                    core::mem::take(&mut buffer)
                } else {
                    Vec::new()
                },
            });
        }
        Some(tables)
    }

    /// The first table of that name.
    pub fn find(&self, signature: &[u8; 4]) -> Option<&Table> {
        self.list.iter().find(|table| table.signature == *signature)
    }
}

/// Reads the table at `address` into `buffer`, and returns its signature and length. `None` if the length is absurd, the
/// checksum is wrong or the heap is too small.
fn load(
    memory: &impl PhysicalRead,
    address: HostPhys,
    buffer: &mut Vec<u8>,
) -> Option<([u8; 4], usize)> {
    let mut header = [0; HEADER];
    if address.0 == 0 || !memory.read(address, &mut header) {
        return None;
    }
    let length = number(&header, 4, 4)? as usize;
    if !(HEADER..=LARGEST).contains(&length) {
        return None;
    }
    buffer.clear();
    buffer.try_reserve_exact(length).ok()?;
    buffer.resize(length, 0);
    if !memory.read(address, buffer) || sum(buffer) != 0 {
        return None;
    }
    Some(([header[0], header[1], header[2], header[3]], length))
}

/// A table of tables.
struct Root {
    address: HostPhys,
    signature: &'static [u8; 4],
    entry_size: usize,
}

/// XSDT and RSDT, as far as a valid RSDP has them; the XSDT goes first because only it reaches above 4 GiB.
fn root_tables(memory: &impl PhysicalRead, rsdp: HostPhys) -> Option<[Option<Root>; 2]> {
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
    let is_extended = revision >= 2 && memory.read(rsdp, &mut bytes) && sum(&bytes) == 0;
    let root = |signature, offset, entry_size| {
        let address = number(&bytes, offset, entry_size).filter(|&address| address != 0)?;
        Some(Root {
            address: HostPhys(address),
            signature,
            entry_size,
        })
    };
    Some([
        root(b"XSDT", 24, 8).filter(|_| is_extended),
        root(b"RSDT", 16, 4),
    ])
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
