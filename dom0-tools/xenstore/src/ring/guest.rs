//! The other side of a ring.

use super::{FULL, RECONNECT, SharedPage, slot};
use crate::sync::atomic::Ordering;

/// The domain's side of a ring, for tests and simulations.
#[derive(Debug)]
pub struct GuestRing<P>(pub P);

impl<P: SharedPage> GuestRing<P> {
    /// Sends as much as there is room for, and tells how much.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let page = self.0.page();
        let (mut end, start) = (
            page.request_producer.load(Ordering::Relaxed),
            page.request_consumer.load(Ordering::Acquire),
        );
        let room = FULL.saturating_sub(end.wrapping_sub(start));
        let mut count = 0;
        for (&byte, _) in bytes.iter().zip(0..room) {
            page.requests[slot(end)].store(byte, Ordering::Relaxed);
            end = end.wrapping_add(1);
            count += 1;
        }
        page.request_producer.store(end, Ordering::Release);
        count
    }

    /// Takes what the daemon sent.
    pub fn receive(&self) -> Vec<u8> {
        let page = self.0.page();
        let (start, end) = (
            page.response_consumer.load(Ordering::Relaxed),
            page.response_producer.load(Ordering::Acquire),
        );
        let count = end.wrapping_sub(start).min(FULL);
        let byte = |nth: u32| page.responses[slot(start.wrapping_add(nth))].load(Ordering::Relaxed);
        let bytes = (0..count).map(byte).collect();
        page.response_consumer
            .store(start.wrapping_add(count), Ordering::Release);
        bytes
    }

    /// Sets the indices that are the domain's to whatever it likes.
    pub fn set_indices(&self, request_producer: u32, response_consumer: u32) {
        self.0
            .page()
            .request_producer
            .store(request_producer, Ordering::Release);
        self.0
            .page()
            .response_consumer
            .store(response_consumer, Ordering::Release);
    }

    /// Asks to begin anew.
    pub fn ask_reconnection(&self) {
        self.0.page().connection.store(RECONNECT, Ordering::Release);
    }

    /// What the daemon shows: `connection` and `error`.
    pub fn status(&self) -> (u32, u32) {
        (
            self.0.page().connection.load(Ordering::Acquire),
            self.0.page().error.load(Ordering::Acquire),
        )
    }
}
