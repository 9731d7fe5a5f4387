//! The start information of a PVH guest and what it points to, as one block of bytes.

use oxen_abi::start_info::{MAGIC, MEMORY_MAP_ENTRY_SIZE, MODULE_ENTRY_SIZE, StartInfo};
use oxen_xen::memory::MemoryRange;
use std::ops::Range;

/// Structure version with the memory map.
const VERSION: u32 = 1;
const HEADER: usize = size_of::<StartInfo>();

/// What the start information tells.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Kernel command line, without a zero byte.
    pub command_line: &'a str,
    /// Where the ramdisk is; empty for none.
    pub ramdisk: &'a Range<u64>,
    /// Memory map in ascending order.
    pub memory_map: &'a [MemoryRange],
    /// Address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Bytes of the block for a command line and a number of memory ranges.
pub const fn size(command_line: &str, ranges: usize) -> usize {
    HEADER + MODULE_ENTRY_SIZE + ranges * MEMORY_MAP_ENTRY_SIZE + command_line.len() + 1
}

/// The block for guest-physical `address`: structure, module list, memory map, command line.
pub fn build(address: u64, contents: &Contents<'_>) -> Vec<u8> {
    let modules = address + HEADER as u64;
    let memory_map = modules + MODULE_ENTRY_SIZE as u64;
    let map_size = contents.memory_map.len() * MEMORY_MAP_ENTRY_SIZE;
    let has_ramdisk = !contents.ramdisk.is_empty();
    let header = StartInfo {
        magic: MAGIC,
        version: VERSION,
        flags: 0,
        modules: u32::from(has_ramdisk),
        module_list: if has_ramdisk { modules } else { 0 },
        command_line: memory_map + map_size as u64,
        rsdp: contents.rsdp,
        memory_map,
        // A handful: see `Layout::memory_map`.
        memory_map_entries: contents.memory_map.len() as u32,
        reserved: 0,
    };
    let mut bytes = header.to_bytes().to_vec();
    let ramdisk_size = contents.ramdisk.end - contents.ramdisk.start;
    let module = match has_ramdisk {
        true => [contents.ramdisk.start, ramdisk_size, 0, 0],
        false => [0; 4],
    };
    bytes.extend(module.iter().flat_map(|word| word.to_le_bytes()));
    for range in contents.memory_map {
        bytes.extend(range.address.to_le_bytes());
        bytes.extend(range.size.to_le_bytes());
        bytes.extend(range.kind.to_le_bytes());
        bytes.extend([0; 4]);
    }
    bytes.extend(contents.command_line.as_bytes());
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: [MemoryRange; 2] = [
        MemoryRange {
            address: 0,
            size: 0x1000_0000,
            kind: 1,
        },
        MemoryRange {
            address: 0xFC00_0000,
            size: 0x1000,
            kind: 3,
        },
    ];

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    #[test]
    fn every_pointer_leads_to_its_part() {
        let bytes = build(
            0x5000,
            &Contents {
                command_line: "console=hvc0",
                ramdisk: &(0x8000..0x9001),
                memory_map: &MAP,
                rsdp: 0xFC00_0000,
            },
        );
        assert_eq!(bytes.len(), size("console=hvc0", 2));
        assert_eq!(bytes[..8], [0x78, 0xC5, 0x6E, 0x33, 1, 0, 0, 0]);
        assert_eq!(bytes[12], 1, "one module");
        let at = |offset| (word(&bytes, offset) - 0x5000) as usize;
        let module = at(16);
        assert_eq!(
            (word(&bytes, module), word(&bytes, module + 8)),
            (0x8000, 0x1001)
        );
        let command_line = at(24);
        assert_eq!(&bytes[command_line..], b"console=hvc0\0");
        assert_eq!(word(&bytes, 32), 0xFC00_0000);
        let map = at(40);
        assert_eq!(word(&bytes, map + 24), 0xFC00_0000);
        assert_eq!(bytes[map + 40], 3);
        assert_eq!(bytes[48], 2, "two ranges");
    }

    #[test]
    fn without_a_ramdisk_there_is_no_module() {
        let contents = Contents {
            command_line: "",
            ramdisk: &(0..0),
            memory_map: &MAP,
            rsdp: 0,
        };
        let bytes = build(0x1000, &contents);
        assert_eq!(bytes[12], 0);
        assert_eq!(word(&bytes, 16), 0);
        assert_eq!(bytes.len(), size("", 2));
    }
}
