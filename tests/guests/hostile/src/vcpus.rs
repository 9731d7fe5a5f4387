//! The guest's vCPUs: what each needs to take interrupts, and how they keep each other going.

use oxen_abi::vcpu::{self, cmd};
use oxen_abi::{numbers, sched};
use oxen_guest_runtime::events::Clock;
use oxen_guest_runtime::{apic, cpu, hypercall};

use crate::calls::{Call, TOGETHER};
use crate::random::Random;
use crate::{MOST_VCPUS, arguments, traps};

const MSR_GS_BASE: u32 = 0xC000_0101;
const PAGE: u64 = 4096;

/// A vCPU's own page: its `vcpu_info`, the arguments of calls that the others must not change, its state.
#[repr(C, align(4096))]
struct Place {
    info: [u64; 8],
    poll: [u64; 3],
    ports: [u64; 64],
    /// What GS points at: the address of `info`.
    state: u64,
    /// `vcpu_register_runstate_memory_area`.
    area: u64,
    times: [u64; TIMES],
    calls: [MulticallEntry; TOGETHER],
}

/// `multicall_entry`: number, result, six arguments.
type MulticallEntry = [u64; 8];

/// Words where run states are written.
const TIMES: usize = 64;

static mut PLACES: [Place; MOST_VCPUS] = [const {
    Place {
        info: [0; 8],
        poll: [0; 3],
        ports: [0; 64],
        state: 0,
        area: 0,
        times: [0; TIMES],
        calls: [[0; 8]; TOGETHER],
    }
}; MOST_VCPUS];

fn place(vcpu: usize) -> *mut Place {
    (&raw mut PLACES)
        .cast::<Place>()
        .wrapping_add(vcpu % MOST_VCPUS)
}

/// Moves the calling vCPU's information away from the shared page, which calls move about, and lets it take interrupts.
pub fn settle(vcpu: usize) {
    let own = place(vcpu);
    let info = own as u64;
    // SAFETY: the vCPU's own place, before it takes interrupts.
    unsafe { (&raw mut (*own).state).write_volatile(info) };
    cpu::write_msr(
        MSR_GS_BASE,
        own as u64 + core::mem::offset_of!(Place, state) as u64,
    );
    // vcpu_register_vcpu_info: frame u64, offset u32, reserved.
    let argument = [info / PAGE, info % PAGE];
    let result = hypercall::vcpu_op(cmd::REGISTER_VCPU_INFO, vcpu as u32, &argument);
    assert!(result == 0, "register_vcpu_info of vCPU {vcpu}: {result}");
}

/// Has one of the other vCPUs take interrupts, before all else.
pub fn begin(vcpu: usize) {
    traps::load();
    apic::enable();
    settle(vcpu);
    cpu::interrupts(true);
}

/// Starts again what calls have stopped, and wakes what waits.
pub fn revive(vcpus: usize) {
    for vcpu in 1..vcpus {
        hypercall::vcpu_op(cmd::UP, vcpu as u32, &());
    }
    apic::write(
        apic::register::COMMAND,
        apic::TO_OTHERS | apic::ASSERT | u32::from(cpu::APIC_VECTOR),
    );
    hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0);
}

/// Makes sure that the calling vCPU does not wait for ever.
pub fn interrupt_self() {
    apic::write(apic::register::COMMAND, apic::self_interrupt());
}

/// Waits for any interrupt.
pub fn rest() {
    cpu::halt();
}

/// `sched_poll` with ports at random and a time that comes soon, where no other vCPU writes.
pub fn poll_argument(random: &mut Random, vcpu: usize) -> u64 {
    const SOON_NANOS: u64 = 300_000;
    const COUNTS: [u32; 6] = [0, 1, 2, 128, 129, u32::MAX];
    const TIME: usize = 32;
    let own = place(vcpu);
    let (now, _) = Clock::read((own as *const u8).wrapping_add(TIME)).after(0);
    let timeout = if random.one_in(4) {
        1 + random.below(now.max(1))
    } else {
        now + random.below(SOON_NANOS)
    };
    // SAFETY: the vCPU's own place.
    unsafe {
        let ports = &raw mut (*own).ports;
        for index in 0..64 {
            let pair = arguments::number(random) & 0xFFFF_FFFF | random.below(64) << 32;
            (*ports)[index] = pair;
        }
        let list = if random.one_in(8) {
            arguments::bad_pointer(random)
        } else {
            ports as u64
        };
        (&raw mut (*own).poll).write_volatile([list, random.pick(&COUNTS).into(), timeout]);
        &raw const (*own).poll as u64
    }
}

/// Where a vCPU's run states may be written: durations, which are numbers like any other. Found by a later call in the place
/// of a frame or of a pointer, one of 16 ms would lead into the guest's image.
pub fn times(random: &mut Random, vcpu: usize) -> u64 {
    if random.one_in(8) {
        return arguments::bad_pointer(random);
    }
    let room = TIMES * 8 - vcpu::RUNSTATE_SIZE;
    place(vcpu) as u64 + core::mem::offset_of!(Place, times) as u64 + random.below(room as u64)
}

/// The calls as a list for `multicall`, where no other vCPU writes.
pub fn call_list(calls: &[Call; TOGETHER], vcpu: usize) -> u64 {
    let list = calls.map(|call| {
        let [first, second, third, fourth, fifth] = call.arguments;
        [call.number, 0, first, second, third, fourth, fifth, 0]
    });
    let own = place(vcpu);
    // SAFETY: the vCPU's own place.
    unsafe {
        (&raw mut (*own).calls).write_volatile(list);
        &raw const (*own).calls as u64
    }
}

/// `VCPUOP_register_runstate_memory_area` with such a place.
pub fn area_argument(random: &mut Random, vcpu: usize) -> u64 {
    let address = times(random, vcpu);
    let own = place(vcpu);
    // SAFETY: the vCPU's own place.
    unsafe {
        (&raw mut (*own).area).write_volatile(address);
        &raw const (*own).area as u64
    }
}
