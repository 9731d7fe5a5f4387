//! Zstandard frames (RFC 8878), as kernels are packed in them.
//!
//! The caller's buffer is output and window in one: Debian's kernels ask for a window of 128 MiB, which no heap of ours
//! has. What is kept beside it are one block's literals and the tables of codes, some 160 KiB.

mod bits;
mod fse;
mod hash;
mod huffman;
mod sequences;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::KernelError;
use super::unpack::Compression;
use huffman::Codes;
use sequences::{Failure, Sequences};

const CORRUPT: KernelError = KernelError::Corrupt(Compression::Zstd);
const MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
/// Most bytes of a block, packed or not.
const BLOCK: usize = 128 << 10;

/// Fills `out` from a frame of exactly that many bytes.
pub fn unpack(frame: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    let mut input = frame;
    let has_checksum = frame_header(&mut input)?;
    let mut decoder = Decoder::new();
    let mut position = 0;
    loop {
        let (is_last, kind, size) = block_header(&mut input).ok_or(CORRUPT)?;
        position = decoder.block(kind, size, &mut input, out, position)?;
        if is_last {
            break;
        }
    }
    if position != out.len() {
        return Err(KernelError::WrongSize);
    }
    if has_checksum {
        let stored = input.first_chunk::<4>().ok_or(CORRUPT)?;
        if hash::xxh64(out) as u32 != u32::from_le_bytes(*stored) {
            return Err(CORRUPT);
        }
    }
    Ok(())
}

/// Takes the frame header off; returns whether a checksum follows the blocks.
fn frame_header(input: &mut &[u8]) -> Result<bool, KernelError> {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    const RESERVED: u8 = 1 << 3;
    const CHECKSUM: u8 = 1 << 2;
    const DICTIONARY_SIZES: [usize; 4] = [0, 1, 2, 4];
    const CONTENT_SIZES: [usize; 4] = [0, 2, 4, 8];
    let magic = input.split_off(..MAGIC.len()).ok_or(CORRUPT)?;
    let flags = *input.split_off_first().ok_or(CORRUPT)?;
    if magic != MAGIC || flags & RESERVED != 0 {
        return Err(CORRUPT);
    }
    let is_single = flags & SINGLE_SEGMENT != 0;
    // The window's size says how much an encoder may look back; here that is everything.
    let window_size = usize::from(!is_single);
    let content_size = match CONTENT_SIZES[usize::from(flags >> 6)] {
        0 => usize::from(is_single),
        size => size,
    };
    input.split_off(..window_size).ok_or(CORRUPT)?;
    let dictionary = input
        .split_off(..DICTIONARY_SIZES[usize::from(flags & 3)])
        .ok_or(CORRUPT)?;
    if dictionary.iter().any(|&byte| byte != 0) {
        return Err(KernelError::UnsupportedVariant(Compression::Zstd));
    }
    // The buffer has the size that the bzImage announces; if this differs, so will the end.
    input.split_off(..content_size).ok_or(CORRUPT)?;
    Ok(flags & CHECKSUM != 0)
}

#[derive(Clone, Copy)]
enum BlockKind {
    Raw,
    Repeated,
    Packed,
}

/// Takes a block's header off: whether it is the last, its kind and its size.
fn block_header(input: &mut &[u8]) -> Option<(bool, BlockKind, usize)> {
    let &[a, b, c] = input.split_off(..3)?.first_chunk()?;
    let header = u32::from_le_bytes([a, b, c, 0]);
    let kind = match header >> 1 & 3 {
        0 => BlockKind::Raw,
        1 => BlockKind::Repeated,
        2 => BlockKind::Packed,
        _ => return None,
    };
    let size = (header >> 3) as usize;
    (size <= BLOCK).then_some((header & 1 != 0, kind, size))
}

/// What is kept from block to block.
struct Decoder {
    codes: Option<Box<Codes>>,
    sequences: Box<Sequences>,
    /// Room for a block's literals.
    literals: Vec<u8>,
}

impl Decoder {
    fn new() -> Self {
        Self {
            codes: None,
            sequences: Box::default(),
            literals: Vec::new(),
        }
    }

    /// Takes a block's content off and puts out what it stands for; returns the position behind that.
    fn block(
        &mut self,
        kind: BlockKind,
        size: usize,
        input: &mut &[u8],
        out: &mut [u8],
        position: usize,
    ) -> Result<usize, KernelError> {
        let packed_size = match kind {
            BlockKind::Repeated => 1,
            _ => size,
        };
        let content = input.split_off(..packed_size).ok_or(CORRUPT)?;
        if let BlockKind::Packed = kind {
            // No block may stand for more, which bounds what is done before the next look at its header.
            let end = out.len().min(position + BLOCK);
            return self.packed_block(content, &mut out[..end], position);
        }
        let place = position
            .checked_add(size)
            .and_then(|end| out.get_mut(position..end))
            .ok_or(KernelError::WrongSize)?;
        match content {
            [byte] => place.fill(*byte),
            bytes => place.copy_from_slice(bytes),
        }
        Ok(position + size)
    }

    fn packed_block<'a>(
        &'a mut self,
        mut content: &'a [u8],
        out: &mut [u8],
        position: usize,
    ) -> Result<usize, KernelError> {
        let literals =
            read_literals(&mut content, &mut self.codes, &mut self.literals).ok_or(CORRUPT)?;
        self.sequences
            .run(content, literals, out, position)
            .map_err(|failure| match failure {
                Failure::Corrupt => CORRUPT,
                Failure::Full => KernelError::WrongSize,
            })
    }
}

/// Takes a block's literals section off (RFC 8878, 3.1.1.3.1); what is not packed is lent from the input.
fn read_literals<'a>(
    input: &mut &'a [u8],
    codes: &mut Option<Box<Codes>>,
    buffer: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    const RAW: u8 = 0;
    const REPEATED: u8 = 1;
    const PACKED_WITH_CODES: u8 = 2;
    let first = *input.first()?;
    let (kind, format) = (first & 3, first >> 2 & 3);
    let header_size = match (kind, format) {
        (RAW | REPEATED, 0 | 2) => 1,
        (RAW | REPEATED, 1) => 2,
        (RAW | REPEATED, _) => 3,
        (_, 0 | 1) => 3,
        (_, 2) => 4,
        _ => 5,
    };
    let mut header = [0; 8];
    header[..header_size].copy_from_slice(input.split_off(..header_size)?);
    let header = u64::from_le_bytes(header);
    if kind == RAW || kind == REPEATED {
        let size = (header >> if header_size == 1 { 3 } else { 4 }) as usize;
        if size > BLOCK {
            return None;
        }
        if kind == RAW {
            return input.split_off(..size);
        }
        buffer.clear();
        buffer.resize(size, *input.split_off_first()?);
        return Some(buffer);
    }
    // Two sizes of equal width fill the rest of the header.
    let width = (8 * header_size as u32 - 4) / 2;
    let size = (header >> 4) as usize & ((1 << width) - 1);
    let packed_size = (header >> (4 + width)) as usize & ((1 << width) - 1);
    if size > BLOCK {
        return None;
    }
    let mut packed = input.split_off(..packed_size)?;
    if kind == PACKED_WITH_CODES {
        let (read, used) = Codes::read(packed)?;
        *codes = Some(Box::new(read));
        packed = packed.get(used..)?;
    }
    buffer.resize(size, 0);
    let codes = codes.as_ref()?;
    if format == 0 {
        codes.decode(packed, buffer)?;
    } else {
        decode_four(codes, packed, buffer)?;
    }
    Some(buffer)
}

/// Four streams, each for a quarter of the literals; the sizes of the first three come before them.
fn decode_four(codes: &Codes, packed: &[u8], out: &mut [u8]) -> Option<()> {
    const STREAMS: usize = 4;
    let (&sizes, mut streams) = packed.split_first_chunk::<6>()?;
    let quarter = out.len().div_ceil(STREAMS);
    let (sizes, _) = sizes.as_chunks::<2>();
    let mut rest = out;
    for size in sizes {
        let stream = streams.split_off(..usize::from(u16::from_le_bytes(*size)))?;
        let (part, behind) = rest.split_at_mut_checked(quarter)?;
        codes.decode(stream, part)?;
        rest = behind;
    }
    codes.decode(streams, rest)
}

#[cfg(test)]
mod tests;
