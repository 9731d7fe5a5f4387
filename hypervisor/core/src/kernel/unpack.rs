//! Decompression of kernel payloads, straight into a buffer of the announced size.

use core::fmt;

use super::{KernelError, xz, zstd};

/// Formats that kernels are packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    Xz,
    Zstd,
    Gzip,
    Lz4,
    Bzip2,
    Lzma,
    Lzo,
}

/// Magic numbers, by their first bytes.
const MAGICS: [(&[u8], Compression); 7] = [
    (b"\xFD7zXZ\0", Compression::Xz),
    (&[0x28, 0xB5, 0x2F, 0xFD], Compression::Zstd),
    (&[0x1F, 0x8B, 0x08], Compression::Gzip),
    (&[0x02, 0x21, 0x4C, 0x18], Compression::Lz4),
    (b"BZh", Compression::Bzip2),
    (&[0x5D, 0x00, 0x00], Compression::Lzma),
    (&[0x89, b'L', b'Z', b'O'], Compression::Lzo),
];

impl Compression {
    /// The format of a payload.
    ///
    /// # Errors
    /// No magic number fits.
    pub fn detect(payload: &[u8]) -> Result<Self, KernelError> {
        let known = MAGICS.iter().find(|(magic, _)| payload.starts_with(magic));
        known.map(|&(_, kind)| kind).ok_or_else(|| {
            let mut magic = [0; 4];
            magic
                .iter_mut()
                .zip(payload)
                .for_each(|(to, from)| *to = *from);
            KernelError::UnknownCompression(magic)
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Lz4 => "LZ4",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "LZMA",
            Self::Lzo => "LZO",
        })
    }
}

/// Fills `out` from the payload.
pub fn unpack(compression: Compression, payload: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    match compression {
        Compression::Xz => xz::unpack(payload, out),
        Compression::Zstd => zstd::unpack(payload, out),
        Compression::Gzip => gzip(payload, out),
        Compression::Lz4 => lz4(payload, out),
        Compression::Lzma => xz::unpack_lzma(payload, out),
        other => Err(KernelError::UnsupportedCompression(other)),
    }
}

fn gzip(payload: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    const CORRUPT: KernelError = KernelError::Corrupt(Compression::Gzip);
    let body = gzip_body(payload).ok_or(CORRUPT)?;
    let written = miniz_oxide::inflate::decompress_slice_iter_to_slice(
        out,
        core::iter::once(body),
        false,
        true,
    )
    .map_err(|_| CORRUPT)?;
    if written == out.len() {
        Ok(())
    } else {
        Err(KernelError::WrongSize)
    }
}

/// The deflate stream behind a gzip header (RFC 1952, 2.3).
fn gzip_body(payload: &[u8]) -> Option<&[u8]> {
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const HEADER_CRC: u8 = 1 << 1;
    let flags = *payload.get(3)?;
    let mut rest = payload.get(10..)?;
    if flags & EXTRA != 0 {
        let length = usize::from(u16::from_le_bytes([*rest.first()?, *rest.get(1)?]));
        rest = rest.get(2 + length..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|&byte| byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HEADER_CRC != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

/// Linux's LZ4 is the legacy frame: a magic number, then blocks of 8 MiB, each behind its compressed size.
fn lz4(payload: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    const CORRUPT: KernelError = KernelError::Corrupt(Compression::Lz4);
    const BLOCK: usize = 8 << 20;
    let mut rest = payload.get(4..).ok_or(CORRUPT)?;
    let mut written = 0;
    while written < out.len() {
        let (size, tail) = rest.split_first_chunk::<4>().ok_or(CORRUPT)?;
        let size = u32::from_le_bytes(*size) as usize;
        let block = tail.get(..size).ok_or(CORRUPT)?;
        let end = out.len().min(written + BLOCK);
        let count =
            lz4_flex::block::decompress_into(block, &mut out[written..end]).map_err(|_| CORRUPT)?;
        if count == 0 {
            return Err(CORRUPT);
        }
        written += count;
        rest = &tail[size..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "oxen " eight hundred times, 4000 bytes, as `xz --check=crc32 --x86 --lzma2`, `zstd --long=27` (through a pipe) and
    /// `gzip` pack it.
    const TEXT: &[u8] = b"oxen ";
    const LENGTH: usize = 4000;

    fn expect(compression: Compression, packed: &[u8]) {
        let mut out = vec![0; LENGTH];
        assert_eq!(Compression::detect(packed), Ok(compression));
        assert_eq!(unpack(compression, packed, &mut out), Ok(()));
        assert!(out.chunks(TEXT.len()).all(|chunk| chunk == TEXT));
        assert!(unpack(compression, &packed[..packed.len() / 2], &mut out).is_err());
        let mut small = vec![0; LENGTH - 1];
        assert!(unpack(compression, packed, &mut small).is_err());
    }

    #[test]
    fn xz_with_the_branch_filter() {
        expect(Compression::Xz, include_bytes!("fixtures/oxen.xz"));
    }

    #[test]
    fn zstd_with_a_window_of_128_mib() {
        let packed = include_bytes!("fixtures/oxen.zst");
        assert_eq!(
            packed[5], 0x88,
            "the fixture asks for the window that Debian's kernels ask for"
        );
        expect(Compression::Zstd, packed);
    }

    #[test]
    fn gzip_with_a_name_in_its_header() {
        expect(Compression::Gzip, include_bytes!("fixtures/oxen.gz"));
    }

    #[test]
    fn lz4_legacy_frames() {
        let text: Vec<u8> = TEXT.iter().copied().cycle().take(LENGTH).collect();
        let block = lz4_flex::block::compress(&text);
        let mut packed = vec![0x02, 0x21, 0x4C, 0x18];
        packed.extend_from_slice(&(block.len() as u32).to_le_bytes());
        packed.extend_from_slice(&block);
        let mut out = vec![0; LENGTH];
        assert_eq!(unpack(Compression::Lz4, &packed, &mut out), Ok(()));
        assert_eq!(out, text);
        assert!(unpack(Compression::Lz4, &packed[..packed.len() - 3], &mut out).is_err());
    }

    #[test]
    fn formats_without_a_decoder_are_named() {
        let error = unpack(Compression::Bzip2, b"BZh9", &mut []).expect_err("no decoder");
        assert_eq!(
            error.to_string(),
            "bzip2 compression is not supported; use xz, zstd, gzip, LZMA or LZ4"
        );
    }
}
