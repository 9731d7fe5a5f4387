//! LZO as Linux's build packs a kernel: the file that `lzop -9` makes, which is a header, then blocks, and numbers are big-endian.

use adler2::adler32_slice;
use crc::{CRC_32_ISO_HDLC, Crc};

use super::KernelError;
use super::unpack::Compression;

pub const MAGIC: &[u8] = b"\x89LZO\0\r\n\x1A\n";

/// lzop's versions: the oldest whose header has all fields, and the newest whose files are known.
const OLDEST: u16 = 0x0940;
const NEWEST: u16 = 0x1040;
/// LZO1X-1, LZO1X-1(15) and LZO1X-999: one decoder for all.
const METHODS: [u8; 3] = [1, 2, 3];
/// Bytes of a block when unpacked; `lzop` makes no larger ones.
const LARGEST_BLOCK: usize = 64 << 20;

// Flags in the header.
const ADLER_OF_UNPACKED: u32 = 1 << 0;
const ADLER_OF_PACKED: u32 = 1 << 1;
const EXTRA_FIELD: u32 = 1 << 6;
const CRC_OF_UNPACKED: u32 = 1 << 8;
const CRC_OF_PACKED: u32 = 1 << 9;
const MULTIPART: u32 = 1 << 10;
const FILTER: u32 = 1 << 11;
const CRC_OF_HEADER: u32 = 1 << 12;

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const CORRUPT: KernelError = KernelError::Corrupt(Compression::Lzo);

/// Fills `out` from a file of lzop.
///
/// # Errors
/// It is cut short, a checksum is wrong, or there are more or fewer bytes in it.
pub fn unpack(file: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
    let mut file = Reader(file.strip_prefix(MAGIC).ok_or(CORRUPT)?);
    let flags = header(&mut file)?;
    let mut rest = out;
    loop {
        let size = file.size()?;
        if size == 0 {
            return if rest.is_empty() {
                Ok(())
            } else {
                Err(KernelError::WrongSize)
            };
        }
        if size > LARGEST_BLOCK {
            return Err(CORRUPT);
        }
        let (now, after) = rest
            .split_at_mut_checked(size)
            .ok_or(KernelError::WrongSize)?;
        block(&mut file, flags, now)?;
        rest = after;
    }
}

/// Reads what is before the blocks, and gives the flags.
fn header(file: &mut Reader<'_>) -> Result<u32, KernelError> {
    let whole = file.0;
    let (version, _library, needed) = (file.half()?, file.half()?, file.half()?);
    let (method, _level) = (file.byte()?, file.byte()?);
    let flags = file.word()?;
    // Filters change the content, and parts are of several files: a kernel is not packed with either.
    if version < OLDEST
        || needed > NEWEST
        || !METHODS.contains(&method)
        || flags & (FILTER | MULTIPART) != 0
    {
        return Err(CORRUPT);
    }
    // File mode, and time of the last change.
    file.take(3 * size_of::<u32>())?;
    let name = file.byte()?;
    file.take(name.into())?;
    check_header(whole, file, flags)?;
    if flags & EXTRA_FIELD != 0 {
        let whole = file.0;
        let size = file.size()?;
        file.take(size)?;
        check_header(whole, file, flags)?;
    }
    Ok(flags)
}

/// Compares what was read of `whole` with the checksum that follows.
fn check_header(whole: &[u8], file: &mut Reader<'_>, flags: u32) -> Result<(), KernelError> {
    let read = &whole[..whole.len() - file.0.len()];
    let sum = if flags & CRC_OF_HEADER != 0 {
        CRC.checksum(read)
    } else {
        adler32_slice(read)
    };
    require(file.word()? == sum)
}

/// Unpacks a block, whose unpacked size was read, into `out`, which has that size.
fn block(file: &mut Reader<'_>, flags: u32, out: &mut [u8]) -> Result<(), KernelError> {
    let size = file.size()?;
    let unpacked = Sums::read(file, flags, ADLER_OF_UNPACKED, CRC_OF_UNPACKED)?;
    if size >= out.len() {
        // What does not get smaller is stored as it is.
        require(size == out.len())?;
        out.copy_from_slice(file.take(size)?);
    } else {
        let sums = Sums::read(file, flags, ADLER_OF_PACKED, CRC_OF_PACKED)?;
        let packed = file.take(size)?;
        sums.check(packed)?;
        let written = lzo::decompress_into(packed, out).map_err(|_| CORRUPT)?;
        require(written == out.len())?;
    }
    unpacked.check(out)
}

/// The checksums that a block has, of what is packed or of what is not.
struct Sums {
    adler: Option<u32>,
    crc: Option<u32>,
}

impl Sums {
    fn read(file: &mut Reader<'_>, flags: u32, adler: u32, crc: u32) -> Result<Self, KernelError> {
        let mut read = |flag| (flags & flag != 0).then(|| file.word()).transpose();
        Ok(Self {
            adler: read(adler)?,
            crc: read(crc)?,
        })
    }

    fn check(&self, bytes: &[u8]) -> Result<(), KernelError> {
        require(
            self.adler.is_none_or(|sum| sum == adler32_slice(bytes))
                && self.crc.is_none_or(|sum| sum == CRC.checksum(bytes)),
        )
    }
}

fn require(holds: bool) -> Result<(), KernelError> {
    if holds { Ok(()) } else { Err(CORRUPT) }
}

/// What is left of the file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], KernelError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(CORRUPT)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], KernelError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(CORRUPT)?;
        self.0 = tail;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, KernelError> {
        self.array().map(u8::from_be_bytes)
    }

    fn half(&mut self) -> Result<u16, KernelError> {
        self.array().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Result<u32, KernelError> {
        self.array().map(u32::from_be_bytes)
    }

    fn size(&mut self) -> Result<usize, KernelError> {
        self.word().map(|size| size as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// "oxen " eight hundred times, as lzop 1.04 packs it: by `lzop -9` in a pipe, like Linux's build, and by `lzop -9 -CC --crc32 -c
    /// oxen.txt`, with all checksums.
    const PIPED: &[u8] = include_bytes!("fixtures/oxen.lzo");
    const NAMED: &[u8] = include_bytes!("fixtures/oxen-crc32.lzo");
    /// Forty bytes that do not get smaller, by `lzop -9` in a pipe.
    const STORED: &[u8] = include_bytes!("fixtures/stored.lzo");
    const FILES: [(&[u8], usize); 3] = [(PIPED, 4000), (NAMED, 4000), (STORED, 40)];

    // Where things are in a file that has no name in it.
    const VERSION: usize = 9;
    const NEEDED: usize = 13;
    const METHOD: usize = 15;
    const FLAGS: usize = 17;
    const HEADER_SUM: usize = 34;
    const BLOCK: usize = 38;
    const END: usize = 4;

    fn unpacked(file: &[u8], size: usize) -> Result<Vec<u8>, KernelError> {
        let mut out = vec![0; size];
        unpack(file, &mut out).map(|()| out)
    }

    fn text() -> Vec<u8> {
        b"oxen ".iter().copied().cycle().take(4000).collect()
    }

    fn flags(file: &[u8]) -> u32 {
        u32::from_be_bytes(file[FLAGS..FLAGS + 4].try_into().expect("four bytes"))
    }

    /// `PIPED` with other bytes at a place in its header, whose checksum is right again.
    fn with(place: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = PIPED.to_vec();
        file[place..place + bytes.len()].copy_from_slice(bytes);
        let sum = adler32_slice(&file[MAGIC.len()..HEADER_SUM]);
        file[HEADER_SUM..BLOCK].copy_from_slice(&sum.to_be_bytes());
        file
    }

    #[test]
    fn files_of_lzop_are_unpacked() {
        assert_eq!(unpacked(PIPED, 4000), Ok(text()));
        assert_eq!(unpacked(NAMED, 4000), Ok(text()));
        let stored = &STORED[STORED.len() - END - 40..STORED.len() - END];
        assert_eq!(unpacked(STORED, 40).as_deref(), Ok(stored));
        let all = ADLER_OF_UNPACKED | CRC_OF_UNPACKED | CRC_OF_PACKED | CRC_OF_HEADER;
        assert_eq!(flags(PIPED) & all, ADLER_OF_UNPACKED);
        assert_eq!(flags(NAMED) & all, all & !ADLER_OF_UNPACKED);
    }

    #[test]
    fn blocks_follow_each_other() {
        let mut file = PIPED[..PIPED.len() - END].to_vec();
        file.extend_from_slice(&STORED[BLOCK..STORED.len() - END]);
        file.extend_from_slice(&PIPED[BLOCK..]);
        let all = unpacked(&file, 8040).expect("three blocks");
        assert_eq!(all[..4000], text());
        assert_eq!(all[4000..4040], unpacked(STORED, 40).expect("a block"));
        assert_eq!(all[4040..], text());
    }

    #[test]
    fn no_changed_bit_changes_what_is_unpacked() {
        for (file, size) in FILES {
            let right = unpacked(file, size);
            for bit in 0..file.len() * 8 {
                let mut changed = file.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                // The decoder passes over some bits of a stream's end.
                let result = unpacked(&changed, size);
                assert!(result.is_err() || result == right, "bit {bit} of {size}");
            }
        }
    }

    #[test]
    fn a_file_cut_short_is_corrupt() {
        for (file, size) in FILES {
            for end in 0..file.len() {
                assert_eq!(unpacked(&file[..end], size), Err(CORRUPT), "{end}");
            }
        }
    }

    #[test]
    fn more_or_less_than_announced_is_refused() {
        for (file, size) in FILES {
            for wrong in [0, size - 1, size + 1] {
                assert_eq!(unpacked(file, wrong), Err(KernelError::WrongSize));
            }
        }
    }

    #[test]
    fn headers_of_other_files_are_refused() {
        let other = |place, bytes: &[u8]| unpacked(&with(place, bytes), 4000);
        let flagged = |flag: u32| other(FLAGS, &(flags(PIPED) | flag).to_be_bytes());
        assert_eq!(other(METHOD, &[1]), Ok(text()));
        for refused in [
            other(METHOD, &[4]),
            other(VERSION, &0x0930_u16.to_be_bytes()),
            other(NEEDED, &0x1050_u16.to_be_bytes()),
            flagged(FILTER),
            flagged(MULTIPART),
            flagged(EXTRA_FIELD),
        ] {
            assert_eq!(refused, Err(CORRUPT));
        }
    }

    #[test]
    fn an_extra_field_is_passed_over() {
        let mut file = with(FLAGS, &(flags(PIPED) | EXTRA_FIELD).to_be_bytes());
        let field = b"\0\0\0\x03oxy";
        let sum = adler32_slice(field).to_be_bytes();
        file.splice(BLOCK..BLOCK, field.iter().copied().chain(sum));
        assert_eq!(unpacked(&file, 4000), Ok(text()));
        file[BLOCK + 4] ^= 1;
        assert_eq!(unpacked(&file, 4000), Err(CORRUPT));
    }

    #[test]
    fn sizes_that_no_block_has_are_refused() {
        let resized = |place: usize, size: u32| {
            let mut file = PIPED.to_vec();
            file[place..place + 4].copy_from_slice(&size.to_be_bytes());
            unpacked(&file, 4000)
        };
        assert_eq!(resized(BLOCK, LARGEST_BLOCK as u32 + 1), Err(CORRUPT));
        assert_eq!(
            resized(BLOCK, LARGEST_BLOCK as u32),
            Err(KernelError::WrongSize)
        );
        for packed in [0, 1, 4000, 4001, u32::MAX] {
            assert_eq!(resized(BLOCK + 4, packed), Err(CORRUPT));
        }
    }
}
