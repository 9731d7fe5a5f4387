//! What a CPU wants of a guest's registers when it enters it (SDM vol. 3, 27.3.1; APM vol. 2, 15.5.1 asks for less). An entry
//! that fails would end the domain long after the call that asked for it.

use oxen_abi::Errno;

use crate::registers::{Registers, Segment, cr0, cr4, efer, is_canonical, rflags, segment};

/// What this CPU has, as far as a domain may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of CR4.
    pub cr4: u64,
    /// Bits of EFER.
    pub efer: u64,
    /// Bits of a physical address.
    pub physical_bits: u32,
    /// Components of extended state.
    pub xcr0: u64,
    /// Bytes of an area for all of them, in the standard format.
    pub xsave_size: usize,
    /// Bits of MXCSR.
    pub mxcsr: u32,
}

/// Whether a CPU enters a guest with them.
///
/// # Errors
/// `Inval` if not.
pub fn check(registers: &Registers, limits: &Limits) -> Result<(), Errno> {
    let fits = control(registers, limits)
        && flags(registers)
        && tables(registers)
        && if registers.rflags & rflags::VIRTUAL_8086 != 0 {
            virtual_8086(registers)
        } else {
            segments(registers)
        }
        && system_segments(registers)
        && instruction_pointer(registers);
    if fits { Ok(()) } else { Err(Errno::Inval) }
}

fn control(registers: &Registers, limits: &Limits) -> bool {
    let Registers { cr0, cr4, efer, .. } = *registers;
    let paging = cr0 & cr0::PAGING != 0;
    let (enabled, active) = (efer & efer::LME != 0, registers.is_long());
    let beyond = |address: u64| address >> limits.physical_bits.min(63) != 0;
    cr0 & !cr0::DEFINED == 0
        && (!paging || cr0 & cr0::PROTECTED != 0)
        && cr0 & (cr0::CACHE_DISABLE | cr0::NOT_WRITE_THROUGH) != cr0::NOT_WRITE_THROUGH
        && cr4 & !limits.cr4 == 0
        && efer & !limits.efer == 0
        && active == (enabled && paging)
        && (!active || cr4 & cr4::PAE != 0)
        && (active || cr4 & cr4::PCIDE == 0)
        && !beyond(registers.cr3)
        && registers.dr6 >> 32 == 0
        && registers.dr7 >> 32 == 0
        && registers.sysenter[1..].iter().all(|&at| is_canonical(at))
        && is_canonical(registers.msrs.kernel_gs_base)
        && is_canonical(registers.msrs.lstar)
        && is_canonical(registers.msrs.cstar)
        && registers.msrs.syscall_mask >> 32 == 0
        && registers.msrs.tsc_aux >> 32 == 0
        && is_pat(registers.pat)
        && (!registers.has_directories()
            || registers
                .directories
                .iter()
                .all(|&entry| is_directory(entry, limits)))
}

/// A page-directory-pointer-table entry: reserved bits are clear where it is present (SDM vol. 3, 4.4.1).
const fn is_directory(entry: u64, limits: &Limits) -> bool {
    const PRESENT: u64 = 1;
    const RESERVED: u64 = 0b1_1110_0110;
    entry & PRESENT == 0 || entry & RESERVED == 0 && entry >> limits.physical_bits == 0
}

/// Memory types that the page-attribute table may hold (SDM vol. 3, 12.12.2).
pub fn is_pat(value: u64) -> bool {
    let types = value.to_le_bytes();
    types.iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

const fn flags(registers: &Registers) -> bool {
    let flags = registers.rflags;
    let virtual_8086 = flags & rflags::VIRTUAL_8086 != 0;
    flags & !(rflags::DEFINED | rflags::VIRTUAL_8086) == 0
        && flags & rflags::FIXED != 0
        && (!virtual_8086 || registers.cr0 & cr0::PROTECTED != 0 && !registers.is_long())
}

const fn tables(registers: &Registers) -> bool {
    is_canonical(registers.gdtr.base)
        && is_canonical(registers.idtr.base)
        && registers.gdtr.limit >> 16 == 0
        && registers.idtr.limit >> 16 == 0
}

const KIND: u32 = 0xF;
const CODE_OR_DATA: u32 = 1 << 4;
const PRESENT: u32 = 1 << 7;
const LONG: u32 = 1 << 13;
const BIG: u32 = 1 << 14;
const GRANULAR: u32 = 1 << 15;
/// Bits 11:8 and above 16.
const RESERVED: u32 = 0xFFFE_0F00;

const fn level(segment: &Segment) -> u32 {
    segment.attributes >> 5 & 3
}

/// Present, with a limit that granularity and reserved bits agree with.
const fn is_well_formed(segment: &Segment) -> bool {
    let granular = segment.attributes & GRANULAR != 0;
    segment.attributes & PRESENT != 0
        && segment.attributes & (RESERVED | Segment::UNUSABLE) == 0
        && (segment.limit & 0xFFF == 0xFFF || !granular)
        && (segment.limit >> 20 == 0 || granular)
}

/// All six are as in real mode, at privilege level 3.
fn virtual_8086(registers: &Registers) -> bool {
    const RIGHTS: u32 = 0xF3;
    registers.segments[..segment::TR].iter().all(|segment| {
        segment.base == u64::from(segment.selector) << 4
            && segment.limit == 0xFFFF
            && segment.attributes == RIGHTS
    })
}

fn segments(registers: &Registers) -> bool {
    let all = &registers.segments;
    let (code, stack) = (&all[segment::CS], &all[segment::SS]);
    let protected = registers.cr0 & cr0::PROTECTED != 0;
    let code_fits = is_well_formed(code)
        && code.attributes & CODE_OR_DATA != 0
        && code.base >> 32 == 0
        && match code.attributes & KIND {
            // Data, as real mode has it.
            3 => level(code) == 0 && level(stack) == 0,
            9 | 11 => level(code) == level(stack),
            13 | 15 => level(code) <= level(stack),
            _ => false,
        }
        && (!registers.is_long() || code.attributes & (LONG | BIG) != LONG | BIG);
    let stack_fits = (protected || level(stack) == 0)
        && stack.attributes & RESERVED == 0
        && (!stack.is_usable()
            || is_well_formed(stack)
                && stack.attributes & CODE_OR_DATA != 0
                && matches!(stack.attributes & KIND, 3 | 7)
                && stack.base >> 32 == 0);
    let is_data = |index: usize| {
        let segment = &all[index];
        !segment.is_usable()
            || is_well_formed(segment)
                && segment.attributes & CODE_OR_DATA != 0
                && segment.attributes & 1 != 0
                && segment.attributes & 0b1010 != 0b1000
    };
    code_fits
        && stack_fits
        && [segment::DS, segment::ES, segment::FS, segment::GS]
            .into_iter()
            .all(is_data)
        && [segment::DS, segment::ES]
            .into_iter()
            .all(|index| !all[index].is_usable() || all[index].base >> 32 == 0)
        && [segment::FS, segment::GS]
            .into_iter()
            .all(|index| is_canonical(all[index].base))
}

fn system_segments(registers: &Registers) -> bool {
    const LOCAL_TABLE: u32 = 1 << 2;
    const BUSY_TASK: u32 = 11;
    const BUSY_TASK_16: u32 = 3;
    let (task, local) = (
        &registers.segments[segment::TR],
        &registers.segments[segment::LDTR],
    );
    let kind = task.attributes & (KIND | CODE_OR_DATA);
    let is_system = |segment: &Segment| {
        is_well_formed(segment)
            && u32::from(segment.selector) & LOCAL_TABLE == 0
            && is_canonical(segment.base)
    };
    is_system(task)
        && (kind == BUSY_TASK || kind == BUSY_TASK_16 && !registers.is_long())
        && (!local.is_usable() || is_system(local) && local.attributes & (KIND | CODE_OR_DATA) == 2)
}

const fn instruction_pointer(registers: &Registers) -> bool {
    if registers.is_long() && registers.segments[segment::CS].attributes & LONG != 0 {
        is_canonical(registers.rip)
    } else {
        registers.rip >> 32 == 0
    }
}
