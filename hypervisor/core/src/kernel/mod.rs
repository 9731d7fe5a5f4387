//! Kernel images: from a bzImage or an ELF file to the segments and the entry point of a PVH guest.

mod bzimage;
mod copy;
mod elf;
mod unpack;
mod xz;
mod zstd;

use core::fmt;

pub use bzimage::Image;
pub use elf::{PvhKernel, Relocation, Segment};
pub use unpack::Compression;

const ELF_MAGIC: [u8; 4] = *b"\x7FELF";

/// Why an image cannot be booted: the cause, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// Neither a bzImage nor an ELF file.
    NotAKernel,
    /// The boot protocol does not tell where the payload is.
    OldBootProtocol(u16),
    /// The file ends before what its headers announce.
    Truncated,
    /// The payload begins with no magic number that is known.
    UnknownCompression([u8; 4]),
    /// A known format without a decoder.
    UnsupportedCompression(Compression),
    /// A known format in a form that kernels are not packed in.
    UnsupportedVariant(Compression),
    /// The decoder found the payload broken.
    Corrupt(Compression),
    /// More is unpacked than the header announces, or less.
    WrongSize,
    /// Not a 64-bit x86 executable.
    NotX86Elf,
    /// No PVH entry point.
    NotPvh,
    /// The entry point is in none of the segments.
    EntryOutside(u32),
    /// A segment wraps around or lies above 4 GiB.
    BadSegment,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKernel => {
                f.write_str("neither a bzImage nor an ELF file; give the distribution's vmlinuz")
            }
            Self::OldBootProtocol(version) => {
                write!(
                    f,
                    "boot protocol {:#x} is older than 0x208; use a kernel of this century's second decade",
                    version
                )
            }
            Self::Truncated => f.write_str(
                "truncated: the file ends before what its header announces; copy it again",
            ),
            Self::UnknownCompression(magic) => {
                write!(
                    f,
                    "unknown compression, payload begins with {magic:02x?}; use xz, zstd, gzip, LZMA or LZ4"
                )
            }
            Self::UnsupportedCompression(kind) => {
                write!(
                    f,
                    "{kind} compression is not supported; use xz, zstd, gzip, LZMA or LZ4"
                )
            }
            Self::UnsupportedVariant(kind) => write!(
                f,
                "the {kind} payload uses a filter, check or setting that is not supported; pack it as Linux's build does"
            ),
            Self::Corrupt(kind) => write!(
                f,
                "the {kind} payload is corrupt or truncated; copy the file again"
            ),
            Self::WrongSize => f.write_str(
                "the payload's size is not what its header announces; copy the file again",
            ),
            Self::NotX86Elf => f.write_str("not a 64-bit x86 ELF executable; give an x86-64 kernel"),
            Self::NotPvh => f.write_str(
                "not PVH-bootable, no PHYS32_ENTRY note; use a kernel built with CONFIG_PVH=y",
            ),
            Self::EntryOutside(entry) => write!(
                f,
                "the PVH entry point {entry:#x} lies outside of the kernel; copy the file again"
            ),
            Self::BadSegment => f.write_str("an ELF segment wraps around, is larger in the file than in memory, or lies above 4 GiB; use an unmodified kernel"),
        }
    }
}

#[cfg(test)]
mod testing {
    /// What the fixtures hold: `length` bytes chosen from `alphabet` by a linear congruential generator.
    pub fn generated(length: usize, alphabet: &[u8]) -> Vec<u8> {
        let mut seed = 1u32;
        (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                alphabet[(seed >> 16) as usize % alphabet.len()]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The boot CPU's stack is small, has no guard, and is half full already.
    #[test]
    fn unpacking_needs_little_stack() {
        const STACK: usize = 16 << 10;
        let packed: [(Compression, &'static [u8], usize); 3] = [
            (
                Compression::Xz,
                include_bytes!("fixtures/branches.xz"),
                3000,
            ),
            (
                Compression::Zstd,
                include_bytes!("fixtures/sparse.zst"),
                300_000,
            ),
            (Compression::Gzip, include_bytes!("fixtures/oxen.gz"), 4000),
        ];
        for (compression, bytes, size) in packed { if compression != Compression::Gzip { continue; }
            let thread = std::thread::Builder::new()
                .stack_size(STACK)
                .spawn(move || {
                    let mut out = vec![0; size];
                    unpack::unpack(compression, bytes, &mut out)
                });
            let result = thread.expect("a thread").join().expect("no panic");
            assert_eq!(result, Ok(()), "{compression}");
        }
    }

    /// `OXEN_TEST_KERNELS`: paths of distribution kernels, separated by colons.
    #[test]
    fn distribution_kernels_unpack_to_pvh_kernels() {
        let Ok(paths) = std::env::var("OXEN_TEST_KERNELS") else {
            println!("skipped: OXEN_TEST_KERNELS names no kernels");
            return;
        };
        for path in paths.split(':') {
            let file = std::fs::read(path).expect("a readable kernel");
            let image = Image::parse(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut buffer = vec![0; image.unpacked_size()];
            let kernel = image
                .unpack_into(&mut buffer)
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            println!(
                "{path}: {} bytes, entry {:#x}, extent {:x?}, {:x?}",
                image.unpacked_size(),
                kernel.entry,
                kernel.extent(),
                kernel.relocation
            );
            assert_eq!(kernel.extent().start, 0x100_0000, "{path}");
            assert_eq!(kernel.supports_dom0, Some(true), "{path}");
        }
    }
}
