//! Contexts as toolstacks make them, as they were saved, and as nobody should.

use proptest::prelude::*;

use super::*;
use crate::registers::{Msrs, Registers, Segment, Table, cr0, cr4, efer, reset, rflags, segment};
use crate::start::StartRegisters;

const LIMITS: Limits = Limits {
    cr4: cr4::FIRST | cr4::SMEP | cr4::PCIDE,
    efer: efer::FIRST,
    physical_bits: 40,
    xcr0: 0b111,
    xsave_size: 832,
    mxcsr: 0xFFFF,
};

fn segment(selector: u16, packed: u32, limit: u32, base: u64) -> Segment {
    Segment::from_packed(selector, packed, limit, base)
}

/// Of a kernel in 64-bit mode.
fn long_mode() -> Registers {
    let mut segments = [segment(0x10, 0xC93, u32::MAX, 0); 8];
    segments[segment::CS] = segment(8, 0xA9B, u32::MAX, 0);
    segments[segment::FS] = segment(0, 0, 0, 0x7F00_0000_0000);
    segments[segment::GS] = segment(0, 0xC93, u32::MAX, 0xFFFF_8880_0000_0000);
    segments[segment::TR] = segment(0x40, 0x8B, 0x67, 0xFFFF_FE00_0000_0000);
    segments[segment::LDTR] = segment(0, 0, 0, 0);
    Registers {
        general: core::array::from_fn(|index| 0x1111 * index as u64),
        rip: 0xFFFF_FFFF_8100_0000,
        rflags: rflags::FIXED | rflags::INTERRUPT,
        cr0: cr0::PAGING | cr0::WRITE_PROTECT | cr0::EXTENSION_TYPE | cr0::PROTECTED,
        cr2: 0x1234,
        cr3: 0x1000,
        cr4: cr4::PAE | cr4::SMEP,
        debug: [1, 2, 3, 4],
        dr6: reset::DR6,
        dr7: reset::DR7,
        efer: efer::FIRST,
        pat: reset::PAT,
        segments,
        gdtr: Table {
            base: 0xFFFF_FE00_0000_1000,
            limit: 0x7F,
        },
        idtr: Table {
            base: 0xFFFF_FE00_0000_0000,
            limit: 0xFFF,
        },
        sysenter: [0x10, 0xFFFF_FE00_0000_2000, 0xFFFF_FFFF_8180_0000],
        directories: [0; 4],
        msrs: Msrs {
            kernel_gs_base: 0x7F00_0000_1000,
            star: 0x23_0010_0000_0000,
            lstar: 0xFFFF_FFFF_8190_0000,
            cstar: 0xFFFF_FFFF_8190_1000,
            syscall_mask: 0x4_7700,
            tsc_aux: 3,
        },
    }
}

fn cpu(registers: Registers) -> Cpu {
    let mut legacy = [7; cpu::LEGACY_STATE];
    legacy[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
    Cpu {
        registers,
        legacy: Some(legacy),
        event: None,
    }
}

fn header() -> [u8; record::HEADER_SIZE] {
    let mut bytes = [0; record::HEADER_SIZE];
    bytes[..4].copy_from_slice(&record::MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&record::VERSION.to_le_bytes());
    bytes
}

/// A context of these records.
fn blob(records: &[(u16, u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push(&mut bytes, record::HEADER, 0, &header());
    for (kind, instance, payload) in records {
        push(&mut bytes, *kind, *instance, payload);
    }
    push(&mut bytes, record::END, 0, &[]);
    bytes
}

fn read_one(kind: u16, payload: &[u8]) -> Result<VcpuContext, Errno> {
    let all = read(&blob(&[(kind, 0, payload)]), 1, &LIMITS)?;
    all.into_iter().next().ok_or(Errno::NoData)
}

#[test]
fn registers_come_back_as_they_were() {
    for event in [
        None,
        Some(Event::Nmi),
        Some(Event::Interrupt(0xF3)),
        Some(Event::Exception(14, Some(2))),
        Some(Event::Exception(6, None)),
    ] {
        let cpu = Cpu {
            event,
            ..cpu(long_mode())
        };
        let back = read_one(record::CPU, &cpu.to_record(5)).map(|context| context.cpu);
        assert_eq!(back, Ok(Some(Box::new(cpu))));
    }
}

#[test]
fn a_toolstacks_record_starts_a_pvh_guest() {
    let mut bytes = [0; record::CPU_SIZE];
    put(&mut bytes, record::GENERAL + 8, 0x7000);
    put(&mut bytes, record::RIP, 0x100_0850);
    put(&mut bytes, record::CR0, 0x11);
    let rights = [0xC9B, 0xC93, 0xC93, 0xC93, 0xC93, 0xC93, 0x8B, 0];
    let mut word = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    for (index, rights) in rights.into_iter().enumerate() {
        let limit = if index == segment::TR { 0x67 } else { u32::MAX };
        word(record::LIMITS + 4 * index, limit);
        word(record::RIGHTS + 4 * index, rights);
    }
    let cpu = Cpu::read(&bytes, &LIMITS).expect("a good record");
    let mut wanted = Registers::from(&StartRegisters::pvh(0x100_0850, 0x7000));
    wanted.gdtr.limit = 0;
    wanted.idtr.limit = 0;
    wanted.segments[segment::LDTR].limit = u32::MAX;
    assert_eq!(cpu.registers, wanted);
    assert_eq!(cpu.legacy, None);
}

#[test]
fn registers_that_no_cpu_enters_with_are_refused() {
    type Change = fn(&mut Registers);
    let changes: [Change; 24] = [
        |r| r.rip = 1 << 47,
        |r| r.cr0 &= !cr0::PROTECTED,
        |r| r.cr0 |= cr0::NOT_WRITE_THROUGH,
        |r| r.cr0 |= 1 << 32,
        |r| r.cr3 = 1 << 40,
        |r| r.cr4 &= !cr4::PAE,
        |r| r.cr4 |= cr4::FIVE_LEVELS,
        |r| r.efer &= !efer::LMA,
        |r| r.efer |= 1 << 12,
        |r| r.rflags |= 1 << 3,
        |r| r.rflags |= rflags::VIRTUAL_8086,
        |r| r.dr7 |= 1 << 32,
        |r| r.gdtr.limit = 0x1_0000,
        |r| r.idtr.base = 1 << 47,
        |r| r.sysenter[1] = 1 << 50,
        |r| r.msrs.lstar = 1 << 63,
        |r| r.msrs.tsc_aux = 1 << 32,
        |r| r.segments[segment::CS].attributes |= 1 << 14,
        |r| r.segments[segment::CS].attributes &= !(1 << 7),
        |r| r.segments[segment::SS].attributes ^= 3 << 5,
        |r| r.segments[segment::DS].base = 1 << 32,
        |r| r.segments[segment::GS].base = 1 << 47,
        |r| r.segments[segment::TR].attributes = 0x89,
        |r| r.segments[segment::DS].limit = 0x1234_5678,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut registers = long_mode();
        change(&mut registers);
        let back = read_one(record::CPU, &cpu(registers).to_record(0));
        assert_eq!(back, Err(Errno::Inval), "change {index}");
    }
}

#[test]
fn other_modes_are_taken() {
    let real = Registers::from(&StartRegisters::sipi(0x9F));
    let paged = Registers {
        cr0: cr0::PAGING | cr0::PROTECTED | cr0::EXTENSION_TYPE,
        cr4: cr4::PAE,
        directories: [0x2001, 0, 0x3001, 0],
        ..Registers::from(&StartRegisters::pvh(0x1000, 0))
    };
    let mut old = paged;
    old.rflags |= rflags::VIRTUAL_8086;
    for segment in &mut old.segments[..segment::TR] {
        *segment = self::segment(0x1000, 0xF3, 0xFFFF, 0x1_0000);
    }
    for registers in [real, paged, old] {
        assert_eq!(check::check(&registers, &LIMITS), Ok(()), "{registers:x?}");
    }
    let reserved = Registers {
        directories: [0x2003, 0, 0, 0],
        ..paged
    };
    assert_eq!(check::check(&reserved, &LIMITS), Err(Errno::Inval));
}

#[test]
fn events_that_no_entry_takes_are_refused() {
    for event in [
        Event::Interrupt(15),
        Event::Exception(14, None),
        Event::Exception(6, Some(0)),
        Event::Exception(2, None),
        Event::Exception(32, None),
    ] {
        let cpu = Cpu {
            event: Some(event),
            ..cpu(long_mode())
        };
        assert_eq!(
            read_one(record::CPU, &cpu.to_record(0)),
            Err(Errno::Inval),
            "{event:?}"
        );
    }
    let mut masked = cpu(long_mode());
    masked.registers.rflags &= !rflags::INTERRUPT;
    masked.event = Some(Event::Interrupt(0x40));
    assert_eq!(
        read_one(record::CPU, &masked.to_record(0)),
        Err(Errno::Inval)
    );
}

fn area(present: u64) -> Vec<u8> {
    let mut area = vec![0; LIMITS.xsave_size];
    area[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
    put(&mut area, cpu::LEGACY_STATE, present);
    area[600] = 9;
    area
}

#[test]
fn extended_state_comes_back_and_is_checked() {
    let good = Extended::to_record(0b111, 0b111, &area(0b110));
    let back = read_one(record::CPU_XSAVE, &good).expect("a good record");
    let extended = back.extended.expect("its state");
    assert_eq!((extended.xcr0, &extended.area), (0b111, &area(0b110)));

    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, Errno); 7] = [
        (|r| put(r, record::XSAVE_XCR0, 0b110), Errno::Inval),
        (|r| put(r, record::XSAVE_XCR0, 0b1111), Errno::Inval),
        (|r| put(r, record::XSAVE_AREA + 512, 1 << 9), Errno::Inval),
        (
            |r| put(r, record::XSAVE_AREA + 520, 1 << 63),
            Errno::OpNotSupp,
        ),
        (|r| put(r, record::XSAVE_AREA + 528, 1), Errno::Inval),
        (|r| put(r, record::XSAVE_AREA + 24, 1 << 16), Errno::Inval),
        (|r| r.truncate(500), Errno::Inval),
    ];
    for (index, (change, error)) in changes.into_iter().enumerate() {
        let mut record = good.clone();
        change(&mut record);
        let back = read_one(record::CPU_XSAVE, &record);
        assert_eq!(back, Err(error), "change {index}");
    }
    let mut longer = good.clone();
    longer.resize(good.len() + 64, 0);
    assert!(read_one(record::CPU_XSAVE, &longer).is_ok());
    longer[good.len() + 5] = 1;
    assert_eq!(read_one(record::CPU_XSAVE, &longer), Err(Errno::Inval));
}

#[test]
fn local_apics_and_memory_types_are_checked() {
    const BASE: u64 = 0xFEE0_0900;
    let registers = [0; lapic::REGISTERS];
    let good = lapic::to_record(BASE, &registers);
    // On, but not by software; the timer divides by 2.
    assert_eq!((word(&good, 8), word(&good, 12)), (2, 2));
    assert_eq!(
        read_one(record::LAPIC, &good).map(|context| context.apic_base),
        Ok(Some(BASE))
    );
    for base in [0xFEE0_0500, 0xFED0_0900, 1] {
        let bad = lapic::to_record(base, &registers);
        assert_eq!(read_one(record::LAPIC, &bad), Err(Errno::Inval));
    }
    assert!(read_one(record::LAPIC_REGS, &registers).is_ok());
    for (at, value) in [
        (0x200, 1 << 3),
        (0x100, 1),
        (0xF0, 1 << 9),
        (0x350, 1 << 20),
    ] {
        let mut bad = registers;
        bad[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        assert_eq!(read_one(record::LAPIC_REGS, &bad), Err(Errno::Inval));
    }
    let types = Mtrr {
        pat: reset::PAT,
        variable: core::array::from_fn(|index| if index % 2 == 0 { 0x1006 } else { 0x800 }),
        fixed: [0x0606_0606_0606_0606; 11],
        default: 0xC06,
    };
    let back = read_one(record::MTRR, &types.to_record()).map(|context| context.mtrr);
    assert_eq!(back, Ok(Some(types)));
    for bad in [
        Mtrr { pat: 2, ..types },
        Mtrr {
            default: 0xC02,
            ..types
        },
        Mtrr {
            fixed: [3; 11],
            ..types
        },
    ] {
        assert_eq!(read_one(record::MTRR, &bad.to_record()), Err(Errno::Inval));
    }
}

#[test]
fn a_context_has_a_beginning_an_end_and_known_records() {
    assert_eq!(read(&[], 1, &LIMITS), Err(Errno::NoData));
    let mut whole = blob(&[]);
    assert!(read(&whole, 1, &LIMITS).is_ok());
    whole.truncate(whole.len() - 1);
    assert_eq!(read(&whole, 1, &LIMITS), Err(Errno::NoData));
    whole[8] ^= 1;
    assert_eq!(read(&whole, 1, &LIMITS), Err(Errno::Inval));
    for (kind, instance, payload, error) in [
        (99, 0, &[][..], Errno::Inval),
        (record::HEADER, 0, &header()[..], Errno::Inval),
        (3, 0, &[0; 8][..], Errno::NoDev),
        (record::CPU, 0, &[0; 8][..], Errno::Inval),
        (record::TSC_ADJUST, 7, &[0; 8][..], Errno::Inval),
        (record::TSC_ADJUST, 0, &[1; 8][..], Errno::Inval),
        (record::VMCE_VCPU, 0, &[1; 32][..], Errno::Inval),
        (record::CPU_MSR, 0, &[0, 0, 0][..], Errno::Inval),
    ] {
        let blob = blob(&[(kind, instance, payload)]);
        assert_eq!(read(&blob, 1, &LIMITS), Err(error), "record {kind}");
    }
    let mut msrs = vec![1, 0, 0, 0, 0, 0, 0, 0, 0x48, 0, 0, 0, 0, 0, 0, 0];
    msrs.extend([0; 8]);
    assert!(read_one(record::CPU_MSR, &msrs).is_ok());
    msrs[16] = 1;
    assert_eq!(read_one(record::CPU_MSR, &msrs), Err(Errno::NxIo));
    let cut = [record::CPU as u8, 0, 0, 0, 255, 255, 255, 255];
    let mut bytes = blob(&[]);
    bytes.truncate(32);
    bytes.extend(cut);
    assert_eq!(read(&bytes, 1, &LIMITS), Err(Errno::Inval));
}

#[test]
fn a_later_context_takes_registers_away_and_leaves_the_rest() {
    let mut first = VcpuContext {
        cpu: Some(Box::new(cpu(long_mode()))),
        apic_base: Some(1),
        ..VcpuContext::default()
    };
    first.merge(VcpuContext {
        apic_base: Some(2),
        ..VcpuContext::default()
    });
    assert_eq!((first.cpu, first.apic_base), (None, Some(2)));
}

proptest! {
    #[test]
    fn nothing_panics(records in proptest::collection::vec(
        (0u16..22, 0u16..3, proptest::collection::vec(any::<u8>(), 0..1100)), 0..4)
    ) {
        let records: Vec<(u16, u16, &[u8])> = records
            .iter()
            .map(|(kind, instance, payload)| (*kind, *instance, payload.as_slice()))
            .collect();
        let _ = read(&blob(&records), 2, &LIMITS);
    }
}
