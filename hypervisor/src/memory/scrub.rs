//! Scrubbing: CPUs with nothing to run clear frames that were given back, so that the next domain's need no clearing.
//!
//! The memory that is free when the machine starts is not cleared so, but when it is taken for the first time: an emulated
//! machine's CPUs share one of the host's, so that an idle one that clears holds up the others, and a virtual machine's memory
//! costs the host none before it is written.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::frames;
use crate::cpu;

/// Frames of a piece that is cleared before the CPU looks for other work, as a power of two: 32 KiB.
const PIECE: u32 = 3;

/// There may be something to scrub.
static IS_DUE: AtomicBool = AtomicBool::new(false);
/// CPUs that wait for pieces which are being cleared.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// Whether there may be something to scrub.
pub fn is_due() -> bool {
    IS_DUE.load(Ordering::Relaxed)
}

/// Something was given back, by a call that is over.
pub fn set_due() {
    IS_DUE.store(true, Ordering::Relaxed);
}

/// A lot was given back: CPUs that have halted look for it too.
pub fn call_idle_cpus() {
    for cpu in cpu::percpu::all().filter(|cpu| cpu.idle.load(Ordering::Relaxed)) {
        cpu.look_up();
    }
}

/// Clears a piece; whether there was one. No interrupt is taken meanwhile: whoever waits for the piece could not go on.
pub fn clear_piece() -> bool {
    if WAITING.load(Ordering::Relaxed) != 0 {
        core::hint::spin_loop();
        return true;
    }
    // Before the look: what is given back behind it makes it due again.
    IS_DUE.store(false, Ordering::Relaxed);
    let Some((first, order)) = frames::with(|frames| frames.take_dirty(PIECE)).flatten() else {
        return false;
    };
    frames::zero(first, 1 << order);
    frames::with(|frames| frames.put_back(first, order));
    set_due();
    true
}

/// Tries again as long as a try fails while pieces are being cleared, which it says by `Err(true)`. No more are begun meanwhile.
#[cold]
pub fn wait_for_pieces<R>(try_once: impl Fn() -> Result<R, bool>) -> Option<R> {
    WAITING.fetch_add(1, Ordering::Relaxed);
    let result = loop {
        match try_once() {
            Ok(found) => break Some(found),
            Err(true) => core::hint::spin_loop(),
            Err(false) => break None,
        }
    };
    WAITING.fetch_sub(1, Ordering::Relaxed);
    result
}
