//! Kernels as plain ELF files: an emulated CPU takes half a minute to unpack what a distribution packs with xz, at each boot.
//!
//! The kernel is the same to the byte where it is loaded. Tables of sections and what lies outside of the segments is left
//! out, and so are zeros at the segments' ends: a segment is filled up with zeros when it is loaded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use oxen_core::kernel::Image;

use super::cache;
use super::kernels::{self, Suite};

/// Its file beside the packed kernel.
const NAME: &str = "plain";
/// Where segments start in the file, so that what copies them can copy whole pages.
const PAGE: usize = 4096;

/// Fields of a 64-bit ELF header (System V ABI, "ELF header"): offset and size.
mod header {
    pub const SIZE: usize = 64;
    pub const TABLE: (usize, usize) = (32, 8);
    pub const ENTRY_SIZE: (usize, usize) = (54, 2);
    pub const ENTRIES: (usize, usize) = (56, 2);
    /// `e_shoff`, and `e_shnum` with `e_shstrndx`.
    pub const SECTIONS: [(usize, usize); 2] = [(40, 8), (60, 4)];
}

/// Fields of an entry of the 64-bit table of segments ("Program header").
mod entry {
    pub const SIZE: usize = 56;
    pub const KIND: (usize, usize) = (0, 4);
    pub const OFFSET: (usize, usize) = (8, 8);
    pub const FILE_SIZE: (usize, usize) = (32, 8);
    pub const LOAD: u64 = 1;
}

/// The kernel of a suite as a plain ELF file, made if it is not there.
///
/// # Errors
/// The kernel cannot be had, or is no bzImage of a 64-bit kernel.
pub fn kernel(suite: Suite) -> Result<PathBuf> {
    let packed = kernels::dom0(suite)?.kernel;
    let folder = packed.parent().unwrap_or(Path::new("."));
    let plain = folder.join(NAME);
    if plain.exists() {
        return Ok(plain);
    }
    let _lock = cache::lock(&format!("linux-{}", suite.name()))?;
    let bytes =
        fs::read(&packed).with_context(|| format!("{} cannot be read", packed.display()))?;
    let broken = |why: &dyn std::fmt::Display| anyhow!("{}: {why}", packed.display());
    let image = Image::parse(&bytes).map_err(|error| broken(&error))?;
    let mut unpacked = vec![0; image.unpacked_size()];
    image
        .unpack_into(&mut unpacked)
        .map_err(|error| broken(&error))?;
    let slim = slim(&unpacked).ok_or_else(|| broken(&"not a 64-bit ELF file within"))?;
    let part = folder.join("plain.part");
    fs::write(&part, slim)?;
    fs::rename(&part, &plain)?;
    Ok(plain)
}

/// The file's headers and segments, nothing else. `None` if it is no 64-bit ELF file with its segments in it.
fn slim(elf: &[u8]) -> Option<Vec<u8>> {
    if !elf.starts_with(b"\x7FELF\x02") {
        return None;
    }
    let table = usize::try_from(get(elf, 0, header::TABLE)?).ok()?;
    let entries = usize::try_from(get(elf, 0, header::ENTRIES)?).ok()?;
    if get(elf, 0, header::ENTRY_SIZE)? != entry::SIZE as u64 {
        return None;
    }
    let mut out = elf.get(..header::SIZE)?.to_vec();
    out.extend_from_slice(elf.get(table..table.checked_add(entries * entry::SIZE)?)?);
    put(&mut out, 0, header::TABLE, header::SIZE as u64);
    for field in header::SECTIONS {
        put(&mut out, 0, field, 0);
    }
    // Where each loaded part was in the file, and where it is now.
    let mut moved = Vec::new();
    let is_load = |number: usize| {
        get(elf, table + number * entry::SIZE, entry::KIND).map(|kind| kind == entry::LOAD)
    };
    for number in 0..entries {
        if !is_load(number)? {
            continue;
        }
        let old = table + number * entry::SIZE;
        let start = usize::try_from(get(elf, old, entry::OFFSET)?).ok()?;
        let size = usize::try_from(get(elf, old, entry::FILE_SIZE)?).ok()?;
        let content = elf.get(start..start.checked_add(size)?)?;
        let used = content.iter().rposition(|byte| *byte != 0);
        let content = &content[..used.map_or(0, |last| last + 1)];
        out.resize(out.len().next_multiple_of(PAGE), 0);
        let new = header::SIZE + number * entry::SIZE;
        let at = out.len();
        put(&mut out, new, entry::OFFSET, at as u64);
        put(&mut out, new, entry::FILE_SIZE, content.len() as u64);
        out.extend_from_slice(content);
        moved.push((start..start + content.len(), at));
    }
    // The notes lie in a loaded segment.
    for number in 0..entries {
        if is_load(number)? {
            continue;
        }
        let old = usize::try_from(get(elf, table + number * entry::SIZE, entry::OFFSET)?).ok()?;
        let found = moved.iter().find(|(range, _)| range.contains(&old));
        let new = header::SIZE + number * entry::SIZE;
        match found {
            Some((range, at)) => put(
                &mut out,
                new,
                entry::OFFSET,
                (at + old - range.start) as u64,
            ),
            None => put(&mut out, new, entry::FILE_SIZE, 0),
        }
    }
    Some(out)
}

/// A little-endian number of the structure at `base`.
fn get(bytes: &[u8], base: usize, (offset, size): (usize, usize)) -> Option<u64> {
    let start = base.checked_add(offset)?;
    let field = bytes.get(start..start.checked_add(size)?)?;
    let number = field.iter().rev();
    Some(number.fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn put(bytes: &mut [u8], base: usize, (offset, size): (usize, usize), value: u64) {
    let start = base + offset;
    bytes[start..start + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxen_core::kernel::PvhKernel;

    /// A kernel with two segments, of which the first holds the notes and the second ends in zeros; junk in between and
    /// behind.
    fn kernel() -> Vec<u8> {
        let mut file = vec![0xEE; 3 * PAGE];
        file[..header::SIZE + 3 * entry::SIZE].fill(0);
        file[..6].copy_from_slice(b"\x7FELF\x02\x01");
        put(&mut file, 0, (18, 2), 62);
        put(&mut file, 0, header::TABLE, header::SIZE as u64);
        put(&mut file, 0, header::ENTRY_SIZE, entry::SIZE as u64);
        put(&mut file, 0, header::ENTRIES, 3);
        put(&mut file, 0, header::SECTIONS[0], 2 * PAGE as u64);
        let (address, memory_size) = ((24, 8), (40, 8));
        for (number, kind, offset, at, size) in [
            (0, 4, 600, 0, 20),
            (1, 1, 512, 0x100_0000, 256),
            (2, 1, 1000, 0x100_1000, 2000),
        ] {
            let base = header::SIZE + number * entry::SIZE;
            put(&mut file, base, entry::KIND, kind);
            put(&mut file, base, entry::OFFSET, offset);
            put(&mut file, base, address, at);
            put(&mut file, base, entry::FILE_SIZE, size);
            put(&mut file, base, memory_size, 4096);
        }
        file[2900..3000].fill(0);
        let note = [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x100_0010];
        for (to, word) in file[600..620].chunks_mut(4).zip(note) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        file
    }

    fn loaded(file: &[u8]) -> (u32, Vec<(u64, u64, Vec<u8>)>) {
        let kernel = PvhKernel::parse(file).expect("a PVH kernel");
        let segments = kernel.segments().map(|segment| {
            let mut bytes = segment.bytes.to_vec();
            bytes.resize(segment.size as usize, 0);
            (segment.address, segment.size, bytes)
        });
        (kernel.entry, segments.collect())
    }

    #[test]
    fn what_is_loaded_stays_the_same() {
        let file = kernel();
        let slim = slim(&file).expect("an ELF file");
        assert_eq!(loaded(&slim), loaded(&file));
        assert_eq!(slim.len(), 2 * PAGE + 1900);
    }

    #[test]
    fn a_file_that_is_cut_off_is_none() {
        assert_eq!(slim(&kernel()[..1100]), None);
        assert_eq!(slim(b"MZ"), None);
    }
}
