//! Input from the serial line: dom0's console, and the hypervisor's debug keys after three Ctrl-A.

use arrayvec::ArrayVec;
use oxen_abi::event_channel::Virq;
use spin::Mutex;

use crate::console::{self, serial};
use crate::debug_keys;
use crate::domain;

/// Bytes that wait for dom0; what comes when it is full is lost, as on any serial line.
const CAPACITY: usize = 4096;
const CONTROL_A: u8 = 1;
/// Ctrl-A in a row that switch.
const SWITCH: u8 = 3;

struct Input {
    waiting: ArrayVec<u8, CAPACITY>,
    switches: u8,
    to_hypervisor: bool,
}

static INPUT: Mutex<Input> = Mutex::new(Input {
    waiting: ArrayVec::new_const(),
    switches: 0,
    to_hypervisor: false,
});

/// Takes what has arrived on the serial line.
pub fn poll() {
    let mut input = INPUT.lock();
    let mut for_dom0 = false;
    let mut keys = ArrayVec::<u8, 16>::new();
    while let Some(byte) = serial::read() {
        if byte == CONTROL_A {
            input.switches += 1;
            if input.switches == SWITCH {
                input.switches = 0;
                input.to_hypervisor = !input.to_hypervisor;
                let reader = if input.to_hypervisor {
                    "the hypervisor (h for help)"
                } else {
                    "dom0"
                };
                console::print(format_args!(
                    "input goes to {reader}; Ctrl-A three times switches\n"
                ));
            }
            continue;
        }
        // One or two Ctrl-A were the guest's own.
        for _ in 0..core::mem::take(&mut input.switches) {
            let _ = input.waiting.try_push(CONTROL_A);
        }
        if input.to_hypervisor {
            let _ = keys.try_push(byte);
        } else {
            let _ = input.waiting.try_push(byte);
            for_dom0 = true;
        }
    }
    drop(input);
    if for_dom0 && let Some(dom0) = domain::dom0() {
        dom0.raise_global_virq(Virq::CONSOLE);
    }
    keys.iter().for_each(|&key| debug_keys::press(key));
}

/// Moves waiting bytes to `out`; returns how many.
pub fn take(out: &mut [u8]) -> usize {
    let mut input = INPUT.lock();
    let count = out.len().min(input.waiting.len());
    for (slot, byte) in out.iter_mut().zip(input.waiting.drain(..count)) {
        *slot = byte;
    }
    count
}
