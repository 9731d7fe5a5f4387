//! Decompression of kernel payloads, straight into a buffer of the announced size.

use core::fmt;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::{Error, Read, Write};
use xz4rust::{XzDecoder, XzNextBlockResult};

use super::{KernelError, lzop};

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
    (lzop::MAGIC, Compression::Lzo),
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
        Compression::Xz => xz(payload, out),
        Compression::Zstd => zstd(payload, out),
        Compression::Gzip => gzip(payload, out),
        Compression::Lz4 => lz4(payload, out),
        Compression::Lzo => lzop::unpack(payload, out),
        other => Err(KernelError::UnsupportedCompression(other)),
    }
}

fn xz(payload: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    const CORRUPT: KernelError = KernelError::Corrupt(Compression::Xz);
    // A dictionary larger than the output is never referred to.
    const LARGEST_DICTIONARY: usize = 256 << 20;
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(0, LARGEST_DICTIONARY);
    let (mut read, mut written) = (0, 0);
    loop {
        let result = decoder
            .decode(&payload[read..], &mut out[written..])
            .map_err(|_| CORRUPT)?;
        read += result.input_consumed();
        written += result.output_produced();
        match result {
            XzNextBlockResult::EndOfStream(..) if written == out.len() => return Ok(()),
            XzNextBlockResult::EndOfStream(..) => return Err(KernelError::WrongSize),
            XzNextBlockResult::NeedMoreData(0, 0) => return Err(CORRUPT),
            XzNextBlockResult::NeedMoreData(..) => {}
        }
    }
}

/// The tail of the output buffer that is still to be filled.
struct Sink<'a>(&'a mut [u8]);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let count = bytes.len().min(self.0.len());
        let (now, rest) = core::mem::take(&mut self.0).split_at_mut(count);
        now.copy_from_slice(&bytes[..count]);
        self.0 = rest;
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A frame's header as if it asked for no larger window than the output has bytes: Debian's kernels ask for 128 MiB, and
/// the decoder would allocate that, though nothing can refer to more than has been put out.
struct Frame<'a> {
    head: [u8; 6],
    head_left: usize,
    tail: &'a [u8],
}

impl<'a> Frame<'a> {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    const WINDOW_AT: usize = 5;

    fn new(payload: &'a [u8], size: usize) -> Option<Self> {
        let (head, tail) = payload.split_first_chunk::<6>()?;
        let mut head = *head;
        if head[4] & Self::SINGLE_SEGMENT == 0 {
            // Window descriptor: 2^(10 + exponent), exponent in bits 7:3 (RFC 8878, 3.1.1.1.2).
            let exponent = size.max(1 << 17).next_power_of_two().trailing_zeros() - 10;
            head[Self::WINDOW_AT] = head[Self::WINDOW_AT].min((exponent as u8) << 3);
        }
        Some(Self {
            head,
            head_left: 6,
            tail,
        })
    }
}

impl Read for Frame<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        if self.head_left == 0 {
            return self.tail.read(out);
        }
        let count = out.len().min(self.head_left);
        let from = self.head.len() - self.head_left;
        out[..count].copy_from_slice(&self.head[from..from + count]);
        self.head_left -= count;
        Ok(count)
    }
}

fn zstd(payload: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    const CORRUPT: KernelError = KernelError::Corrupt(Compression::Zstd);
    const STEP: usize = 1 << 20;
    let mut source = Frame::new(payload, out.len()).ok_or(CORRUPT)?;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(u64::MAX >> 8);
    decoder.init(&mut source).map_err(|_| CORRUPT)?;
    let mut sink = Sink(out);
    loop {
        let finished = decoder
            .decode_blocks(&mut source, BlockDecodingStrategy::UptoBytes(STEP))
            .map_err(|_| CORRUPT)?;
        while decoder.can_collect() > 0 {
            match decoder.collect_to_writer(&mut sink) {
                Ok(0) | Err(_) => return Err(KernelError::WrongSize),
                Ok(_) => {}
            }
        }
        if finished {
            return if sink.0.is_empty() {
                Ok(())
            } else {
                Err(KernelError::WrongSize)
            };
        }
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
        let error = unpack(Compression::Bzip2, b"BZh9", &mut []).expect_err("there is no decoder");
        assert_eq!(
            error.to_string(),
            "bzip2 compression is not supported; use xz, zstd, gzip, LZ4 or LZO"
        );
    }
}
