//! The registers that a vCPU starts with: at the PVH entry, after INIT–SIPI, or as the guest itself asks.

use oxen_abi::Errno;
use oxen_abi::vcpu::context as abi;

pub use crate::registers::Segment;
use crate::registers::{Registers, Table, cr0, cr4, efer, is_canonical, reset, rflags, segment};

const CODE_32: u32 = 0xC09B;
const CODE_64: u32 = 0xA09B;
const DATA: u32 = 0xC093;
const REAL_CODE: u32 = 0x009B;
const REAL_DATA: u32 = 0x0093;
const BUSY_TASK: u32 = 0x008B;
const TASK_LIMIT: u32 = 0x67;

const CR0_RESET: u64 = cr0::CACHE_DISABLE | cr0::NOT_WRITE_THROUGH | cr0::EXTENSION_TYPE;
/// Bits that no physical address has.
const CR3_RESERVED: u64 = 0xFFF0_0000_0000_0000;

/// Registers at a vCPU's start; what is not here is as after INIT (SDM vol. 3, table 10-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRegisters {
    /// General-purpose registers by their x86 encoding, the stack pointer in slot 4.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// CS.
    pub code: Segment,
    /// DS, FS and GS.
    pub data: Segment,
    /// SS.
    pub stack: Segment,
    /// ES.
    pub extra: Segment,
    /// TR.
    pub task: Segment,
}

const fn flat(attributes: u32) -> Segment {
    Segment {
        selector: 0,
        attributes,
        limit: u32::MAX,
        base: 0,
    }
}

const TASK: Segment = Segment {
    selector: 0,
    attributes: BUSY_TASK,
    limit: TASK_LIMIT,
    base: 0,
};

impl StartRegisters {
    const fn flat(code: u32) -> Self {
        Self {
            general: [0; 16],
            rip: 0,
            rflags: rflags::FIXED,
            cr0: cr0::PROTECTED | cr0::EXTENSION_TYPE,
            cr3: 0,
            cr4: 0,
            efer: 0,
            code: flat(code),
            data: flat(DATA),
            stack: flat(DATA),
            extra: flat(DATA),
            task: TASK,
        }
    }

    /// The PVH entry: flat 32-bit protected mode, paging off, EBX at the start info (xen/docs/misc/pvh.pandoc).
    pub const fn pvh(entry: u32, start_info: u32) -> Self {
        const RBX: usize = 3;
        let mut registers = Self::flat(CODE_32);
        registers.rip = entry as u64;
        registers.general[RBX] = start_info as u64;
        registers
    }

    /// After a start-up interrupt: real mode at `vector << 12` (SDM vol. 3, 10.4.4).
    pub const fn sipi(vector: u8) -> Self {
        let data = Segment {
            limit: 0xFFFF,
            ..flat(REAL_DATA)
        };
        Self {
            cr0: CR0_RESET,
            code: Segment {
                selector: (vector as u16) << 8,
                base: (vector as u64) << 12,
                limit: 0xFFFF,
                attributes: REAL_CODE,
            },
            data,
            stack: data,
            extra: data,
            ..Self::flat(CODE_32)
        }
    }

    /// From the structure of `VCPUOP_initialise` (`public/hvm/hvm_vcpu.h`).
    ///
    /// # Errors
    /// `Inval` for an unknown mode or for values that no CPU could run with.
    pub fn from_context(bytes: &[u8; abi::SIZE]) -> Result<Self, Errno> {
        match word(bytes, abi::MODE) {
            abi::MODE_32 => Self::from_context_32(bytes),
            abi::MODE_64 => Self::from_context_64(bytes),
            _ => Err(Errno::Inval),
        }
    }

    fn from_context_32(bytes: &[u8; abi::SIZE]) -> Result<Self, Errno> {
        let at = |field: usize| word(bytes, abi::REGISTERS + field);
        let segment = |index: usize| {
            let rights = half(bytes, abi::REGISTERS + abi::RIGHTS_32 + 2 * index);
            let rights = u32::from(rights);
            Segment {
                selector: 0,
                attributes: rights & 0xFF | (rights & 0xF00) << 4,
                limit: at(abi::LIMITS_32 + 4 * index),
                base: at(abi::BASES_32 + 4 * index).into(),
            }
        };
        let mut registers = Self {
            rip: at(abi::IP_32).into(),
            rflags: u64::from(at(abi::FLAGS_32)) | rflags::FIXED,
            cr0: u64::from(at(abi::CR0_32)) | cr0::EXTENSION_TYPE,
            cr3: at(abi::CR3_32).into(),
            cr4: at(abi::CR4_32).into(),
            efer: long(bytes, abi::REGISTERS + abi::EFER_32),
            code: segment(0),
            data: segment(1),
            stack: segment(2),
            extra: segment(3),
            task: segment(4),
            ..Self::flat(CODE_32)
        };
        for index in 0..8 {
            registers.general[index] = at(4 * index).into();
        }
        if registers.is_in_long_mode() || !registers.segments_fit() {
            return Err(Errno::Inval);
        }
        registers.checked()
    }

    fn from_context_64(bytes: &[u8; abi::SIZE]) -> Result<Self, Errno> {
        let at = |field: usize| long(bytes, abi::REGISTERS + field);
        let mut registers = Self {
            rip: at(abi::IP_64),
            rflags: at(abi::FLAGS_64) | rflags::FIXED,
            cr0: at(abi::CR0_64) | cr0::EXTENSION_TYPE,
            cr3: at(abi::CR3_64),
            cr4: at(abi::CR4_64),
            efer: at(abi::EFER_64),
            ..Self::flat(CODE_64)
        };
        for index in 0..8 {
            registers.general[index] = at(8 * index);
        }
        const PAGING: u64 = cr0::PAGING | cr0::PROTECTED;
        const LONG: u64 = efer::LME | efer::LMA;
        let ready = registers.cr0 & PAGING == PAGING
            && registers.cr4 & cr4::PAE != 0
            && registers.efer & LONG == LONG;
        if !ready || !is_canonical(registers.rip) {
            return Err(Errno::Inval);
        }
        registers.checked()
    }

    /// Whether long mode is active, or would be as soon as paging is on with what they say.
    const fn is_in_long_mode(&self) -> bool {
        self.efer & efer::LMA != 0 || self.efer & efer::LME != 0 && self.cr0 & cr0::PAGING != 0
    }

    /// Whether the segments are such that a CPU enters with them: present, of the right kind, all of one privilege level 0.
    fn segments_fit(&self) -> bool {
        const ACCESSED_CODE: u32 = 0x9B;
        const ACCESSED_DATA: u32 = 0x93;
        let granular = |segment: &Segment| {
            let big = segment.attributes & 1 << 15 != 0;
            // SDM vol. 3, 27.3.1.2: a limit of whole pages wants the granularity bit, another one forbids it.
            (segment.limit & 0xFFF == 0xFFF || !big) && (segment.limit >> 20 == 0 || big)
        };
        self.code.attributes & 0xFF == ACCESSED_CODE
            && self.code.attributes & 1 << 13 == 0
            && [&self.data, &self.stack, &self.extra]
                .iter()
                .all(|segment| segment.attributes & 0xFF == ACCESSED_DATA && granular(segment))
            && granular(&self.code)
            && [&self.code, &self.data, &self.stack, &self.extra, &self.task]
                .iter()
                .all(|segment| segment.base >> 32 == 0)
            && self.task.attributes == BUSY_TASK
            && self.task.limit >> 20 == 0
    }

    fn checked(self) -> Result<Self, Errno> {
        let fits = self.cr0 & !cr0::DEFINED == 0
            && self.cr0 & (cr0::CACHE_DISABLE | cr0::NOT_WRITE_THROUGH) != cr0::NOT_WRITE_THROUGH
            && (self.cr0 & cr0::PAGING == 0 || self.cr0 & cr0::PROTECTED != 0)
            && self.cr3 & CR3_RESERVED == 0
            && self.cr4 & !cr4::FIRST == 0
            && self.efer & !efer::FIRST == 0
            && self.rflags & !rflags::DEFINED == 0;
        if fits { Ok(self) } else { Err(Errno::Inval) }
    }
}

impl From<&StartRegisters> for Registers {
    fn from(start: &StartRegisters) -> Self {
        let mut segments = [start.data; 8];
        for (place, segment) in [
            (segment::CS, start.code),
            (segment::ES, start.extra),
            (segment::SS, start.stack),
            (segment::TR, start.task),
            (
                segment::LDTR,
                Segment {
                    attributes: Segment::UNUSABLE,
                    ..Segment::default()
                },
            ),
        ] {
            segments[place] = segment;
        }
        let table = Table {
            base: 0,
            limit: 0xFFFF,
        };
        Self {
            general: start.general,
            rip: start.rip,
            rflags: start.rflags,
            cr0: start.cr0,
            cr3: start.cr3,
            cr4: start.cr4,
            dr6: reset::DR6,
            dr7: reset::DR7,
            efer: start.efer,
            pat: reset::PAT,
            segments,
            gdtr: table,
            idtr: table,
            ..Self::default()
        }
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(bytes: &mut [u8], at: usize, value: u64, size: usize) {
        bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    fn context_64() -> [u8; abi::SIZE] {
        let mut bytes = [0; abi::SIZE];
        put(&mut bytes, abi::MODE, abi::MODE_64.into(), 4);
        let mut register = |field, value| put(&mut bytes, abi::REGISTERS + field, value, 8);
        register(8, 0x1234);
        register(abi::IP_64, 0x10_0000);
        register(abi::CR0_64, cr0::PAGING | cr0::PROTECTED);
        register(abi::CR3_64, 0x5000);
        register(abi::CR4_64, cr4::PAE);
        register(abi::EFER_64, efer::LME | efer::LMA);
        bytes
    }

    #[test]
    fn a_64_bit_context_starts_in_long_mode() {
        let start = StartRegisters::from_context(&context_64()).expect("a good context");
        assert_eq!((start.rip, start.cr3), (0x10_0000, 0x5000));
        assert_eq!(start.general[1], 0x1234);
        assert_eq!(start.code.attributes, CODE_64);
        assert_eq!(start.rflags, rflags::FIXED);
    }

    #[test]
    fn what_no_cpu_could_run_is_refused() {
        let refused = |field: usize, value: u64| {
            let mut bytes = context_64();
            put(&mut bytes, abi::REGISTERS + field, value, 8);
            StartRegisters::from_context(&bytes) == Err(Errno::Inval)
        };
        assert!(refused(abi::IP_64, 1 << 47));
        assert!(refused(abi::CR0_64, cr0::PROTECTED));
        assert!(refused(
            abi::CR0_64,
            cr0::PAGING | cr0::PROTECTED | cr0::NOT_WRITE_THROUGH
        ));
        assert!(refused(abi::CR4_64, cr4::PAE | 1 << 13));
        assert!(refused(abi::EFER_64, efer::LME));
        assert!(refused(abi::FLAGS_64, 1 << 17));
        let mut bytes = context_64();
        bytes[0] = 2;
        assert_eq!(StartRegisters::from_context(&bytes), Err(Errno::Inval));
    }

    #[test]
    fn a_32_bit_context_brings_its_segments() {
        let mut bytes = [0; abi::SIZE];
        let registers = abi::REGISTERS;
        put(&mut bytes, registers + abi::IP_32, 0x10_0000, 4);
        put(&mut bytes, registers + abi::CR0_32, cr0::PROTECTED, 4);
        for (index, rights) in [0xC9B, 0xC93, 0xC93, 0xC93, 0x8B].into_iter().enumerate() {
            let limit = if index == 4 { 0x67 } else { 0xFFFF_FFFF };
            put(&mut bytes, registers + abi::LIMITS_32 + 4 * index, limit, 4);
            put(
                &mut bytes,
                registers + abi::RIGHTS_32 + 2 * index,
                rights,
                2,
            );
        }
        let start = StartRegisters::from_context(&bytes).expect("a good context");
        assert_eq!(
            start,
            StartRegisters {
                rip: 0x10_0000,
                ..StartRegisters::pvh(0, 0)
            }
        );
        // A code segment that is not present.
        put(&mut bytes, registers + abi::RIGHTS_32, 0xC1B, 2);
        assert_eq!(StartRegisters::from_context(&bytes), Err(Errno::Inval));
    }

    #[test]
    fn a_startup_interrupt_leads_to_its_page() {
        let start = StartRegisters::sipi(0x9F);
        assert_eq!((start.code.selector, start.code.base), (0x9F00, 0x9_F000));
        assert_eq!((start.rip, start.cr0), (0, 0x6000_0010));
    }

    proptest! {
        #[test]
        fn no_context_panics(bytes in proptest::collection::vec(any::<u8>(), abi::SIZE), mode in 0u8..3) {
            let mut bytes: [u8; abi::SIZE] = bytes.try_into().expect("its size");
            bytes[..4].copy_from_slice(&[mode, 0, 0, 0]);
            let _ = StartRegisters::from_context(&bytes);
        }
    }
}
