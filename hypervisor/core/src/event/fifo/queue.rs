//! The words of the FIFO ABI that make up queues: a control block per vCPU, and the links between event words.
//!
//! The guest can write any of them at any time. Nothing read here is ever used as an index, and no loop depends on it.

use crate::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::Errno;
use oxen_abi::event_channel::fifo::{
    BUSY, LINK, LINKED, PRIORITIES, PRIORITY_DEFAULT, control_block,
};

use crate::address::PAGE_SIZE;
use crate::guest_page::GuestPage;
use crate::id::Port;

/// Tries to change a link while the word is marked busy.
///
/// A guest that keeps to the ABI can only mask the port, take its event, raise that again and take it out of the queue
/// meanwhile: five changes are more than it has.
const BUSY_TRIES: usize = 5;

/// A port's priority: a number below [`PRIORITIES`], 0 the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority(u8);

impl Priority {
    /// That of a port that was given none.
    pub const DEFAULT: Self = Self(PRIORITY_DEFAULT);

    /// The priority of that number.
    ///
    /// # Errors
    /// `Inval` if there is none.
    pub fn new(number: u32) -> Result<Self, Errno> {
        u8::try_from(number)
            .ok()
            .filter(|&number| usize::from(number) < PRIORITIES)
            .map(Self)
            .ok_or(Errno::Inval)
    }

    /// As an index of queues.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Where a vCPU finds its queues.
#[derive(Clone, Copy, Debug)]
pub struct ControlBlock {
    page: GuestPage,
    offset: usize,
}

impl ControlBlock {
    /// The control block at an offset of a page.
    ///
    /// # Errors
    /// `Inval` if it is not aligned or crosses the end of the page.
    pub fn new(page: GuestPage, offset: u32) -> Result<Self, Errno> {
        let offset = offset as usize;
        if offset > PAGE_SIZE - control_block::SIZE
            || !offset.is_multiple_of(control_block::ALIGNMENT)
        {
            return Err(Errno::Inval);
        }
        Ok(Self { page, offset })
    }

    /// Begins the queue of a priority with `port`. True if the vCPU had not been told that there is something in it.
    ///
    /// The head is written first: the guest reads it when it has seen the bit.
    pub fn begin(&self, priority: Priority, port: Port) -> bool {
        self.page
            .u32(self.offset + control_block::HEADS + 4 * priority.index())
            .store(port.0, Ordering::Release);
        let bit = 1 << priority.0;
        let ready = self.page.u32(self.offset + control_block::READY);
        ready.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }
}

/// Appends `port` to the queue that ends with the word `tail`. False if the guest has taken that word out of its queue,
/// which is then empty.
///
/// A guest that writes the word all the time gets the same answer, and with it a queue that begins with `port`: it
/// loses events of its own.
pub fn append(tail: &AtomicU32, port: Port) -> bool {
    let mut word = tail.load(Ordering::Acquire);
    match try_append(tail, word, port) {
        Ok(linked) => return linked,
        // From here on the guest may not unmask the port, so that it runs out of changes to make.
        Err(_) => word = tail.fetch_or(BUSY, Ordering::AcqRel) | BUSY,
    }
    for _ in 0..BUSY_TRIES {
        match try_append(tail, word, port) {
            Ok(true) => return true,
            Ok(false) => break,
            Err(now) => word = now,
        }
    }
    tail.fetch_and(!BUSY, Ordering::AcqRel);
    false
}

/// One try, for which the word must still be `word`; else returns what it is. A link that is set takes the busy flag off.
fn try_append(tail: &AtomicU32, word: u32, port: Port) -> Result<bool, u32> {
    if word & LINKED == 0 {
        return Ok(false);
    }
    let linked = word & !(BUSY | LINK) | port.0;
    tail.compare_exchange(word, linked, Ordering::AcqRel, Ordering::Acquire)
        .map(|_| true)
}
