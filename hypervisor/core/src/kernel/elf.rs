//! ELF executables with a PVH entry note. Every offset is checked: the file may be anything.

use core::ops::Range;

use oxen_abi::start_info::NOTE_PHYS32_ENTRY;

use super::{ELF_MAGIC, KernelError};

const LITTLE_ENDIAN: u8 = 1;
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
const FOUR_GIB: u64 = 1 << 32;
/// `XEN_ELFNOTE_SUPPORTED_FEATURES`.
const NOTE_SUPPORTED_FEATURES: u32 = 17;
/// `XEN_ELFNOTE_PHYS32_RELOC`.
const NOTE_PHYS32_RELOC: u32 = 19;
/// `XENFEAT_dom0`: the kernel can be the control domain.
const FEATURE_DOM0: u64 = 1 << 11;

/// Where the fields are in files of one class (System V ABI, "ELF header" and "Program header"). Machine and version have
/// the same place in both.
#[derive(Debug)]
struct Class {
    /// `EI_CLASS`.
    number: u8,
    /// `e_machine`.
    machine: u64,
    header_size: usize,
    program_header_size: usize,
    /// Bytes of an address or an offset.
    word: usize,
    /// `e_phoff`.
    table: usize,
    /// `e_phentsize`; `e_phnum` follows.
    entry_size: usize,
    /// `p_offset`.
    offset: usize,
    /// `p_paddr`; `p_filesz` and `p_memsz` follow.
    address: usize,
}

/// 64-bit kernels: all of Linux's that are supported.
static CLASS_64: Class = Class {
    number: 2,
    machine: 62,
    header_size: 64,
    program_header_size: 56,
    word: 8,
    table: 32,
    entry_size: 54,
    offset: 8,
    address: 24,
};

/// 32-bit kernels, such as GRUB's: PVH enters every kernel in 32-bit mode.
static CLASS_32: Class = Class {
    number: 1,
    machine: 3,
    header_size: 52,
    program_header_size: 32,
    word: 4,
    table: 28,
    entry_size: 42,
    offset: 4,
    address: 12,
};

impl Class {
    fn of(file: &[u8]) -> Result<&'static Self, KernelError> {
        if !file.starts_with(&ELF_MAGIC) {
            return Err(KernelError::NotX86Elf);
        }
        [&CLASS_64, &CLASS_32]
            .into_iter()
            .find(|class| {
                file.get(4..6) == Some(&[class.number, LITTLE_ENDIAN])
                    && number(file, 18, 2) == Some(class.machine)
            })
            .ok_or(KernelError::NotX86Elf)
    }
}

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

/// Where a relocatable kernel may be put instead of at its own addresses, as a whole (PHYS32_RELOC note).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// What its first address must be a multiple of; a power of two.
    pub alignment: u32,
    /// Lowest first address.
    pub lowest: u32,
    /// Highest last address.
    pub highest: u32,
}

/// A kernel that can be entered the PVH way.
#[derive(Clone, Copy, Debug)]
pub struct PvhKernel<'a> {
    file: &'a [u8],
    class: &'static Class,
    /// 32-bit entry point, in one of the segments.
    pub entry: u32,
    /// Present if the kernel can be moved; its entry point then moves with it.
    pub relocation: Option<Relocation>,
    /// Whether it says that it can be the control domain; `None` if it does not list what it can do.
    pub supports_dom0: Option<bool>,
}

impl<'a> PvhKernel<'a> {
    /// Checks headers, segments and notes.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn parse(file: &'a [u8]) -> Result<Self, KernelError> {
        let class = Class::of(file)?;
        if file.len() < class.header_size {
            return Err(KernelError::Truncated);
        }
        let mut this = Self {
            file,
            class,
            entry: 0,
            relocation: None,
            supports_dom0: None,
        };
        let mut entry = None;
        for program_header in this.program_headers()? {
            match number(program_header, 0, 4) {
                Some(PT_LOAD) => this.segment(program_header).map(|_| ())?,
                Some(PT_NOTE) => {
                    for (kind, value) in XenNotes(this.content(program_header)?) {
                        match kind {
                            NOTE_PHYS32_ENTRY => entry = entry.or(entry_point(value)),
                            NOTE_PHYS32_RELOC => this.relocation = relocation(value),
                            NOTE_SUPPORTED_FEATURES => {
                                this.supports_dom0 =
                                    number(value, 0, 4).map(|bits| bits & FEATURE_DOM0 != 0);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        this.entry = entry.ok_or(KernelError::NotPvh)?;
        let at = u64::from(this.entry);
        if !this
            .segments()
            .any(|segment| segment.address <= at && at - segment.address < segment.size)
        {
            return Err(KernelError::EntryOutside(this.entry));
        }
        Ok(this)
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
            .map(|segment| segment.address..segment.address + segment.size)
            .reduce(|all, part| all.start.min(part.start)..all.end.max(part.end))
            .unwrap_or_default()
    }

    fn program_headers(&self) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, KernelError> {
        let field = |offset, size| number(self.file, offset, size).ok_or(KernelError::Truncated);
        let class = self.class;
        let offset = field(class.table, class.word)?;
        let (entry_size, count) = (field(class.entry_size, 2)?, field(class.entry_size + 2, 2)?);
        if entry_size != class.program_header_size as u64 {
            return Err(KernelError::NotX86Elf);
        }
        let start = usize::try_from(offset).map_err(|_| KernelError::Truncated)?;
        let size = count as usize * class.program_header_size;
        let table = start
            .checked_add(size)
            .and_then(|end| self.file.get(start..end))
            .ok_or(KernelError::Truncated)?;
        Ok(table.chunks_exact(class.program_header_size))
    }

    fn content(&self, header: &[u8]) -> Result<&'a [u8], KernelError> {
        let class = self.class;
        let field = |offset| {
            number(header, offset, class.word).and_then(|value| usize::try_from(value).ok())
        };
        let file_size = class.address + class.word;
        let (start, size) = field(class.offset)
            .zip(field(file_size))
            .ok_or(KernelError::Truncated)?;
        start
            .checked_add(size)
            .and_then(|end| self.file.get(start..end))
            .ok_or(KernelError::Truncated)
    }

    fn segment(&self, header: &[u8]) -> Result<Segment<'a>, KernelError> {
        let class = self.class;
        let field = |offset| number(header, offset, class.word).ok_or(KernelError::Truncated);
        let memory_size = class.address + 2 * class.word;
        let (address, size) = (field(class.address)?, field(memory_size)?);
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

/// The notes owned by "Xen" in a segment, as type and descriptor: name size, descriptor size, type, then name and
/// descriptor, each padded to four bytes. Ends at the first that is cut off.
struct XenNotes<'a>(&'a [u8]);

impl<'a> Iterator for XenNotes<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEADER: usize = 12;
        loop {
            let notes = self.0;
            let field = |offset| number(notes, offset, 4);
            let (name_size, value_size) = (field(0)? as usize, field(4)? as usize);
            let kind = field(8)? as u32;
            let (name, rest) = notes.get(HEADER..)?.split_at_checked(name_size)?;
            let rest = rest.get(padding(name_size)..)?;
            let (value, rest) = rest.split_at_checked(value_size)?;
            // The last descriptor's padding may be missing.
            self.0 = rest.get(padding(value_size)..).unwrap_or_default();
            if name == b"Xen\0" {
                return Some((kind, value));
            }
        }
    }
}

const fn padding(size: usize) -> usize {
    size.wrapping_neg() % 4
}

/// The entry note's descriptor has four bytes or eight.
fn entry_point(value: &[u8]) -> Option<u32> {
    match value.len() {
        size @ (4 | 8) => u32::try_from(number(value, 0, size)?).ok(),
        _ => None,
    }
}

/// Up to three words, each with a default.
fn relocation(value: &[u8]) -> Option<Relocation> {
    let word =
        |index: usize, default| number(value, 4 * index, 4).map_or(default, |word| word as u32);
    let relocation = Relocation {
        alignment: word(0, 0x20_0000),
        lowest: word(1, 0),
        highest: word(2, u32::MAX),
    };
    relocation.alignment.is_power_of_two().then_some(relocation)
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

    /// A 64-bit executable with one segment at 16 MiB and these notes, each a type and a descriptor.
    fn kernel(notes: &[(u32, &[u8])]) -> Vec<u8> {
        kernel_of(&CLASS_64, notes)
    }

    fn kernel_of(class: &Class, notes: &[(u32, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; class.header_size + 2 * class.program_header_size];
        let start = file.len() as u64;
        note(&mut file, b"GNU\0", 3, &[7; 5]);
        for &(kind, value) in notes {
            note(&mut file, b"Xen\0", kind, value);
        }
        let notes_size = file.len() as u64 - start;
        file[..4].copy_from_slice(&ELF_MAGIC);
        file[4..6].copy_from_slice(&[class.number, LITTLE_ENDIAN]);
        let mut put = |offset: usize, value: u64, size: usize| {
            file[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        let word = class.word;
        put(18, class.machine, 2);
        put(class.table, class.header_size as u64, word);
        put(class.entry_size, class.program_header_size as u64, 2);
        put(class.entry_size + 2, 2, 2);
        let load = class.header_size;
        let notes = load + class.program_header_size;
        put(load, PT_LOAD, 4);
        put(load + class.address, 0x100_0000, word);
        put(load + class.address + word, 64, word);
        put(load + class.address + 2 * word, 0x2000, word);
        put(notes, PT_NOTE, 4);
        put(notes + class.offset, start, word);
        put(notes + class.address + word, notes_size, word);
        file
    }

    fn note(file: &mut Vec<u8>, owner: &[u8; 4], kind: u32, value: &[u8]) {
        for word in [owner.len() as u32, value.len() as u32, kind] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(owner);
        file.extend_from_slice(value);
        file.resize(file.len().next_multiple_of(4), 0);
    }

    const ENTRY: (u32, &[u8]) = (NOTE_PHYS32_ENTRY, &0x100_0850u32.to_le_bytes());

    #[test]
    fn both_sizes_of_the_entry_note_are_read() {
        for note in [
            &0x100_0850u32.to_le_bytes()[..],
            &0x100_0850u64.to_le_bytes()[..],
        ] {
            let file = kernel(&[(NOTE_PHYS32_ENTRY, note)]);
            let kernel = PvhKernel::parse(&file).expect("a PVH kernel");
            assert_eq!(kernel.entry, 0x100_0850);
            assert_eq!(kernel.extent(), 0x100_0000..0x100_2000);
            assert_eq!(kernel.segments().count(), 1);
            assert_eq!((kernel.relocation, kernel.supports_dom0), (None, None));
        }
    }

    #[test]
    fn a_32_bit_kernel_is_as_good() {
        let file = kernel_of(&CLASS_32, &[ENTRY]);
        let kernel = PvhKernel::parse(&file).expect("a PVH kernel");
        assert_eq!(kernel.entry, 0x100_0850);
        assert_eq!(kernel.extent(), 0x100_0000..0x100_2000);
        let first = kernel.segments().next().expect("a segment");
        assert_eq!(first.bytes, &file[..64]);
    }

    #[test]
    fn a_kernel_for_another_processor_is_refused() {
        for (offset, value) in [(4, 3), (5, 2), (18, 40)] {
            let mut file = kernel(&[ENTRY]);
            file[offset] = value;
            let refused = PvhKernel::parse(&file).map(|_| ());
            assert_eq!(refused, Err(KernelError::NotX86Elf));
        }
    }

    #[test]
    fn a_kernel_without_the_note_is_refused() {
        let file = kernel(&[(6, &[0; 4])]);
        assert_eq!(
            PvhKernel::parse(&file).map(|_| ()),
            Err(KernelError::NotPvh)
        );
    }

    #[test]
    fn relocation_and_features_come_from_their_notes() {
        let words = [0x20_0000u32, 0x100_0000, 0x3FFF_FFFF];
        let words = words.map(u32::to_le_bytes);
        let file = kernel(&[
            (NOTE_PHYS32_RELOC, words.as_flattened()),
            (NOTE_SUPPORTED_FEATURES, &0x8801u32.to_le_bytes()),
            ENTRY,
        ]);
        let parsed = PvhKernel::parse(&file).expect("a PVH kernel");
        let relocation = Relocation {
            alignment: 0x20_0000,
            lowest: 0x100_0000,
            highest: 0x3FFF_FFFF,
        };
        assert_eq!(parsed.relocation, Some(relocation));
        assert_eq!(parsed.supports_dom0, Some(true));

        let file = kernel(&[
            ENTRY,
            (NOTE_PHYS32_RELOC, &[]),
            (NOTE_SUPPORTED_FEATURES, &[1, 0, 0, 0]),
        ]);
        let parsed = PvhKernel::parse(&file).expect("a PVH kernel");
        let anywhere = Relocation {
            alignment: 0x20_0000,
            lowest: 0,
            highest: u32::MAX,
        };
        assert_eq!(parsed.relocation, Some(anywhere));
        assert_eq!(parsed.supports_dom0, Some(false));
    }

    #[test]
    fn an_entry_point_outside_of_the_segments_is_refused() {
        let file = kernel(&[(NOTE_PHYS32_ENTRY, &0x100_2000u32.to_le_bytes())]);
        let refused = PvhKernel::parse(&file).map(|_| ());
        assert_eq!(refused, Err(KernelError::EntryOutside(0x100_2000)));
    }

    #[test]
    fn segments_beyond_four_gib_are_refused() {
        let mut file = kernel(&[ENTRY]);
        file[CLASS_64.header_size + CLASS_64.address + 4] = 1;
        assert_eq!(
            PvhKernel::parse(&file).map(|_| ()),
            Err(KernelError::BadSegment)
        );
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(wide: bool, at in 0usize..300, value in any::<u8>(), cut in 0usize..300) {
            let class = if wide { &CLASS_64 } else { &CLASS_32 };
            let mut file = kernel_of(class, &[ENTRY, (NOTE_PHYS32_RELOC, &[1; 12])]);
            let at = at % file.len();
            file[at] = value;
            file.truncate(cut.max(1));
            if let Ok(kernel) = PvhKernel::parse(&file) {
                kernel.extent();
            }
        }
    }
}
