//! The page that a domain shares with the daemon (`xenstore_domain_interface`): a ring of bytes each way.
//!
//! The domain is not trusted and may write anywhere in the page at any time. So every field is an atomic, each index of
//! the domain's is read once and checked, and the daemon's own indices are kept outside of the page.

mod guest;

use std::array::from_fn;
use std::sync::Arc;

use thiserror::Error;

use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};
pub use guest::GuestRing;

/// Bytes of each ring. Loom tries out short ones.
pub const RING_SIZE: usize = if MODELLED { 2 } else { 1024 };
/// The same as the distance of two indices.
const FULL: u32 = if MODELLED { 2 } else { 1024 };
/// Bytes of the page behind the fields.
const UNUSED: usize = if MODELLED { 0 } else { 2020 };

const MODELLED: bool = cfg!(all(test, feature = "loom"));

/// `server_features`: the domain may ask for a reconnection; errors are shown in the page.
const FEATURES: u32 = 0b11;
/// `connection`: all is well.
const CONNECTED: u32 = 0;
/// `connection`: the domain asks to begin anew.
const RECONNECT: u32 = 1;

/// Layout of the page.
#[repr(C)]
// Loom has short stacks.
#[cfg_attr(not(all(test, feature = "loom")), repr(align(4096)))]
#[derive(Debug)]
pub struct RingPage {
    requests: [AtomicU8; RING_SIZE],
    responses: [AtomicU8; RING_SIZE],
    request_consumer: AtomicU32,
    request_producer: AtomicU32,
    response_consumer: AtomicU32,
    response_producer: AtomicU32,
    server_features: AtomicU32,
    connection: AtomicU32,
    error: AtomicU32,
    unused: [AtomicU8; UNUSED],
}

const _: () = assert!(MODELLED || size_of::<RingPage>() == 4096);
const _: () = assert!(MODELLED || std::mem::offset_of!(RingPage, request_consumer) == 2048);
const _: () = assert!(MODELLED || std::mem::offset_of!(RingPage, error) == 2072);

impl Default for RingPage {
    fn default() -> Self {
        Self {
            requests: from_fn(|_| AtomicU8::new(0)),
            responses: from_fn(|_| AtomicU8::new(0)),
            request_consumer: AtomicU32::new(0),
            request_producer: AtomicU32::new(0),
            response_consumer: AtomicU32::new(0),
            response_producer: AtomicU32::new(0),
            server_features: AtomicU32::new(0),
            connection: AtomicU32::new(0),
            error: AtomicU32::new(0),
            unused: from_fn(|_| AtomicU8::new(0)),
        }
    }
}

/// Memory that holds a [`RingPage`].
pub trait SharedPage {
    /// The page.
    fn page(&self) -> &RingPage;
}

impl<T: SharedPage + ?Sized> SharedPage for Box<T> {
    fn page(&self) -> &RingPage {
        (**self).page()
    }
}

impl SharedPage for Arc<RingPage> {
    fn page(&self) -> &RingPage {
        self
    }
}

/// Why a ring is given up; the number is what the page's `error` field shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The event channel or the mapping failed.
    #[error("communication with the domain failed")]
    Communication = 1,
    /// An index is more than the ring's size away from its counterpart.
    #[error("the domain moved a ring index beyond the ring")]
    Index = 2,
    /// What came makes no message.
    #[error("the domain sent what is no xenstore message")]
    Protocol = 3,
}

/// What [`ServerRing::release`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The domain has more room than it knew: notify it.
    pub news: bool,
    /// The domain sent more meanwhile, perhaps without an event: look again.
    pub more: bool,
}

/// The daemon's side of a ring.
#[derive(Debug)]
pub struct ServerRing<P> {
    memory: P,
    consumed: u32,
    produced: u32,
}

impl<P: SharedPage> ServerRing<P> {
    /// Takes up a ring where the page says it is.
    pub fn connect(memory: P) -> Self {
        let page = memory.page();
        let consumed = page.request_consumer.load(Ordering::Relaxed);
        let produced = page.response_producer.load(Ordering::Relaxed);
        Self::resume(memory, consumed, produced)
    }

    /// Takes up a ring where an earlier run of the daemon left it.
    pub fn resume(memory: P, consumed: u32, produced: u32) -> Self {
        let page = memory.page();
        page.request_consumer.store(consumed, Ordering::Relaxed);
        page.error.store(0, Ordering::Relaxed);
        // `connection` stays: a reconnection that the domain has asked for is still to be made.
        page.server_features.store(FEATURES, Ordering::Release);
        Self {
            memory,
            consumed,
            produced,
        }
    }

    /// How far responses are out, as the page says. After a crash of the daemon this may be further than it had noted.
    pub fn shown_producer(memory: &P) -> u32 {
        memory.page().response_producer.load(Ordering::Acquire)
    }

    /// Index up to which requests are taken.
    pub fn consumed(&self) -> u32 {
        self.consumed
    }

    /// Index up to which responses are out.
    pub fn produced(&self) -> u32 {
        self.produced
    }

    /// Takes what the domain sent; the domain may overwrite it only after [`Self::release`].
    pub fn receive(&mut self) -> Result<Vec<u8>, Fault> {
        let page = self.memory.page();
        // Acquire: the bytes are read after the index that covers them.
        let producer = page.request_producer.load(Ordering::Acquire);
        let count = producer.wrapping_sub(self.consumed);
        if count > FULL {
            return Err(Fault::Index);
        }
        let byte =
            |nth: u32| page.requests[slot(self.consumed.wrapping_add(nth))].load(Ordering::Relaxed);
        let bytes = (0..count).map(byte).collect();
        self.consumed = producer;
        Ok(bytes)
    }

    /// Gives the room of all that was received back to the domain.
    pub fn release(&mut self) -> Released {
        let page = self.memory.page();
        let news = page.request_consumer.load(Ordering::Relaxed) != self.consumed;
        // Release: the bytes were read before the domain sees them free.
        page.request_consumer
            .store(self.consumed, Ordering::Release);
        // A domain sends no event for bytes that it adds while `request_consumer` shows earlier ones as unread (Linux
        // does that). So either it sees the new consumer, or this load sees its new producer: both sides order their
        // store before their load.
        fence(Ordering::SeqCst);
        let more = page.request_producer.load(Ordering::Relaxed) != self.consumed;
        Released { news, more }
    }

    /// Sends as much of `bytes` as there is room for, and tells how much. Notify the domain if that is not nothing.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let page = self.memory.page();
        // Acquire: the domain has read what is overwritten from here on.
        let consumer = page.response_consumer.load(Ordering::Acquire);
        let waiting = self.produced.wrapping_sub(consumer);
        let room = FULL.checked_sub(waiting).ok_or(Fault::Index)?;
        let mut end = self.produced;
        for (&byte, _) in bytes.iter().zip(0..room) {
            page.responses[slot(end)].store(byte, Ordering::Relaxed);
            end = end.wrapping_add(1);
        }
        let count = end.wrapping_sub(self.produced);
        self.produced = end;
        // Release: the bytes are there before the index that covers them.
        page.response_producer.store(end, Ordering::Release);
        // A domain sends an event for what it read only if it finds the ring full. The next look at
        // `response_consumer` comes after this store, so one of the two sides sees the other.
        fence(Ordering::SeqCst);
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Whether the domain asks to begin anew.
    pub fn wants_reconnection(&self) -> bool {
        self.memory.page().connection.load(Ordering::Acquire) == RECONNECT
    }

    /// Begins anew: both rings are empty.
    pub fn reconnect(&mut self) {
        let page = self.memory.page();
        for index in [
            &page.request_consumer,
            &page.request_producer,
            &page.response_consumer,
            &page.response_producer,
            &page.error,
        ] {
            index.store(0, Ordering::Relaxed);
        }
        (self.consumed, self.produced) = (0, 0);
        fence(Ordering::Release);
        page.connection.store(CONNECTED, Ordering::Release);
    }

    /// Shows the domain why nobody listens any more.
    pub fn show_fault(&self, fault: Fault) {
        let number = match fault {
            Fault::Communication => 1,
            Fault::Index => 2,
            Fault::Protocol => 3,
        };
        self.memory.page().error.store(number, Ordering::Release);
    }
}

/// Where in a ring the byte with this index is.
fn slot(index: u32) -> usize {
    usize::try_from(index).unwrap_or(0) % RING_SIZE
}

#[cfg(all(test, feature = "loom"))]
mod all_orders;
#[cfg(test)]
mod tests;
