//! What keeps the guest from ending itself: a few calls do what they are for, and the run would be over too soon.

use oxen_abi::{numbers, sched, vcpu};

use crate::arguments;
use crate::calls::{self, Call, TOGETHER};
use crate::random::Random;
use crate::vcpus;

/// Words that no call names: what changes them is a fault of the hypervisor, or of this program.
const WORDS: usize = 512;
/// Elements of an array that may be written.
const LONGEST_ARRAY: u64 = 64;
const PATTERN: u64 = 0x0BAD_CAFE_5EED_F00D;

#[repr(C, align(4096))]
struct Canary([u64; WORDS]);

static CANARY: Canary = Canary([PATTERN; WORDS]);

/// Whether the guest's own memory is as it was: one word of it, another one each time.
pub fn own_memory_is_intact() -> bool {
    use core::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let index = NEXT.fetch_add(1, Ordering::Relaxed) % WORDS;
    // SAFETY: inside the array; volatile, as what is looked for is a change that the compiler knows nothing of.
    unsafe {
        (&raw const CANARY.0)
            .cast::<u64>()
            .add(index)
            .read_volatile()
            == PATTERN
    }
}

fn is_block(call: &Call) -> bool {
    call.number == numbers::SCHED_OP && call.arguments[0] & 0xFFFF_FFFF == sched::cmd::BLOCK
}

/// Changes a call that would end the guest, or leave it waiting for ever.
pub fn tame(call: &mut Call, random: &mut Random, own: usize) {
    call.arguments
        .into_iter()
        .for_each(arguments::make_harmless);
    // As wide as `public/*.h` has it: whoever looks at less must not find a command that was not tamed.
    let command = call.arguments[0] & 0xFFFF_FFFF;
    match call.number {
        numbers::SCHED_OP => match command {
            // Only as far as the pointer is looked at.
            sched::cmd::SHUTDOWN | sched::cmd::WATCHDOG => {
                call.arguments[1] = arguments::bad_pointer(random);
            }
            sched::cmd::BLOCK => vcpus::interrupt_self(),
            sched::cmd::POLL => call.arguments[1] = vcpus::poll_argument(random, own),
            _ => {}
        },
        numbers::VCPU_OP => {
            let target = call.arguments[1] as usize;
            let in_use = target < crate::MOST_VCPUS;
            match command {
                vcpu::cmd::GET_RUNSTATE_INFO => call.arguments[2] = vcpus::times(random, own),
                vcpu::cmd::REGISTER_RUNSTATE_AREA => {
                    call.arguments[2] = vcpus::area_argument(random, own);
                }
                // The first one starts the others again, so it must go on; the last one has no code of its own.
                vcpu::cmd::DOWN if target == 0 => call.arguments[1] = u64::MAX,
                vcpu::cmd::UP if !in_use || target == crate::MOST_VCPUS - 1 => {
                    call.arguments[0] = vcpu::cmd::IS_UP;
                }
                _ => {}
            }
        }
        // Each element's status is written: a long array reaches into the image from wherever it begins below.
        numbers::GRANT_TABLE_OP if call.arguments[2] & 0xFFFF_FFFF > LONGEST_ARRAY => {
            call.arguments[1] = arguments::bad_pointer(random);
        }
        // The calls in it come by this function, too, and lie where no other call writes.
        numbers::MULTICALL => {
            let list = if random.one_in(8) {
                arguments::bad_pointer(random)
            } else {
                let mut blocks = false;
                let calls = [(); TOGETHER].map(|()| {
                    let mut call = calls::command(random);
                    // The first one lets interrupts in: if the list is gone on with after a while, the one that is to wake the vCPU from
                    // another has been taken.
                    if is_block(&call) && core::mem::replace(&mut blocks, true) {
                        call.arguments[0] = sched::cmd::YIELD;
                    }
                    tame(&mut call, random, own);
                    call
                });
                vcpus::call_list(&calls, own)
            };
            call.arguments[0] = list;
            call.arguments[1] = random.below(TOGETHER as u64 + 1);
        }
        _ => {}
    }
}
