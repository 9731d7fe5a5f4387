//! Registers that a guest, or its builder, wants a vCPU to start with.

use oxen_abi::domctl::context::CPU_SIZE;
use oxen_abi::vcpu::context::SIZE;
use oxen_core::context::{self, Cpu, Limits};
use oxen_core::registers::{Registers, Segment, cr4, efer, segment};
use oxen_core::start::StartRegisters;

use super::target;

const LIMITS: Limits = Limits {
    cr4: cr4::FIRST | cr4::OSXSAVE | cr4::PCIDE | cr4::SMEP | cr4::SMAP | cr4::FSGSBASE,
    efer: efer::FIRST,
    physical_bits: 40,
    xcr0: 0xE7,
    xsave_size: 2696,
    mxcsr: 0xFFFF,
};

#[test]
fn contexts() {
    target("contexts").iterations(300_000).run(|input| {
        let registers = if input.len() > SIZE {
            Cpu::read(&padded::<CPU_SIZE>(input), &LIMITS).map(|cpu| cpu.registers)
        } else {
            StartRegisters::from_context(&padded::<SIZE>(input)).map(|start| (&start).into())
        };
        registers.map(|registers: Registers| {
            check(&registers);
            (
                registers.cr0 >> 31,
                registers.efer,
                registers.rflags >> 17 & 1,
                registers.segments[segment::CS].attributes,
            )
        })
    });
}

#[test]
fn whole_contexts() {
    target("whole_contexts").iterations(100_000).run(|input| {
        let list = context::read(input, 2, &LIMITS)?;
        let kinds = list.iter().map(|vcpu| {
            if let Some(cpu) = &vcpu.cpu {
                check(&cpu.registers);
            }
            if let Some(extended) = &vcpu.extended {
                assert_eq!(extended.area.len(), LIMITS.xsave_size);
                assert!(extended.xcr0 & 1 != 0 && extended.xcr0 & !LIMITS.xcr0 == 0);
                assert!(extended.area[520..576].iter().all(|&byte| byte == 0));
            }
            (
                vcpu.cpu.is_some(),
                vcpu.extended.is_some(),
                vcpu.apic_base.is_some(),
                vcpu.apic_registers.is_some(),
                vcpu.mtrr.is_some(),
            )
        });
        Ok::<_, oxen_abi::Errno>(kinds.collect::<Vec<_>>())
    });
}

fn padded<const N: usize>(input: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let count = input.len().min(N);
    bytes[..count].copy_from_slice(&input[..count]);
    bytes
}

/// What a CPU wants of a guest's state when it enters it (SDM vol. 3, 27.3.1), told in other words than the checks'. An entry that
/// fails would end the domain long after the call that asked for it.
fn check(registers: &Registers) {
    let has = |register: u64, bit: u32| register >> bit & 1 != 0;
    let (paging, long) = (has(registers.cr0, 31), has(registers.efer, 10));
    assert!(
        !paging || has(registers.cr0, 0),
        "paging without protection"
    );
    assert!(
        !has(registers.cr0, 29) || has(registers.cr0, 30),
        "NW without CD"
    );
    assert_eq!(registers.cr0 >> 32, 0);
    assert_eq!(registers.cr3 >> 52, 0, "no such address");
    if paging {
        assert_eq!(
            long,
            has(registers.efer, 8),
            "LMA is LME while paging is on"
        );
        assert!(!long || has(registers.cr4, 5), "long mode wants PAE");
    } else {
        assert!(!long, "long mode is active only with paging");
    }
    let code = &registers.segments[segment::CS];
    let in_64_bit = long && code.attributes >> 13 & 1 != 0;
    let high = registers.rip as i64 >> 47;
    assert!(if in_64_bit {
        high == 0 || high == -1
    } else {
        registers.rip >> 32 == 0
    });
    let old = has(registers.rflags, 17);
    assert!(has(registers.rflags, 1) && registers.rflags >> 22 == 0);
    assert!(!old || !long && has(registers.cr0, 0));
    assert_eq!((registers.dr7 >> 32, registers.gdtr.limit >> 16), (0, 0));
    for (index, segment) in registers.segments.iter().enumerate() {
        let may_be_unusable = !matches!(index, segment::CS | segment::TR);
        if may_be_unusable && segment.attributes >> 16 & 1 != 0 {
            continue;
        }
        if old && index < segment::TR {
            assert_eq!(segment.base, u64::from(segment.selector) * 16);
            assert_eq!((segment.limit, segment.attributes), (0xFFFF, 0xF3));
            continue;
        }
        if index <= segment::ES || index == segment::SS {
            assert_eq!(segment.base >> 32, 0, "a base beyond 4 GiB");
        }
        fits(segment);
    }
    let task = registers.segments[segment::TR].attributes & 0xF;
    assert!(task == 11 || !long && task == 3);
}

fn fits(segment: &Segment) {
    assert_eq!(segment.attributes & 0xFFFF_0F00, 0, "reserved attributes");
    assert!(segment.attributes & 1 << 7 != 0, "not present");
    let (granular, pages) = (
        segment.attributes & 1 << 15 != 0,
        segment.limit & 0xFFF == 0xFFF,
    );
    assert!(if granular {
        pages
    } else {
        segment.limit >> 20 == 0
    });
}
