//! The console ring of an unprivileged domain (`public/io/console.h`), from the guest's side.
//!
//! Its event channel may have been closed or replaced since the last line: it is looked at each time, and bound again to
//! the far end that it had at first.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use oxen_abi::event_channel::{cmd, status};
use oxen_abi::hvm::{self, param};
use oxen_abi::{numbers, sched};

use crate::hypercall::{self, SELF};

const CONTROL_DOMAIN: u16 = 0;
const IN_SIZE: u32 = 1024;
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT: usize = 1024;
const OUT_SIZE: u32 = 2048;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;
/// How often the daemon is waited for, for its end of the channel and for room.
const PATIENCE: u32 = 100_000;

static LOCK: AtomicBool = AtomicBool::new(false);
/// Address of the ring; 0 before its first use.
static PAGE: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);
/// The far end's port; 0 if there was none.
static FAR: AtomicU32 = AtomicU32::new(0);
static TRUSTED: AtomicBool = AtomicBool::new(false);

/// Writes bytes, and waits for room where there is none.
pub fn write(bytes: &[u8]) {
    while LOCK.swap(true, Ordering::Acquire) {
        pause();
    }
    if open() {
        let mut patience = PATIENCE;
        for &byte in bytes {
            while !put(byte) && patience > 0 {
                notify();
                pause();
                patience -= 1;
            }
        }
        notify();
    }
    LOCK.store(false, Ordering::Release);
}

/// Leaves the channel to the daemon, which binds its end anew when it has been started again: for guests whose own calls do
/// not take the channel away.
pub fn trust_channel() {
    TRUSTED.store(true, Ordering::Relaxed);
}

/// Takes a byte that was typed, if there is one. For one reader, after the first [`write`].
pub fn read() -> Option<u8> {
    if PAGE.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: inside the ring's page, which is identity-mapped; the input's bytes begin there, and indices are taken modulo
    // their number.
    unsafe {
        let cons = word(IN_CONS).read_volatile();
        if cons == word(IN_PROD).read_volatile() {
            return None;
        }
        let place = word(0).cast::<u8>().add((cons % IN_SIZE) as usize);
        let byte = place.read_volatile();
        word(IN_CONS).write_volatile(cons.wrapping_add(1));
        Some(byte)
    }
}

/// Finds the ring, the first time; false if the domain has none.
fn open() -> bool {
    if PAGE.load(Ordering::Relaxed) != 0 {
        return true;
    }
    let frame = parameter(param::CONSOLE_PFN);
    let port = parameter(param::CONSOLE_EVTCHN) as u32;
    PORT.store(port, Ordering::Relaxed);
    PAGE.store(frame << 12, Ordering::Relaxed);
    if frame == 0 {
        return false;
    }
    if TRUSTED.load(Ordering::Relaxed) {
        return true;
    }
    // The daemon may not have bound its end yet.
    let bound = (0..PATIENCE).find_map(|_| {
        let far = far_end(port);
        if far.is_none() {
            pause();
        }
        far
    });
    FAR.store(bound.unwrap_or(0), Ordering::Relaxed);
    true
}

/// One of the domain's own HVM parameters; 0 if it cannot be had.
pub fn parameter(index: u32) -> u64 {
    let mut argument = [u64::from(SELF) | u64::from(index) << 32, 0];
    // SAFETY: the argument is exclusively borrowed, and as large as the structure.
    let result = unsafe {
        hypercall::call(
            numbers::HVM_OP,
            hvm::cmd::GET_PARAM,
            argument.as_mut_ptr() as u64,
            0,
        )
    };
    if result == 0 { argument[1] } else { 0 }
}

fn word(offset: usize) -> *mut u32 {
    let page = PAGE.load(Ordering::Relaxed) as usize;
    core::ptr::with_exposed_provenance_mut::<u32>(page + offset)
}

fn put(byte: u8) -> bool {
    // SAFETY: inside the ring's page, which is identity-mapped; indices are taken modulo the ring's size.
    unsafe {
        let (cons, prod) = (
            word(OUT_CONS).read_volatile(),
            word(OUT_PROD).read_volatile(),
        );
        if prod.wrapping_sub(cons) >= OUT_SIZE {
            return false;
        }
        let place = word(OUT).cast::<u8>().add((prod % OUT_SIZE) as usize);
        place.write_volatile(byte);
        word(OUT_PROD).write_volatile(prod.wrapping_add(1));
    }
    true
}

/// Tells the far end, over a new channel if the old one is not there any more.
fn notify() {
    let mut port = PORT.load(Ordering::Relaxed);
    let far = FAR.load(Ordering::Relaxed);
    if far != 0 && far_end(port) != Some(far) {
        port = bind(far).unwrap_or(port);
        PORT.store(port, Ordering::Relaxed);
    }
    hypercall::event_channel_op(cmd::SEND, &mut port);
}

/// The control domain's port that one leads to.
fn far_end(port: u32) -> Option<u32> {
    // evtchn_status: domain u16, port u32; status u32, vcpu u32, far domain u16, far port u32.
    let mut argument = [u32::from(SELF), port, 0, 0, 0, 0];
    let result = hypercall::event_channel_op(cmd::STATUS, &mut argument);
    let leads_there = result == 0
        && argument[2] == status::INTERDOMAIN
        && argument[4] & 0xFFFF == u32::from(CONTROL_DOMAIN);
    leads_there.then_some(argument[5])
}

fn bind(far: u32) -> Option<u32> {
    for victim in 1..8 {
        let mut argument = [u32::from(CONTROL_DOMAIN), far, 0];
        if hypercall::event_channel_op(cmd::BIND_INTERDOMAIN, &mut argument) == 0 {
            return Some(argument[2]);
        }
        // All ports may be taken: one goes.
        let mut victim = victim;
        hypercall::event_channel_op(cmd::CLOSE, &mut victim);
    }
    None
}

/// Lets others run.
pub fn pause() {
    hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0);
}
