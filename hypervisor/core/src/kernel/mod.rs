//! Kernel images: from a bzImage or an ELF file to the segments and the entry point of a PVH guest.

mod bzimage;
mod elf;
mod lzop;
mod unpack;

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
    /// The decoder found the payload broken.
    Corrupt(Compression),
    /// More is unpacked than the header announces, or less.
    WrongSize,
    /// Not an x86 executable.
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
                    "unknown compression, payload begins with {magic:02x?}; use xz, zstd, gzip, LZ4 or LZO"
                )
            }
            Self::UnsupportedCompression(kind) => {
                write!(
                    f,
                    "{kind} compression is not supported; use xz, zstd, gzip, LZ4 or LZO"
                )
            }
            Self::Corrupt(kind) => write!(
                f,
                "the {kind} payload is corrupt or truncated; copy the file again"
            ),
            Self::WrongSize => f.write_str(
                "the payload's size is not what its header announces; copy the file again",
            ),
            Self::NotX86Elf => f.write_str("not an x86 ELF executable; give a kernel for x86"),
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
mod tests {
    use super::*;

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
