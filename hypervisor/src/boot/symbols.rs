//! The image's own symbol table, for backtraces with names.
//!
//! A multiboot2 loader leaves the ELF symbol and string tables in memory and says where; they are copied to memory of
//! ours once there is some.

use alloc::vec::Vec;

use multiboot2::ElfSectionsTag;
use oxen_core::address::HostPhys;
use spin::Once;

use crate::memory::layout;

/// Bytes of an `Elf64_Sym`.
const SYMBOL_SIZE: usize = 24;
/// ELF section type of a symbol table.
const SHT_SYMTAB: u32 = 2;
/// A symbol table larger than this is not ours.
const LIMIT: u64 = 8 << 20;

/// Where the loader left the tables.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    symbols: (HostPhys, u64),
    strings: (HostPhys, u64),
}

impl Tables {
    /// The two ranges, to be kept from other use until [`keep`].
    pub fn ranges(&self) -> [(HostPhys, u64); 2] {
        [self.symbols, self.strings]
    }
}

struct Symbols {
    /// Function addresses in ascending order, each with its name's offset.
    functions: Vec<(u64, u32)>,
    names: Vec<u8>,
}

static SYMBOLS: Once<Symbols> = Once::new();

/// Finds the symbol table among the sections that the loader describes.
pub fn find(tag: &ElfSectionsTag) -> Option<Tables> {
    let symbols = tag
        .sections()
        .find(|section| section.sh_type == SHT_SYMTAB && section.sh_addr != 0)?;
    let strings = tag.sections().nth(symbols.sh_link as usize)?;
    if strings.sh_addr == 0 || symbols.sh_size > LIMIT || strings.sh_size > LIMIT {
        return None;
    }
    Some(Tables {
        symbols: (HostPhys(symbols.sh_addr), symbols.sh_size),
        strings: (HostPhys(strings.sh_addr), strings.sh_size),
    })
}

/// Copies the tables' functions, so that the loader's memory can be used.
pub fn keep(tables: &Tables) {
    SYMBOLS.call_once(|| {
        let symbols = bytes_at(tables.symbols);
        let mut functions: Vec<(u64, u32)> = symbols
            .chunks_exact(SYMBOL_SIZE)
            .filter_map(|entry| {
                const STT_FUNC: u8 = 2;
                let name = u32::from_le_bytes(entry.get(0..4)?.try_into().ok()?);
                let value = u64::from_le_bytes(entry.get(8..16)?.try_into().ok()?);
                (entry[4] & 0xF == STT_FUNC).then_some((value, name))
            })
            .collect();
        functions.sort_unstable();
        Symbols {
            functions,
            names: bytes_at(tables.strings).to_vec(),
        }
    });
}

/// The function that holds `address`, with the offset in it.
pub fn lookup(address: u64) -> Option<(&'static str, u64)> {
    let symbols = SYMBOLS.get()?;
    let after = symbols
        .functions
        .partition_point(|&(start, _)| start <= address);
    let &(start, name) = symbols.functions.get(after.checked_sub(1)?)?;
    let tail = symbols.names.get(name as usize..)?;
    let end = tail.iter().position(|&byte| byte == 0)?;
    Some((core::str::from_utf8(&tail[..end]).ok()?, address - start))
}

fn bytes_at((start, size): (HostPhys, u64)) -> &'static [u8] {
    // SAFETY: the loader placed the section there (checked against LIMIT); it lies in RAM below 4 GiB, which is mapped,
    // and is kept from the allocator until `keep` returns.
    unsafe { core::slice::from_raw_parts(layout::direct_map(start), size as usize) }
}
