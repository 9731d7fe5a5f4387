//! Xenstore from the guest's side (`public/io/xs_wire.h`): one request at a time, which is waited for.

use oxen_abi::event_channel::cmd;
use oxen_abi::hvm::param;
use oxen_frontend::{Store, Text};

use crate::ring::parameter;
use crate::{events, hypercall};

/// Types of messages (`xsd_sockmsg_type`).
const READ: u32 = 2;
const WATCH: u32 = 4;
const WRITE: u32 = 11;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// Between two looks at the ring.
const LOOK_NANOS: u64 = 1_000_000;
const RING: u32 = 1024;
const REQUESTS: usize = 0;
const RESPONSES: usize = 1024;
const REQUEST_CONSUMER: usize = 2048;
const REQUEST_PRODUCER: usize = 2052;
const RESPONSE_CONSUMER: usize = 2056;
const RESPONSE_PRODUCER: usize = 2060;

/// The domain's ring.
pub struct Xenstore {
    page: usize,
    port: u32,
}

impl Xenstore {
    /// Where the domain's parameters say.
    pub fn open() -> Self {
        let frame = parameter(param::STORE_PFN);
        assert!(frame != 0, "this domain has no xenstore");
        Self {
            page: (frame as usize) << 12,
            port: parameter(param::STORE_EVTCHN) as u32,
        }
    }

    /// Reads a node into `value`; how long it is, if it is there and fits.
    pub fn read(&mut self, path: &str, value: &mut [u8]) -> Option<usize> {
        self.exchange(READ, &[path.as_bytes(), b"\0"], value)
    }

    /// Sets a node; whether that was done.
    pub fn write(&mut self, path: &str, value: &[u8]) -> bool {
        let mut ignored = [0; 16];
        let parts = [path.as_bytes(), b"\0", value];
        self.exchange(WRITE, &parts, &mut ignored).is_some()
    }

    /// Watches a path, by a token; whether that was done. What happens there is not told to anybody.
    pub fn watch(&mut self, path: &str, token: &str) -> bool {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.exchange(WATCH, &parts, &mut [0; 16]).is_some()
    }

    /// Sends a request and waits for its answer. Events of watches in between are dropped.
    fn exchange(&mut self, kind: u32, parts: &[&[u8]], answer: &mut [u8]) -> Option<usize> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // Type, request, transaction, length.
        for word in [kind, 1, 0, length as u32] {
            self.put(&word.to_le_bytes());
        }
        parts.iter().for_each(|part| self.put(part));
        self.notify();
        loop {
            let (kind, length) = self.message(answer);
            self.notify();
            if kind != WATCH_EVENT {
                return (kind != ERROR && length <= answer.len()).then_some(length);
            }
        }
    }

    /// Takes a message into `body`, as far as it fits; its type, and how long it is.
    fn message(&mut self, body: &mut [u8]) -> (u32, usize) {
        let header: [u32; 4] = core::array::from_fn(|_| u32::from_le_bytes(self.take()));
        let length = header[3] as usize;
        for nth in 0..length {
            let [byte] = self.take::<1>();
            if let Some(place) = body.get_mut(nth) {
                *place = byte;
            }
        }
        (header[0], length)
    }

    fn put(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let producer = self.index(REQUEST_PRODUCER);
            while producer.wrapping_sub(self.index(REQUEST_CONSUMER)) >= RING {
                self.notify();
                events::nap(LOOK_NANOS);
            }
            self.byte(REQUESTS, producer, |place| {
                // SAFETY: see `byte`.
                unsafe { place.write_volatile(byte) }
            });
            self.set(REQUEST_PRODUCER, producer.wrapping_add(1));
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| {
            let consumer = self.index(RESPONSE_CONSUMER);
            while self.index(RESPONSE_PRODUCER) == consumer {
                self.notify();
                events::nap(LOOK_NANOS);
            }
            // SAFETY: see `byte`.
            let byte = self.byte(RESPONSES, consumer, |place| unsafe {
                place.read_volatile()
            });
            self.set(RESPONSE_CONSUMER, consumer.wrapping_add(1));
            byte
        })
    }

    fn notify(&mut self) {
        hypercall::event_channel_op(cmd::SEND, &mut { self.port });
    }

    /// A byte of a ring, by its index, which is taken modulo the ring's size: it is inside the page, which is identity-mapped.
    fn byte<T>(&self, ring: usize, index: u32, act: impl FnOnce(*mut u8) -> T) -> T {
        let at = self.page + ring + (index % RING) as usize;
        act(core::ptr::with_exposed_provenance_mut(at))
    }

    fn index(&self, offset: usize) -> u32 {
        // SAFETY: an index in the ring's page. x86 keeps loads in order, and the compiler volatile ones.
        unsafe { self.word(offset).read_volatile() }
    }

    fn set(&self, offset: usize, value: u32) {
        // SAFETY: as for `index`.
        unsafe { self.word(offset).write_volatile(value) }
    }

    fn word(&self, offset: usize) -> *mut u32 {
        core::ptr::with_exposed_provenance_mut(self.page + offset)
    }
}

/// As front ends of PV devices want it.
impl Store for Xenstore {
    fn read(&mut self, path: &str) -> Option<Text> {
        let mut value = [0; Text::new_const().capacity()];
        let length = Self::read(self, path, &mut value)?;
        Text::from(core::str::from_utf8(&value[..length]).ok()?).ok()
    }

    fn write(&mut self, path: &str, value: &str) -> bool {
        Self::write(self, path, value.as_bytes())
    }
}
