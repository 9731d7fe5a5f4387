//! vCPUs that wait for one of a few ports (`SCHEDOP_poll`).

use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use oxen_abi::sched::POLL_PORTS;
use spin::Mutex;

use crate::id::Port;

/// What one vCPU polls for.
///
/// A poller arms this and then looks at the pending bits; a sender sets its pending bit and then looks here. Both do so
/// sequentially consistently, so whatever the order, at least one sees the other and no wake-up is lost.
pub struct Poll {
    active: AtomicBool,
    ports: Mutex<ArrayVec<Port, { POLL_PORTS as usize }>>,
}

impl Poll {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            active: AtomicBool::new(false),
            ports: Mutex::new(ArrayVec::new_const()),
        }
    }

    /// Waits for the given ports from now on. False if there are too many.
    pub fn arm(&self, ports: &[Port]) -> bool {
        let mut list = self.ports.lock();
        list.clear();
        if list.try_extend_from_slice(ports).is_err() {
            return false;
        }
        self.active.store(true, Ordering::SeqCst);
        true
    }

    /// Whether the wait goes on.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::SeqCst)
    }

    /// Ends the wait; true for the one caller that ended it.
    pub fn end(&self) -> bool {
        self.is_active() && self.active.swap(false, Ordering::SeqCst)
    }

    /// Ends the wait if it is for `port`; true for the one caller that ended it.
    pub fn end_for(&self, port: Port) -> bool {
        self.is_active() && self.ports.lock().contains(&port) && self.end()
    }
}
