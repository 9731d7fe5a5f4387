//! The PVH start information (`public/arch-x86/hvm/start_info.h`).

use crate::layout;

/// First word of [`StartInfo`].
pub const MAGIC: u32 = 0x336E_C578;
/// `SIF_PRIVILEGED | SIF_INITDOMAIN`.
pub const FLAGS_DOM0: u32 = 0b11;

/// ELF note with the 32-bit entry point (`XEN_ELFNOTE_PHYS32_ENTRY`).
pub const NOTE_PHYS32_ENTRY: u32 = 18;

/// `hvm_start_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct StartInfo {
    pub magic: u32,
    pub version: u32,
    pub flags: u32,
    pub modules: u32,
    pub module_list: u64,
    pub command_line: u64,
    pub rsdp: u64,
    pub memory_map: u64,
    pub memory_map_entries: u32,
    pub reserved: u32,
}

layout!(
    StartInfo,
    56,
    module_list = 16,
    rsdp = 32,
    memory_map_entries = 48
);

impl StartInfo {
    /// The structure as the guest reads it.
    pub fn to_bytes(&self) -> [u8; 56] {
        let mut out = [0; 56];
        let words = [self.magic, self.version, self.flags, self.modules];
        for (i, word) in words.into_iter().enumerate() {
            out[4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        let longs = [
            self.module_list,
            self.command_line,
            self.rsdp,
            self.memory_map,
        ];
        for (i, long) in longs.into_iter().enumerate() {
            out[16 + 8 * i..][..8].copy_from_slice(&long.to_le_bytes());
        }
        out[48..52].copy_from_slice(&self.memory_map_entries.to_le_bytes());
        out
    }
}

/// Bytes of an `hvm_modlist_entry`: address, size, command line, reserved, each a u64.
pub const MODULE_ENTRY_SIZE: usize = 32;
/// Bytes of an `hvm_memmap_table_entry`: address u64, size u64, type u32, reserved u32.
pub const MEMORY_MAP_ENTRY_SIZE: usize = 24;
