//! The guest's kernel as an ELF file in memory: read, unpacked, or as it was kept unpacked.

use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use oxen_core::kernel::{Image, KernelError};
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
            return Ok(Self::Own(bytes.to_vec()));
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
    image
        .unpack_into(&mut unpacked)
        .map_err(|cause| not_a_kernel(path, cause))?;
    Ok(unpacked)
}
