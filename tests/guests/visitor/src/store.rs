//! The guest's end of xenstore (`public/io/xs_wire.h`), as much as it takes to make a node and a watch.

use oxen_abi::hvm::param;
use oxen_guest_runtime::{events, ring};

use crate::nap;

/// Message types (`xsd_sockmsg_type`).
const WATCH: u32 = 4;
const WRITE: u32 = 11;
const WATCH_EVENT: u32 = 15;

const RING: u32 = 1024;
const RESPONSES: usize = 1024;
const REQUEST_CONSUMER: usize = 2048;
const REQUEST_PRODUCER: usize = 2052;
const RESPONSE_CONSUMER: usize = 2056;
const RESPONSE_PRODUCER: usize = 2060;

/// Between two looks at the ring.
const LOOK_NANOS: u64 = 1_000_000;
/// Looks for a byte or for room, before the daemon is given up: it may be away for seconds.
const PATIENCE: u32 = 60_000;

/// The ring and its channel.
pub struct Store {
    page: usize,
    port: u32,
}

impl Store {
    /// By the parameters that the toolstack set.
    pub fn open() -> Self {
        Self {
            page: (ring::parameter(param::STORE_PFN) << 12) as usize,
            port: ring::parameter(param::STORE_EVTCHN) as u32,
        }
    }

    /// Sets a node's value; false if that is refused.
    pub fn write(&mut self, path: &str, value: &[u8]) -> bool {
        self.request(WRITE, &[path.as_bytes(), b"\0", value])
    }

    /// Watches a path.
    pub fn watch(&mut self, path: &str, token: &str) -> bool {
        self.request(WATCH, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"])
    }

    /// Sends a request and waits for its answer. Events of watches in between are dropped.
    fn request(&mut self, kind: u32, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        for word in [kind, 0, 0, length as u32] {
            word.to_le_bytes()
                .into_iter()
                .for_each(|byte| self.put(byte));
        }
        for part in parts {
            part.iter().for_each(|&byte| self.put(byte));
        }
        events::send(self.port);
        loop {
            let [answer, _, _, length] =
                [(); 4].map(|()| u32::from_le_bytes([(); 4].map(|()| self.get())));
            for _ in 0..length {
                self.get();
            }
            if answer != WATCH_EVENT {
                events::send(self.port);
                return answer == kind;
            }
        }
    }

    fn word(&self, offset: usize) -> *mut u32 {
        core::ptr::with_exposed_provenance_mut(self.page + offset)
    }

    /// An index, when the other one is or is not so far from it.
    fn wait(&self, own: usize, far: usize, ready: impl Fn(u32, u32) -> bool) -> u32 {
        for _ in 0..PATIENCE {
            // SAFETY: inside the ring's page, which is identity-mapped.
            let (own, far) = unsafe {
                (
                    self.word(own).read_volatile(),
                    self.word(far).read_volatile(),
                )
            };
            if ready(own, far) {
                return own;
            }
            events::send(self.port);
            nap(LOOK_NANOS);
        }
        panic!("xenstored does not answer")
    }

    fn put(&mut self, byte: u8) {
        let at = self.wait(REQUEST_PRODUCER, REQUEST_CONSUMER, |own, far| {
            own.wrapping_sub(far) < RING
        });
        let place = self.word(0).cast::<u8>().wrapping_add((at % RING) as usize);
        // SAFETY: inside the page; the byte comes before the index that tells of it.
        unsafe {
            place.write_volatile(byte);
            self.word(REQUEST_PRODUCER)
                .write_volatile(at.wrapping_add(1));
        }
    }

    fn get(&mut self) -> u8 {
        let at = self.wait(RESPONSE_CONSUMER, RESPONSE_PRODUCER, |own, far| own != far);
        let place = self
            .word(RESPONSES)
            .cast::<u8>()
            .wrapping_add((at % RING) as usize);
        // SAFETY: as above; the byte is read before its place is given back.
        unsafe {
            let byte = place.read_volatile();
            self.word(RESPONSE_CONSUMER)
                .write_volatile(at.wrapping_add(1));
            byte
        }
    }
}
