//! ELF executables with a PVH entry note. Every offset is checked: the file may be anything.

use core::ops::Range;

use oxen_abi::start_info::NOTE_PHYS32_ENTRY;

use super::KernelError;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u64 = 62;
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
const FOUR_GIB: u64 = 1 << 32;

/// A part of the kernel in memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Guest-physical address (`p_paddr`).
    pub address: u64,
    /// Content; the rest of `size` is zero.
    pub bytes: &'a [u8],
    /// Bytes in memory.
    pub size: u64,
}

/// A kernel that can be entered the PVH way.
#[derive(Clone, Copy, Debug)]
pub struct PvhKernel<'a> {
    file: &'a [u8],
    /// 32-bit entry point.
    pub entry: u32,
}

impl<'a> PvhKernel<'a> {
    /// Checks headers, segments and notes.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn parse(file: &'a [u8]) -> Result<Self, KernelError> {
        let header = file.get(..HEADER_SIZE).ok_or(KernelError::Truncated)?;
        if header[4] != CLASS_64
            || header[5] != LITTLE_ENDIAN
            || number(header, 18, 2) != Some(MACHINE_X86_64)
        {
            return Err(KernelError::NotX86Elf);
        }
        let this = Self { file, entry: 0 };
        let mut entry = None;
        for program_header in this.program_headers()? {
            let field =
                |offset, size| number(program_header, offset, size).ok_or(KernelError::Truncated);
            match field(0, 4)? {
                PT_LOAD => this.segment(program_header).map(|_| ())?,
                PT_NOTE if entry.is_none() => entry = find_entry(this.content(program_header)?),
                _ => {}
            }
        }
        let entry = entry.ok_or(KernelError::NotPvh)?;
        Ok(Self { file, entry })
    }

    /// The segments to load, in file order.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + '_ {
        // Checked by `parse`, which saw the same bytes.
        let headers = self.program_headers().ok();
        headers
            .into_iter()
            .flatten()
            .filter(|header| number(header, 0, 4) == Some(PT_LOAD))
            .filter_map(|header| self.segment(header).ok())
    }

    /// Guest-physical range of the whole kernel, bss included.
    pub fn extent(&self) -> Range<u64> {
        self.segments()
            .filter(|segment| segment.size > 0)
            .fold(u64::MAX..0, |all, segment| {
                all.start.min(segment.address)..all.end.max(segment.address + segment.size)
            })
    }

    fn program_headers(&self) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, KernelError> {
        let field = |offset, size| number(self.file, offset, size).ok_or(KernelError::Truncated);
        let (offset, entry_size, count) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
        if entry_size != PROGRAM_HEADER_SIZE as u64 {
            return Err(KernelError::NotX86Elf);
        }
        let start = usize::try_from(offset).map_err(|_| KernelError::Truncated)?;
        let size = count as usize * PROGRAM_HEADER_SIZE;
        let table = start
            .checked_add(size)
            .and_then(|end| self.file.get(start..end))
            .ok_or(KernelError::Truncated)?;
        Ok(table.chunks_exact(PROGRAM_HEADER_SIZE))
    }

    fn content(&self, header: &[u8]) -> Result<&'a [u8], KernelError> {
        let field =
            |offset| number(header, offset, 8).and_then(|value| usize::try_from(value).ok());
        let (start, size) = field(8).zip(field(32)).ok_or(KernelError::Truncated)?;
        start
            .checked_add(size)
            .and_then(|end| self.file.get(start..end))
            .ok_or(KernelError::Truncated)
    }

    fn segment(&self, header: &[u8]) -> Result<Segment<'a>, KernelError> {
        let field = |offset| number(header, offset, 8).ok_or(KernelError::Truncated);
        let (address, size) = (field(24)?, field(40)?);
        let bytes = self.content(header)?;
        let end = address.checked_add(size).ok_or(KernelError::BadSegment)?;
        if end > FOUR_GIB || (bytes.len() as u64) > size {
            return Err(KernelError::BadSegment);
        }
        Ok(Segment {
            address,
            bytes,
            size,
        })
    }
}

/// PHYS32_ENTRY among notes: name size, descriptor size, type, then name and descriptor, each padded to four bytes.
fn find_entry(mut notes: &[u8]) -> Option<u32> {
    loop {
        let field = |offset| number(notes, offset, 4);
        let (name_size, value_size, kind) = (field(0)? as usize, field(4)? as usize, field(8)?);
        let value_at = 12usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let value = notes.get(value_at..value_at.checked_add(value_size)?)?;
        if notes.get(12..12 + name_size)? == b"Xen\0" && kind == u64::from(NOTE_PHYS32_ENTRY) {
            return match value_size {
                4 | 8 => u32::try_from(number(value, 0, value_size)?).ok(),
                _ => None,
            };
        }
        notes = notes.get(value_at.checked_add(value_size.checked_next_multiple_of(4)?)?..)?;
    }
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let part = bytes.get(offset..offset.checked_add(size)?)?;
    Some(
        part.iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An executable with one segment at 16 MiB and one note.
    fn kernel(note: &[u8], kind: u32) -> Vec<u8> {
        let mut file = vec![0; HEADER_SIZE + 2 * PROGRAM_HEADER_SIZE];
        file[..6].copy_from_slice(b"\x7FELF\x02\x01");
        let mut put = |offset: usize, value: u64, size: usize| {
            file[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        put(18, MACHINE_X86_64, 2);
        put(32, HEADER_SIZE as u64, 8);
        put(54, PROGRAM_HEADER_SIZE as u64, 2);
        put(56, 2, 2);
        let (load, notes) = (HEADER_SIZE, HEADER_SIZE + PROGRAM_HEADER_SIZE);
        put(load, PT_LOAD, 4);
        put(load + 24, 0x100_0000, 8);
        put(load + 32, 64, 8);
        put(load + 40, 0x2000, 8);
        put(notes, PT_NOTE, 4);
        put(notes + 8, (HEADER_SIZE + 2 * PROGRAM_HEADER_SIZE) as u64, 8);
        put(notes + 32, 16 + note.len() as u64, 8);
        for word in [4, note.len() as u32, kind] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(b"Xen\0");
        file.extend_from_slice(note);
        file
    }

    #[test]
    fn both_sizes_of_the_entry_note_are_read() {
        for note in [
            &0x100_0850u32.to_le_bytes()[..],
            &0x100_0850u64.to_le_bytes()[..],
        ] {
            let file = kernel(note, NOTE_PHYS32_ENTRY);
            let kernel = PvhKernel::parse(&file).expect("a PVH kernel");
            assert_eq!(kernel.entry, 0x100_0850);
            assert_eq!(kernel.extent(), 0x100_0000..0x100_2000);
            assert_eq!(kernel.segments().count(), 1);
        }
    }

    #[test]
    fn a_kernel_without_the_note_is_refused() {
        let file = kernel(&[0; 4], 6);
        assert_eq!(
            PvhKernel::parse(&file).map(|_| ()),
            Err(KernelError::NotPvh)
        );
    }

    #[test]
    fn segments_beyond_four_gib_are_refused() {
        let mut file = kernel(&[0; 4], NOTE_PHYS32_ENTRY);
        file[HEADER_SIZE + 28] = 1;
        assert_eq!(
            PvhKernel::parse(&file).map(|_| ()),
            Err(KernelError::BadSegment)
        );
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(at in 0usize..200, value in any::<u8>(), cut in 0usize..240) {
            let mut file = kernel(&0x100_0850u32.to_le_bytes(), NOTE_PHYS32_ENTRY);
            let at = at % file.len();
            file[at] = value;
            file.truncate(cut.max(1));
            if let Ok(kernel) = PvhKernel::parse(&file) {
                kernel.extent();
            }
        }
    }
}
