//! A console ring between the daemon and a guest that does as Linux does (`hvc_xen.c`), in all orders of what both do.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
use loom::thread;

use super::*;

/// What both share: four indices, two bytes each way, and an event to the daemon.
#[derive(Default)]
struct Shared {
    indices: [AtomicU32; 4],
    bytes: [AtomicU8; 4],
    to_daemon: AtomicBool,
}

impl Shared {
    fn index(&self, offset: usize) -> &AtomicU32 {
        &self.indices[(offset - IN_CONS) / 4]
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        &self.bytes[if offset < OUT {
            offset
        } else {
            offset - OUT + 2
        }]
    }

    /// What Linux writes of `bytes`: what there is room for, and then an event.
    fn guest_writes(&self, bytes: &[u8]) -> usize {
        let cons = self.index(OUT_CONS).load(Ordering::Relaxed);
        let prod = self.index(OUT_PROD).load(Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let count = bytes
            .len()
            .min((OUT_SIZE - prod.wrapping_sub(cons)) as usize);
        for (at, byte) in (prod..).zip(&bytes[..count]) {
            self.byte(OUT + (at % OUT_SIZE) as usize)
                .store(*byte, Ordering::Relaxed);
        }
        fence(Ordering::Release);
        self.index(OUT_PROD)
            .store(prod.wrapping_add(count as u32), Ordering::Relaxed);
        if count > 0 {
            self.to_daemon.swap(true, Ordering::AcqRel);
        }
        count
    }

    /// What Linux reads: all that there is.
    fn guest_reads(&self) -> Vec<u8> {
        let cons = self.index(IN_CONS).load(Ordering::Relaxed);
        let prod = self.index(IN_PROD).load(Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let bytes = (cons..prod)
            .map(|at| {
                self.byte(IN + (at % IN_SIZE) as usize)
                    .load(Ordering::Relaxed)
            })
            .collect();
        fence(Ordering::SeqCst);
        self.index(IN_CONS).store(prod, Ordering::Relaxed);
        bytes
    }
}

/// The daemon's end, with the orderings of a mapped page.
struct Mapped(Arc<Shared>);

impl Page for Mapped {
    fn load(&self, offset: usize) -> u32 {
        self.0.index(offset).load(Ordering::Acquire)
    }

    fn store(&self, offset: usize, value: u32) {
        self.0.index(offset).store(value, Ordering::SeqCst);
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            *byte = self.0.byte(at).load(Ordering::Relaxed);
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            self.0.byte(at).store(*byte, Ordering::Relaxed);
        }
    }
}

#[test]
fn all_that_a_guest_writes_comes_once_and_in_order() {
    loom::model(|| {
        let shared = Arc::new(Shared::default());
        let mut ring = ConsoleRing::new(Mapped(shared.clone()));
        let guest = shared.clone();
        let guest = thread::spawn(move || {
            // The third byte goes where the first one was, once that was taken.
            let mut sent = guest.guest_writes(&[1, 2]);
            sent += guest.guest_writes(&[3]);
            sent
        });
        let mut got = Vec::new();
        let mut turn = |got: &mut Vec<u8>| {
            // The event first, then the look: as the daemon does it.
            let due = shared.to_daemon.swap(false, Ordering::AcqRel);
            if due {
                got.extend(ring.take().expect("an honest guest"));
            }
            due
        };
        turn(&mut got);
        turn(&mut got);
        let sent = guest.join().expect("no panic");
        while turn(&mut got) {}
        assert_eq!(got, [1, 2, 3][..sent]);
    });
}

#[test]
fn all_that_is_typed_comes_once_and_in_order() {
    loom::model(|| {
        let shared = Arc::new(Shared::default());
        let mut ring = ConsoleRing::new(Mapped(shared.clone()));
        let guest = shared.clone();
        let guest = thread::spawn(move || [guest.guest_reads(), guest.guest_reads()].concat());
        let mut put = ring.put(&[1, 2]).expect("an honest guest");
        put += ring.put(&[3]).expect("an honest guest");
        let mut got = guest.join().expect("no panic");
        got.extend(shared.guest_reads());
        assert_eq!(got, [1, 2, 3][..put]);
    });
}
