//! Registers that a guest, or its builder, wants a vCPU to start with.

use oxen_abi::domctl::context::CPU_SIZE;
use oxen_abi::vcpu::context::SIZE;
use oxen_core::start::{Segment, StartRegisters};

use super::target;

#[test]
fn contexts() {
    target("contexts").iterations(300_000).run(|input| {
        let registers = if input.len() > SIZE {
            StartRegisters::from_record(&padded::<CPU_SIZE>(input))
        } else {
            StartRegisters::from_context(&padded::<SIZE>(input))
        };
        registers.map(|registers| {
            check(&registers);
            (
                registers.cr0 >> 31,
                registers.efer,
                registers.code.attributes,
            )
        })
    });
}

fn padded<const N: usize>(input: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let count = input.len().min(N);
    bytes[..count].copy_from_slice(&input[..count]);
    bytes
}

/// What a CPU wants of a guest's state when it enters it (SDM vol. 3, 27.3.1). An entry that fails would end the domain
/// long after the call that asked for it.
fn check(start: &StartRegisters) {
    let has = |register: u64, bit: u32| register >> bit & 1 != 0;
    let (paging, long) = (has(start.cr0, 31), has(start.efer, 10));
    assert!(!paging || has(start.cr0, 0), "paging without protection");
    assert!(!has(start.cr0, 29) || has(start.cr0, 30), "NW without CD");
    assert_eq!(start.cr0 >> 32, 0);
    assert_eq!(start.cr3 >> 52, 0, "no such address");
    if paging {
        assert_eq!(long, has(start.efer, 8), "LMA is LME while paging is on");
        assert!(!long || has(start.cr4, 5), "long mode wants PAE");
    } else {
        assert!(!long, "long mode is active only with paging");
    }
    assert_eq!(
        start.code.attributes >> 13 & 1 != 0,
        long,
        "64-bit code is for long mode"
    );
    let high = start.rip as i64 >> 47;
    assert!(if long {
        high == 0 || high == -1
    } else {
        start.rip >> 32 == 0
    });
    assert!(has(start.rflags, 1) && !has(start.rflags, 17) && start.rflags >> 22 == 0);
    for segment in [&start.code, &start.data, &start.stack, &start.extra] {
        fits(segment);
    }
    fits(&start.task);
    assert!(start.task.attributes & 0xF == 11 || !long && start.task.attributes & 0xF == 3);
}

fn fits(segment: &Segment) {
    assert_eq!(segment.base >> 32, 0, "a base beyond 4 GiB");
    assert_eq!(segment.attributes & 0xFFFE_0F00, 0, "reserved attributes");
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
