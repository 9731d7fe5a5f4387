//! The guest's kernel as an ELF file in memory: read, unpacked, or as it was kept unpacked.

use std::fs::File;
use std::io::{Cursor, Read};
use std::ops::Deref;
use std::path::Path;

use oxen_core::kernel::{Compression, Image, KernelError};
use oxen_xen::file_view::FileView;

use crate::cache::{KernelCache, Origin};
use crate::error::BuildError;

/// A kernel's ELF file.
#[derive(Debug)]
pub enum Kernel {
    /// Read or unpacked just now.
    Own(Vec<u8>),
    /// From the cache.
    Kept(FileView),
}

impl Deref for Kernel {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(view) => view,
        }
    }
}

impl Kernel {
    /// Reads the kernel at `path` and unpacks it, unless `cache` has it.
    ///
    /// # Errors
    /// The file cannot be read, or is no kernel.
    pub fn load(path: &Path, cache: Option<&KernelCache>) -> Result<Self, BuildError> {
        let (mut file, size) = open(path)?;
        let origin = cache.and_then(|_| Origin::of(&file));
        if let Some(kept) = cache.and_then(|cache| cache.by_origin(origin.as_ref()?)) {
            return Ok(Self::Kept(kept));
        }
        let mut packed = Vec::with_capacity(size as usize);
        file.read_to_end(&mut packed)
            .map_err(|source| read_failed(path, source))?;
        let image = Image::parse(&packed).map_err(|cause| not_a_kernel(path, cause))?;
        if let Image::Elf(bytes) = image {
            // Mostly the file itself, of which dom0 shall not hold two copies.
            let part = (bytes.len() < packed.len()).then(|| bytes.to_vec());
            return Ok(Self::Own(part.unwrap_or(packed)));
        }
        let unpack = || unpack(path, &image);
        match cache {
            Some(cache) => cache.get(&packed, image.unpacked_size(), origin.as_ref(), unpack),
            None => unpack().map(Self::Own),
        }
    }
}

/// Opens a file and tells its size.
pub fn open(path: &Path) -> Result<(File, u64), BuildError> {
    let file = File::open(path).map_err(|source| read_failed(path, source))?;
    let metadata = file.metadata();
    let metadata = metadata.map_err(|source| read_failed(path, source))?;
    if !metadata.is_file() {
        return Err(read_failed(path, std::io::ErrorKind::InvalidInput.into()));
    }
    Ok((file, metadata.len()))
}

fn read_failed(path: &Path, source: std::io::Error) -> BuildError {
    BuildError::Read {
        path: path.to_owned(),
        source,
    }
}

fn not_a_kernel(path: &Path, cause: KernelError) -> BuildError {
    BuildError::Kernel {
        path: path.to_owned(),
        cause,
    }
}

fn unpack(path: &Path, image: &Image<'_>) -> Result<Vec<u8>, BuildError> {
    let mut unpacked = vec![0; image.unpacked_size()];
    let result = match *image {
        Image::Packed {
            payload,
            compression: kind @ (Compression::Bzip2 | Compression::Lzma),
            ..
        } => unpack_rare(kind, payload, &mut unpacked),
        _ => image.unpack_into(&mut unpacked).map(|_| ()),
    };
    result.map_err(|cause| not_a_kernel(path, cause))?;
    Ok(unpacked)
}

/// The formats of kernels that the hypervisor itself does without: no distribution packs dom0's with them.
fn unpack_rare(kind: Compression, payload: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    /// More than any preset of `lzma` asks for, in bytes.
    const LARGEST_DICTIONARY: usize = 128 << 20;
    let corrupt = KernelError::Corrupt(kind);
    if kind == Compression::Bzip2 {
        let mut decoder = bzip2::read::BzDecoder::new(payload);
        decoder.read_exact(out).map_err(|_| corrupt)?;
        return match decoder.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(KernelError::WrongSize),
            Err(_) => Err(corrupt),
        };
    }
    let options = lzma_rs::decompress::Options {
        memlimit: Some(LARGEST_DICTIONARY),
        ..Default::default()
    };
    let size = out.len() as u64;
    // It cannot hold more than the kernel has bytes.
    let mut sink = Cursor::new(out);
    lzma_rs::lzma_decompress_with_options(&mut { payload }, &mut sink, &options)
        .map_err(|_| corrupt)?;
    if sink.position() == size {
        Ok(())
    } else {
        Err(KernelError::WrongSize)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::build::tests::kernel as elf;

    /// A bzImage around a payload (Linux boot protocol, 2.08 and later).
    fn image(payload: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[0x1F1] = 1;
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x20F_u16.to_le_bytes());
        bytes[0x24C..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
        bytes.extend(payload);
        bytes.extend((size as u32).to_le_bytes());
        bytes
    }

    fn load(file: &[u8]) -> Result<Kernel, BuildError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vmlinuz");
        std::fs::write(&path, file).expect("a writable directory");
        Kernel::load(&path, None)
    }

    fn bzip2() -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(&elf()).expect("memory");
        encoder.finish().expect("memory")
    }

    fn lzma() -> Vec<u8> {
        let mut packed = Vec::new();
        lzma_rs::lzma_compress(&mut elf().as_slice(), &mut packed).expect("memory");
        packed
    }

    #[test]
    fn bzip2_and_lzma_are_unpacked() {
        for packed in [bzip2(), lzma()] {
            let size = elf().len();
            assert_eq!(*load(&image(&packed, size)).expect("a kernel"), elf());
            for wrong in [size - 1, size + 1] {
                let error = load(&image(&packed, wrong)).expect_err("another size");
                assert!(error.to_string().contains("copy the file again"), "{error}");
            }
            let half = &packed[..packed.len() / 2];
            let error = load(&image(half, size)).expect_err("half of it");
            assert!(
                error.to_string().contains("corrupt or truncated"),
                "{error}"
            );
        }
    }

    /// As lzop 1.04 would write it without making it smaller, and without checksums of the content.
    fn lzo() -> Vec<u8> {
        let content = elf();
        let size = (content.len() as u32).to_be_bytes();
        let header = [0x10, 0x40, 0x20, 0xA0, 9, 0x40, 3, 9, 3, 0, 0, 0];
        let rest = [0; 13];
        let sum = 0x1F14_0169_u32.to_be_bytes();
        let magic = b"\x89LZO\0\r\n\x1A\n";
        let parts: [&[u8]; 8] = [magic, &header, &rest, &sum, &size, &size, &content, &[0; 4]];
        parts.concat()
    }

    #[test]
    fn lzo_is_unpacked() {
        let size = elf().len();
        assert_eq!(*load(&image(&lzo(), size)).expect("a kernel"), elf());
        let error = load(&image(&lzo()[..size], size)).expect_err("a part of it");
        assert!(
            error.to_string().contains("the LZO payload is corrupt"),
            "{error}"
        );
    }
}
