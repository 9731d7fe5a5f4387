//! The calls: which there are, and one made at random.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use oxen_abi::{domctl, numbers, platform, sysctl};
use oxen_guest_runtime::{cpu, hypercall};

use crate::random::Random;
use crate::{arguments, guard};

/// Hypercalls with commands, and how many of these there are to try (`public/*.h`; some beyond).
const WITH_COMMANDS: [(u64, u64); 13] = [
    (numbers::MEMORY_OP, 30),
    (numbers::XEN_VERSION, 12),
    (numbers::CONSOLE_IO, 4),
    (numbers::GRANT_TABLE_OP, 16),
    (numbers::VM_ASSIST, 8),
    (numbers::VCPU_OP, 16),
    (numbers::SCHED_OP, 10),
    (numbers::EVENT_CHANNEL_OP, 17),
    (numbers::PHYSDEV_OP, 34),
    (numbers::HVM_OP, 28),
    (numbers::SYSCTL, 32),
    (numbers::DOMCTL, 90),
    (numbers::PLATFORM_OP, 66),
];
/// Where the command is in the structure, with the version of its interface behind it: of these hypercalls, this one.
const VERSIONS: [(u64, u32); 3] = [
    (numbers::SYSCTL, sysctl::INTERFACE_VERSION),
    (numbers::DOMCTL, domctl::INTERFACE_VERSION),
    (numbers::PLATFORM_OP, platform::INTERFACE_VERSION),
];
/// Calls in a `multicall`, at most.
pub const TOGETHER: usize = 4;
/// Commands that were called, a bit each, by the hypercall's place above.
static CALLED: [[AtomicU64; 2]; WITH_COMMANDS.len()] =
    [const { [const { AtomicU64::new(0) }; 2] }; WITH_COMMANDS.len()];
/// Numbers that hypercalls have, and a few that they have not.
const NUMBERS: u64 = 64;

/// A hypercall's registers.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub arguments: [u64; 5],
}

/// One vCPU that makes calls.
pub struct Caller {
    random: Random,
    vcpu: usize,
    succeeded: u64,
    refused: u64,
}

impl Caller {
    /// The vCPU's own sequence of a seed.
    pub fn new(seed: u64, vcpu: usize) -> Self {
        Self {
            random: Random::new(seed, vcpu as u64),
            vcpu,
            succeeded: 0,
            refused: 0,
        }
    }

    /// How the calls so far ended.
    pub fn summary(&self) -> Summary {
        Summary(self.succeeded, self.refused)
    }

    /// Makes the next call. Interrupts are let in behind it.
    pub fn call(&mut self) {
        let random = &mut self.random;
        let mut call = match random.below(36) {
            0..3 => any_number(random),
            3 => Call {
                number: numbers::MULTICALL,
                arguments: [0; 5],
            },
            _ => command(random),
        };
        // What wakes the vCPU from this call must not come before it.
        cpu::interrupts(false);
        guard::tame(&mut call, random, self.vcpu);
        // SAFETY: what the call writes to is memory that holds no objects, see `arguments`.
        let result = unsafe { make(&call) };
        cpu::interrupts(true);
        if result < 0 {
            self.refused += 1;
        } else {
            self.succeeded += 1;
        }
    }
}

/// How many calls succeeded, and how many were refused.
pub struct Summary(u64, u64);

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} done, {} refused", self.0, self.1)
    }
}

/// A command that no call named so far, by its hypercall's number: of many calls, none should be left out.
pub fn left_out() -> Option<(u64, u64)> {
    WITH_COMMANDS
        .iter()
        .zip(&CALLED)
        .find_map(|(&(number, commands), called)| {
            let called = |command: &u64| {
                let word = called[(command / 64) as usize].load(Ordering::Relaxed);
                word >> (command % 64) & 1 != 0
            };
            let command = (0..commands).find(|command| !called(command))?;
            Some((number, command))
        })
}

/// A hypercall with a command: the structure behind its pointer is filled most of the time, left from before otherwise.
pub fn command(random: &mut Random) -> Call {
    let place = random.below(WITH_COMMANDS.len() as u64) as usize;
    let (number, commands) = WITH_COMMANDS[place];
    let command = if random.one_in(16) {
        arguments::number(random)
    } else {
        let command = random.below(commands);
        CALLED[place][(command / 64) as usize].fetch_or(1 << (command % 64), Ordering::Relaxed);
        command
    };
    let pointer = arguments::pointer(random);
    if !random.one_in(6) {
        let pointers = !random.one_in(3);
        arguments::fill(random, pointer, pointers);
    }
    let version = VERSIONS.iter().find(|(known, _)| *known == number);
    if let Some((_, version)) = version {
        arguments::put(pointer, command & 0xFFFF_FFFF | u64::from(*version) << 32);
    }
    let third = arguments::any(random);
    let registers = match number {
        // The structure is the only argument.
        numbers::SYSCTL | numbers::DOMCTL | numbers::PLATFORM_OP => [pointer, command, third, 0, 0],
        // The vCPU comes before the structure.
        numbers::VCPU_OP => [command, vcpu_number(random), pointer, third, 0],
        numbers::GRANT_TABLE_OP => [command, pointer, count(random), third, 0],
        // The command of a continued call has a place to go on in its upper bits.
        numbers::MEMORY_OP if random.one_in(8) => {
            let start = arguments::number(random) << 6;
            [command | start, pointer, third, 0, 0]
        }
        _ => [command, pointer, third, 0, 0],
    };
    Call {
        number,
        arguments: registers,
    }
}

fn any_number(random: &mut Random) -> Call {
    let number = if random.one_in(4) {
        arguments::number(random)
    } else {
        random.below(NUMBERS)
    };
    let mut values = [0; 5];
    for value in &mut values {
        *value = arguments::any(random);
    }
    Call {
        number,
        arguments: values,
    }
}

fn vcpu_number(random: &mut Random) -> u64 {
    if random.one_in(4) {
        arguments::number(random)
    } else {
        random.below(5)
    }
}

fn count(random: &mut Random) -> u64 {
    if random.one_in(4) {
        arguments::number(random)
    } else {
        random.below(4)
    }
}

/// A hypercall with all its registers, any of which the hypervisor may change.
///
/// # Safety
/// What the arguments name may be written.
unsafe fn make(call: &Call) -> i64 {
    let [first, second, third, fourth, fifth] = call.arguments;
    let result;
    // SAFETY: by the caller's promise; all registers that may change are named.
    unsafe {
        if hypercall::is_amd() {
            asm!("vmmcall", inout("rax") call.number => result, inout("rdi") first => _, inout("rsi") second => _,
                inout("rdx") third => _, inout("r10") fourth => _, inout("r8") fifth => _, options(nostack));
        } else {
            asm!("vmcall", inout("rax") call.number => result, inout("rdi") first => _, inout("rsi") second => _,
                inout("rdx") third => _, inout("r10") fourth => _, inout("r8") fifth => _, options(nostack));
        }
    }
    result
}
