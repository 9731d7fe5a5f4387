//! The CPU record (`hvm_hw_cpu`, `public/arch-x86/hvm/save.h`).

use oxen_abi::Errno;
use oxen_abi::domctl::context as record;

use super::check::{self, Limits};
use super::{long, put, word};
use crate::registers::{Msrs, Registers, Segment, Table, cr0, reset, rflags};

/// Bytes of the x87 and SSE state, in the format of FXSAVE.
pub const LEGACY_STATE: usize = 512;

/// The record's order of general-purpose registers, by x86 encoding.
const ORDER: [usize; 16] = [0, 3, 1, 2, 5, 6, 7, 4, 8, 9, 10, 11, 12, 13, 14, 15];

/// A vCPU's registers, and what its next entry delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Registers.
    pub registers: Registers,
    /// x87 and SSE state, if it has any.
    pub legacy: Option<[u8; LEGACY_STATE]>,
    /// An event that is due.
    pub event: Option<Event>,
}

/// An event that the next entry delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An external interrupt's vector.
    Interrupt(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// An exception's vector and error code.
    Exception(u8, Option<u32>),
}

impl Event {
    const VALID: u32 = 1 << 31;
    const HAS_CODE: u32 = 1 << 11;
    const NMI: u32 = 2 << 8 | 2;
    const EXCEPTION: u32 = 3 << 8;

    /// From the form that VT-x and AMD-V share (SDM vol. 3, table 25-17), and its error code. Software interrupts, which are
    /// their instruction executed again, are none.
    pub const fn from_bits(bits: u32, code: u32) -> Option<Self> {
        if bits & Self::VALID == 0 {
            return None;
        }
        let vector = bits as u8;
        match bits >> 8 & 7 {
            0 => Some(Self::Interrupt(vector)),
            2 => Some(Self::Nmi),
            3 => Some(Self::Exception(
                vector,
                if bits & Self::HAS_CODE != 0 {
                    Some(code)
                } else {
                    None
                },
            )),
            _ => None,
        }
    }

    /// In that form.
    pub const fn to_bits(self) -> (u32, u32) {
        match self {
            Self::Interrupt(vector) => (Self::VALID | vector as u32, 0),
            Self::Nmi => (Self::VALID | Self::NMI, 0),
            Self::Exception(vector, None) => (Self::VALID | Self::EXCEPTION | vector as u32, 0),
            Self::Exception(vector, Some(code)) => (
                Self::VALID | Self::EXCEPTION | Self::HAS_CODE | vector as u32,
                code,
            ),
        }
    }

    /// Whether an entry with these registers takes it (SDM vol. 3, 27.2.1.3).
    fn fits(self, registers: &Registers) -> bool {
        /// #DF, #TS, #NP, #SS, #GP, #PF, #AC.
        const WITH_CODE: u32 = 1 << 8 | 0x1F << 10 | 1 << 17;
        match self {
            Self::Interrupt(vector) => vector >= 16 && registers.rflags & rflags::INTERRUPT != 0,
            Self::Nmi => true,
            Self::Exception(vector, code) => {
                let wants =
                    WITH_CODE >> vector.min(31) & 1 != 0 && registers.cr0 & cr0::PROTECTED != 0;
                vector < 32
                    && vector != 2
                    && code.is_some() == wants
                    && code.unwrap_or(0) >> 16 == 0
            }
        }
    }
}

impl Cpu {
    /// Reads and checks a record.
    ///
    /// # Errors
    /// `Inval` for values that no CPU could run with.
    pub fn read(bytes: &[u8; record::CPU_SIZE], limits: &Limits) -> Result<Self, Errno> {
        let cpu = Self::unchecked(bytes)?;
        check::check(&cpu.registers, limits)?;
        let event_fits = cpu.event.is_none_or(|event| event.fits(&cpu.registers));
        let legacy_fits = cpu
            .legacy
            .is_none_or(|state| super::fpu::is_mxcsr(&state, limits));
        if event_fits && legacy_fits {
            Ok(cpu)
        } else {
            Err(Errno::Inval)
        }
    }

    fn unchecked(bytes: &[u8; record::CPU_SIZE]) -> Result<Self, Errno> {
        let mut registers = Registers {
            rip: long(bytes, record::RIP),
            rflags: long(bytes, record::RFLAGS) | rflags::FIXED,
            cr0: long(bytes, record::CR0) | cr0::EXTENSION_TYPE,
            cr2: long(bytes, record::CR2),
            cr3: long(bytes, record::CR3),
            cr4: long(bytes, record::CR4),
            debug: core::array::from_fn(|index| long(bytes, record::DR0 + 8 * index)),
            dr6: long(bytes, record::DR6) | reset::DR6,
            dr7: long(bytes, record::DR7) | reset::DR7,
            efer: long(bytes, record::EFER),
            pat: reset::PAT,
            segments: core::array::from_fn(|index| {
                Segment::from_packed(
                    word(bytes, record::SELECTORS + 4 * index) as u16,
                    unfolded(word(bytes, record::RIGHTS + 4 * index)),
                    word(bytes, record::LIMITS + 4 * index),
                    long(bytes, record::BASES + 8 * index),
                )
            }),
            gdtr: Table {
                base: long(bytes, record::GDTR_BASE),
                limit: word(bytes, record::GDTR_LIMIT),
            },
            idtr: Table {
                base: long(bytes, record::IDTR_BASE),
                limit: word(bytes, record::IDTR_LIMIT),
            },
            sysenter: core::array::from_fn(|index| long(bytes, record::SYSENTER + 8 * index)),
            msrs: Msrs {
                kernel_gs_base: long(bytes, record::SHADOW_GS),
                star: long(bytes, record::STAR),
                lstar: long(bytes, record::LSTAR),
                cstar: long(bytes, record::CSTAR),
                syscall_mask: long(bytes, record::SYSCALL_MASK),
                tsc_aux: long(bytes, record::TSC_AUX),
            },
            ..Registers::default()
        };
        for (index, register) in ORDER.into_iter().enumerate() {
            registers.general[register] = long(bytes, record::GENERAL + 8 * index);
        }
        let flags = word(bytes, record::FLAGS);
        if flags & !record::FLAG_FPU != 0 || word(bytes, record::FLAGS + 4) != 0 {
            return Err(Errno::Inval);
        }
        let legacy = (flags & record::FLAG_FPU != 0).then(|| {
            let mut state = [0; LEGACY_STATE];
            state.copy_from_slice(&bytes[..LEGACY_STATE]);
            state
        });
        let pending = word(bytes, record::PENDING_EVENT);
        let event = Event::from_bits(pending, word(bytes, record::PENDING_EVENT + 4));
        if event.is_none() && pending & Event::VALID != 0 {
            return Err(Errno::Inval);
        }
        Ok(Self {
            registers,
            legacy,
            event,
        })
    }

    /// The record, with what the guest's TSC reads now.
    pub fn to_record(&self, tsc: u64) -> [u8; record::CPU_SIZE] {
        let mut bytes = [0; record::CPU_SIZE];
        let registers = &self.registers;
        let msrs = &registers.msrs;
        for (index, register) in ORDER.into_iter().enumerate() {
            put(
                &mut bytes,
                record::GENERAL + 8 * index,
                registers.general[register],
            );
        }
        for (index, value) in registers.debug.into_iter().enumerate() {
            put(&mut bytes, record::DR0 + 8 * index, value);
        }
        for (index, value) in registers.sysenter.into_iter().enumerate() {
            put(&mut bytes, record::SYSENTER + 8 * index, value);
        }
        for (at, value) in [
            (record::RIP, registers.rip),
            (record::RFLAGS, registers.rflags),
            (record::CR0, registers.cr0),
            (record::CR2, registers.cr2),
            (record::CR3, registers.cr3),
            (record::CR4, registers.cr4),
            (record::DR6, registers.dr6),
            (record::DR7, registers.dr7),
            (record::GDTR_BASE, registers.gdtr.base),
            (record::IDTR_BASE, registers.idtr.base),
            (record::SHADOW_GS, msrs.kernel_gs_base),
            (record::LSTAR, msrs.lstar),
            (record::STAR, msrs.star),
            (record::CSTAR, msrs.cstar),
            (record::SYSCALL_MASK, msrs.syscall_mask),
            (record::EFER, registers.efer),
            (record::TSC_AUX, msrs.tsc_aux),
            (record::TSC, tsc),
        ] {
            put(&mut bytes, at, value);
        }
        for (index, segment) in registers.segments.iter().enumerate() {
            put(&mut bytes, record::BASES + 8 * index, segment.base);
        }
        let mut put =
            |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        for (index, segment) in registers.segments.iter().enumerate() {
            put(record::SELECTORS + 4 * index, segment.selector.into());
            put(record::LIMITS + 4 * index, segment.limit);
            put(record::RIGHTS + 4 * index, segment.packed_attributes());
        }
        put(record::GDTR_LIMIT, registers.gdtr.limit);
        put(record::IDTR_LIMIT, registers.idtr.limit);
        if let Some(event) = self.event {
            let (pending, code) = event.to_bits();
            put(record::PENDING_EVENT, pending);
            put(record::PENDING_EVENT + 4, code);
        }
        if let Some(state) = &self.legacy {
            put(record::FLAGS, record::FLAG_FPU);
            bytes[..LEGACY_STATE].copy_from_slice(state);
        }
        bytes
    }
}

/// Old builders of VT-x guests give rights as the VMCS has them, with a gap in the middle.
const fn unfolded(rights: u32) -> u32 {
    if rights & 0xF000 != 0 && rights & 0xF00 == 0 {
        rights & 0xFF | rights >> 4 & 0xF00
    } else {
        rights
    }
}
