//! The bzImage container (Linux boot protocol, xen-abi 1.1).

use super::unpack::{self, Compression};
use super::{ELF_MAGIC, KernelError, PvhKernel};

const MAGIC: u32 = 0x5372_6448;
const MAGIC_OFFSET: usize = 0x202;
const VERSION_OFFSET: usize = 0x206;
const SETUP_SECTORS_OFFSET: usize = 0x1F1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24C;
/// First version with the payload fields.
const OLDEST_VERSION: u16 = 0x208;
const SECTOR: usize = 512;
/// A kernel larger than this is not believed.
const LARGEST: usize = 1 << 30;

/// A kernel image as loaded from disk.
#[derive(Clone, Copy, Debug)]
pub enum Image<'a> {
    /// An ELF file.
    Elf(&'a [u8]),
    /// A compressed payload.
    Packed {
        /// The compressed bytes, without the size behind them.
        payload: &'a [u8],
        /// Its format.
        compression: Compression,
        /// Bytes when unpacked.
        size: usize,
    },
}

impl<'a> Image<'a> {
    /// Recognises an image.
    ///
    /// # Errors
    /// What is wrong with it, see [`KernelError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, KernelError> {
        if bytes.starts_with(&ELF_MAGIC) {
            return Ok(Self::Elf(bytes));
        }
        if word(bytes, MAGIC_OFFSET) != Some(MAGIC) {
            return Err(KernelError::NotAKernel);
        }
        let version = bytes
            .get(VERSION_OFFSET..VERSION_OFFSET + 2)
            .ok_or(KernelError::Truncated)?;
        let version = u16::from_le_bytes([version[0], version[1]]);
        if version < OLDEST_VERSION {
            return Err(KernelError::OldBootProtocol(version));
        }
        let sectors = match bytes
            .get(SETUP_SECTORS_OFFSET)
            .ok_or(KernelError::Truncated)?
        {
            0 => 4,
            &sectors => usize::from(sectors),
        };
        let offset = word(bytes, PAYLOAD_OFFSET).ok_or(KernelError::Truncated)? as usize;
        let length = word(bytes, PAYLOAD_LENGTH).ok_or(KernelError::Truncated)? as usize;
        let start = (sectors + 1) * SECTOR + offset;
        let whole = bytes
            .get(start..start.saturating_add(length))
            .ok_or(KernelError::Truncated)?;
        let (payload, size) = whole
            .split_last_chunk::<4>()
            .ok_or(KernelError::Truncated)?;
        let size = u32::from_le_bytes(*size) as usize;
        if payload.starts_with(&ELF_MAGIC) {
            return Ok(Self::Elf(payload));
        }
        let compression = Compression::detect(payload)?;
        if size > LARGEST {
            return Err(KernelError::WrongSize);
        }
        // The size word is a gzip member's own trailer.
        let payload = if compression == Compression::Gzip {
            whole
        } else {
            payload
        };
        Ok(Self::Packed {
            payload,
            compression,
            size,
        })
    }

    /// Bytes that [`Image::unpack_into`] needs; 0 where the file itself is the kernel.
    pub const fn unpacked_size(&self) -> usize {
        match self {
            Self::Elf(_) => 0,
            Self::Packed { size, .. } => *size,
        }
    }

    /// Unpacks into `buffer`, which has [`Image::unpacked_size`] bytes, and reads the kernel's headers.
    ///
    /// # Errors
    /// What is wrong with it, see [`KernelError`].
    pub fn unpack_into<'b>(&self, buffer: &'b mut [u8]) -> Result<PvhKernel<'b>, KernelError>
    where
        'a: 'b,
    {
        match *self {
            Self::Elf(bytes) => PvhKernel::parse(bytes),
            Self::Packed {
                payload,
                compression,
                size,
            } => {
                let buffer = buffer.get_mut(..size).ok_or(KernelError::WrongSize)?;
                unpack::unpack(compression, payload, buffer)?;
                PvhKernel::parse(buffer)
            }
        }
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let part = bytes.get(offset..offset + 4)?;
    Some(u32::from_le_bytes([part[0], part[1], part[2], part[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 2 * SECTOR];
        bytes[SETUP_SECTORS_OFFSET] = 1;
        bytes[MAGIC_OFFSET..MAGIC_OFFSET + 4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[VERSION_OFFSET..VERSION_OFFSET + 2].copy_from_slice(&0x20Fu16.to_le_bytes());
        bytes[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4]
            .copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn an_unknown_compression_is_named_by_its_first_bytes() {
        let error = Image::parse(&image(b"NOPE    \x10\0\0\0")).expect_err("no such magic");
        assert_eq!(error, KernelError::UnknownCompression(*b"NOPE"));
        assert!(error.to_string().contains("4e, 4f, 50, 45"));
    }

    #[test]
    fn a_file_cut_short_is_truncated() {
        let mut bytes = image(b"\xFD7zXZ\0 and more\x10\0\0\0");
        assert!(matches!(
            Image::parse(&bytes),
            Ok(Image::Packed {
                compression: Compression::Xz,
                size: 16,
                ..
            })
        ));
        bytes.truncate(bytes.len() - 5);
        assert_eq!(
            Image::parse(&bytes).map(|_| ()),
            Err(KernelError::Truncated)
        );
        assert_eq!(
            Image::parse(b"hello").map(|_| ()),
            Err(KernelError::NotAKernel)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(tail in prop::collection::vec(any::<u8>(), 0..200), offset in any::<u32>()) {
            let mut bytes = image(&tail);
            bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&offset.to_le_bytes());
            let _ = Image::parse(&bytes);
            let _ = Image::parse(&tail);
        }
    }
}
