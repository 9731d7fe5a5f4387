//! Input for boots: disk images with known content, and kernels that no hypervisor can boot.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::Failure;

/// Bytes of one cylinder of 16 heads and 63 sectors: disk images are whole cylinders, as Bochs wants them.
const CYLINDER: usize = 16 * 63 * 512;

/// Offset of the count of real-mode sectors in a bzImage (Linux boot protocol, `setup_sects`).
const SETUP_SECTORS: usize = 0x1f1;
/// Offset of the boot protocol's magic, `HdrS`.
const MAGIC: usize = 0x202;
/// Offset of the payload's offset from the start of the protected-mode code (`payload_offset`).
const PAYLOAD_OFFSET: usize = 0x248;

/// Content of a disk that has no two equal sectors, and does not compress.
pub fn disk_image(cylinders: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..cylinders * CYLINDER / 8).flat_map(|_| {
        // xorshift64: any full-period generator will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// The SHA-256 hash as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What `gzip | base64` has made a text of.
///
/// # Errors
/// When it is no such text.
pub fn unpacked(text: &str) -> Result<Vec<u8>, Failure> {
    let packed = STANDARD.decode(text.split_whitespace().collect::<String>())?;
    let mut bytes = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first half of a kernel.
pub fn truncated(kernel: &[u8]) -> &[u8] {
    &kernel[..kernel.len() / 2]
}

/// A bzImage whose payload is in no known compression: the payload's magic bytes are overwritten. `None` when `kernel` is no bzImage.
pub fn unknown_compression(kernel: &[u8]) -> Option<Vec<u8>> {
    if kernel.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let setup = match *kernel.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = u32::from_le_bytes(
        kernel
            .get(PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4)?
            .try_into()
            .ok()?,
    );
    let start = (setup + 1) * 512 + usize::try_from(offset).ok()?;
    let mut image = kernel.to_vec();
    image
        .get_mut(start..start + 8)?
        .copy_from_slice(b"OXENTEST");
    Some(image)
}

/// A small ELF file for x86-64 that has a segment to load but no PVH note.
pub fn elf_without_pvh_note() -> Vec<u8> {
    const HEADER: u16 = 64;
    const SEGMENT: u16 = 56;
    const LOAD_AT: u64 = 0x10_0000;
    let code = [0xf4_u8; 64];
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    for half in [2_u16, 62] {
        image.extend(half.to_le_bytes());
    }
    image.extend(1_u32.to_le_bytes());
    // Entry, program headers, no section headers.
    for word in [LOAD_AT, u64::from(HEADER), 0] {
        image.extend(word.to_le_bytes());
    }
    image.extend(0_u32.to_le_bytes());
    for half in [HEADER, SEGMENT, 1, 0, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for word in [1_u32, 5] {
        image.extend(word.to_le_bytes());
    }
    let (offset, size) = (u64::from(HEADER + SEGMENT), 64_u64);
    for word in [offset, LOAD_AT, LOAD_AT, size, size, 8] {
        image.extend(word.to_le_bytes());
    }
    image.extend(code);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_payloads_first_bytes_change() {
        let mut kernel = vec![0_u8; 0x1000];
        kernel[SETUP_SECTORS] = 2;
        kernel[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        kernel[PAYLOAD_OFFSET] = 0x10;
        let image = unknown_compression(&kernel).expect("a bzImage");
        let start = 3 * 512 + 0x10;
        assert_eq!(&image[start..start + 8], b"OXENTEST");
        assert_eq!(image.iter().zip(&kernel).filter(|(a, b)| a != b).count(), 8);
        assert_eq!(unknown_compression(b"\x7fELF"), None);
    }

    #[test]
    fn the_elf_file_is_whole() {
        let image = elf_without_pvh_note();
        assert_eq!(image.len(), 64 + 56 + 64);
        assert_eq!(&image[52..56], &[64, 0, 56, 0]);
    }

    #[test]
    fn a_disk_image_has_whole_cylinders_and_no_two_equal_sectors() {
        let image = disk_image(1);
        assert_eq!(image.len(), CYLINDER);
        let sectors: std::collections::HashSet<&[u8]> = image.chunks(512).collect();
        assert_eq!(sectors.len(), CYLINDER / 512);
    }

    #[test]
    fn a_hash_is_written_as_sha256sum_writes_it() {
        assert!(sha256(b"").starts_with("e3b0c44298fc1c14"));
    }
}
