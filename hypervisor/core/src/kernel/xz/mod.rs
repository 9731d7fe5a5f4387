//! xz streams (the .xz file format, version 1.2), as kernels are packed in them: LZMA2, with or without the x86 filter.
//!
//! The caller's buffer is output and dictionary in one, so that unpacking 64 MiB needs no heap but some 30 KiB for
//! probabilities.

mod branch;
mod crc;
mod lzma;

use super::KernelError;
use super::unpack::Compression;
use lzma::{Corrupt, Decoder, Properties, RangeDecoder, Stop};

const CORRUPT: KernelError = KernelError::Corrupt(Compression::Xz);
const UNSUPPORTED: KernelError = KernelError::UnsupportedVariant(Compression::Xz);
const MAGIC: [u8; 6] = *b"\xFD7zXZ\0";
const STREAM_HEADER: usize = 12;
/// Where a block header would have its size, the index has this.
const INDEX: u8 = 0;
const FILTER_X86: u64 = 4;
const FILTER_LZMA2: u64 = 0x21;

/// How a block's content is checked.
#[derive(Clone, Copy)]
enum Check {
    None,
    Crc32,
    Crc64,
}

impl Check {
    fn new(kind: u8) -> Result<Self, KernelError> {
        match kind {
            0 => Ok(Self::None),
            1 => Ok(Self::Crc32),
            4 => Ok(Self::Crc64),
            _ => Err(UNSUPPORTED),
        }
    }

    /// Takes the stored value off `input` and compares.
    fn verify(self, input: &mut &[u8], block: &[u8]) -> Option<()> {
        let is_right = match self {
            Self::None => true,
            Self::Crc32 => take::<4>(input)? == crc::crc32(block).to_le_bytes(),
            Self::Crc64 => take::<8>(input)? == crc::crc64(block).to_le_bytes(),
        };
        is_right.then_some(())
    }
}

/// Fills `out` from a stream of exactly that many bytes.
///
/// The index behind the last block repeats the blocks' sizes and is not looked at: every block has its own check.
pub fn unpack(stream: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    let (header, mut input) = stream.split_first_chunk::<STREAM_HEADER>().ok_or(CORRUPT)?;
    let [magic @ .., f0, f1, c0, c1, c2, c3] = *header;
    if magic != MAGIC || crc::crc32(&[f0, f1]).to_le_bytes() != [c0, c1, c2, c3] {
        return Err(CORRUPT);
    }
    if f0 != 0 || f1 > 0xF {
        return Err(UNSUPPORTED);
    }
    let check = Check::new(f1)?;
    let mut written = 0;
    while *input.first().ok_or(CORRUPT)? != INDEX {
        let header = BlockHeader::take(&mut input)?;
        let before = input.len();
        let rest = &mut out[written..];
        let size = lzma2(&mut input, rest)?;
        let padding = (before - input.len()).next_multiple_of(4) - (before - input.len());
        let block = &mut rest[..size];
        if let Some(start) = header.x86_filter {
            branch::undo_x86(block, start);
        }
        let padding = input.split_off(..padding).ok_or(CORRUPT)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(CORRUPT);
        }
        check.verify(&mut input, block).ok_or(CORRUPT)?;
        written += size;
    }
    if written == out.len() {
        Ok(())
    } else {
        Err(KernelError::WrongSize)
    }
}

/// Fills `out` from a stand-alone `.lzma` stream: properties, dictionary size, unpacked size or all ones, then data with
/// or without an end mark.
pub fn unpack_lzma(stream: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    const CORRUPT: KernelError = KernelError::Corrupt(Compression::Lzma);
    const HEADER: usize = 13;
    let (header, packed) = stream.split_first_chunk::<HEADER>().ok_or(CORRUPT)?;
    let properties = Properties::new(header[0])
        .map_err(|Corrupt| KernelError::UnsupportedVariant(Compression::Lzma))?;
    let mut range = RangeDecoder::new(packed).map_err(|Corrupt| CORRUPT)?;
    match Decoder::new(properties).decode(&mut range, out, 0) {
        Ok(Stop::Full) => Ok(()),
        Ok(Stop::EndMark(_)) => Err(KernelError::WrongSize),
        Err(Corrupt) => Err(CORRUPT),
    }
}

/// What a block's header says that is needed.
struct BlockHeader {
    /// Stream position of the first byte, where the x86 filter is used.
    x86_filter: Option<u32>,
}

impl BlockHeader {
    fn take(input: &mut &[u8]) -> Result<Self, KernelError> {
        const HAS_PACKED_SIZE: u8 = 1 << 6;
        const HAS_SIZE: u8 = 1 << 7;
        const FILTERS: u8 = 0b11;
        let size = (usize::from(*input.first().ok_or(CORRUPT)?) + 1) * 4;
        let (header, rest) = input.split_at_checked(size).ok_or(CORRUPT)?;
        let (fields, stored) = header.split_last_chunk::<4>().ok_or(CORRUPT)?;
        if crc::crc32(fields).to_le_bytes() != *stored {
            return Err(CORRUPT);
        }
        *input = rest;
        let [_, flags, fields @ ..] = fields else {
            return Err(CORRUPT);
        };
        let mut fields = fields;
        for flag in [HAS_PACKED_SIZE, HAS_SIZE] {
            if flags & flag != 0 {
                number(&mut fields).ok_or(CORRUPT)?;
            }
        }
        let mut x86_filter = None;
        let filters = flags & FILTERS;
        for index in 0..=filters {
            let id = number(&mut fields).ok_or(CORRUPT)?;
            let length = number(&mut fields)
                .and_then(|length| usize::try_from(length).ok())
                .ok_or(CORRUPT)?;
            let properties = fields.split_off(..length).ok_or(CORRUPT)?;
            match (id, properties) {
                (FILTER_LZMA2, [_]) if index == filters => {}
                (FILTER_X86, []) if filters == 1 && index == 0 => x86_filter = Some(0),
                (FILTER_X86, &[a, b, c, d]) if filters == 1 && index == 0 => {
                    x86_filter = Some(u32::from_le_bytes([a, b, c, d]));
                }
                _ => return Err(UNSUPPORTED),
            }
        }
        Ok(Self { x86_filter })
    }
}

/// Decodes the chunks of one block to the front of `out`; returns how many bytes that were.
fn lzma2(input: &mut &[u8], out: &mut [u8]) -> Result<usize, KernelError> {
    const END: u8 = 0;
    const STORED_AFTER_DICTIONARY_RESET: u8 = 1;
    const STORED: u8 = 2;
    const PACKED: u8 = 0x80;
    let mut decoder = Decoder::new(Properties::default());
    let mut written = 0;
    // What an earlier chunk must have given before a later one may go without.
    let (mut dictionary, mut has_properties, mut has_state) = (None, false, false);
    loop {
        let [control] = take(input).ok_or(CORRUPT)?;
        match control {
            END => return Ok(written),
            STORED_AFTER_DICTIONARY_RESET | STORED => {
                if control == STORED_AFTER_DICTIONARY_RESET {
                    dictionary = Some(written);
                }
                dictionary.ok_or(CORRUPT)?;
                let size = usize::from(u16::from_be_bytes(take(input).ok_or(CORRUPT)?)) + 1;
                let bytes = input.split_off(..size).ok_or(CORRUPT)?;
                let end = written + size;
                out.get_mut(written..end)
                    .ok_or(KernelError::WrongSize)?
                    .copy_from_slice(bytes);
                written = end;
                // Probabilities stay as they are, but may only be used after a reset.
                has_state &= control == STORED;
            }
            PACKED.. => {
                // 0: go on; 1: state reset; 2: with new properties; 3: with a dictionary reset as well.
                let reset = control >> 5 & 3;
                let [s1, s0, p1, p0] = take(input).ok_or(CORRUPT)?;
                let size =
                    usize::from(control & 0x1F) << 16 | usize::from(s1) << 8 | usize::from(s0);
                let packed_size = usize::from(u16::from_be_bytes([p1, p0])) + 1;
                let properties = if reset >= 2 {
                    let [byte] = take(input).ok_or(CORRUPT)?;
                    Some(Properties::new(byte).map_err(|Corrupt| CORRUPT)?)
                } else {
                    None
                };
                if reset == 3 {
                    dictionary = Some(written);
                }
                has_properties |= properties.is_some();
                has_state |= reset != 0;
                let start = dictionary
                    .filter(|_| has_properties && has_state)
                    .ok_or(CORRUPT)?;
                if reset != 0 {
                    decoder.reset(properties);
                }
                let packed = input.split_off(..packed_size).ok_or(CORRUPT)?;
                let end = written + size + 1;
                let chunk = out.get_mut(start..end).ok_or(KernelError::WrongSize)?;
                let mut range = RangeDecoder::new(packed).map_err(|Corrupt| CORRUPT)?;
                match decoder.decode(&mut range, chunk, written - start) {
                    Ok(Stop::Full) if range.is_finished() => written = end,
                    _ => return Err(CORRUPT),
                }
            }
            _ => return Err(CORRUPT),
        }
    }
}

/// A number of seven bits a byte, the lowest first, the top bit set in all but the last.
fn number(input: &mut &[u8]) -> Option<u64> {
    const MOST_BYTES: u32 = 9;
    let mut value = 0;
    for place in 0..MOST_BYTES {
        let [byte] = take(input)?;
        value |= u64::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (&first, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(first)
}

#[cfg(test)]
mod tests;
