//! A ring between a daemon and a domain that sends no more events than Linux does, in all orders of what both do.

use loom::model::Builder;
use loom::thread;

use super::*;
use crate::sync::atomic::AtomicBool;

/// What both share: the page, and an event channel each way.
#[derive(Default)]
struct Shared {
    page: Arc<RingPage>,
    to_daemon: Event,
    to_domain: Event,
}

/// An event that is pending or not.
#[derive(Default)]
struct Event(AtomicBool);

impl Event {
    fn send(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Shared {
    /// The domain sends what there is room for, with an event only if all that it had sent before was taken.
    fn domain_sends(&self, bytes: &[u8]) -> usize {
        let before = self.page.request_producer.load(Ordering::Relaxed);
        let count = GuestRing(self.page.clone()).send(bytes);
        fence(Ordering::SeqCst);
        if self.page.request_consumer.load(Ordering::Relaxed) == before {
            self.to_daemon.send();
        }
        count
    }

    /// The domain takes what there is, with an event only if the ring is, or has become, full.
    fn domain_receives(&self) -> Vec<u8> {
        let before = self.page.response_consumer.load(Ordering::Relaxed);
        let bytes = GuestRing(self.page.clone()).receive();
        fence(Ordering::SeqCst);
        let producer = self.page.response_producer.load(Ordering::Relaxed);
        if producer.wrapping_sub(before) == FULL {
            self.to_daemon.send();
        }
        bytes
    }

    /// The daemon's turns, as long as it has cause for one.
    fn daemon_receives(&self, ring: &mut ServerRing<Arc<RingPage>>, got: &mut Vec<u8>) {
        while self.to_daemon.take() {
            loop {
                got.extend(ring.receive().expect("an honest domain"));
                let released = ring.release();
                if released.news {
                    self.to_domain.send();
                }
                if !released.more {
                    break;
                }
            }
        }
    }

    fn daemon_sends(&self, ring: &mut ServerRing<Arc<RingPage>>, rest: &mut &[u8]) {
        loop {
            match ring.send(rest).expect("an honest domain") {
                0 => break,
                count => *rest = &rest[count..],
            }
            self.to_domain.send();
        }
    }
}

/// Tries all orders with at most so many moments at which a thread is held up though it could go on.
fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

#[test]
fn requests_are_taken_though_a_busy_daemon_gets_no_event() {
    model(4, || {
        let shared = Arc::new(Shared::default());
        let mut ring = ServerRing::connect(shared.page.clone());
        let domain = thread::spawn({
            let shared = shared.clone();
            move || shared.domain_sends(&[1]) + shared.domain_sends(&[2])
        });
        let mut got = Vec::new();
        shared.daemon_receives(&mut ring, &mut got);
        assert_eq!(domain.join().expect("it ends"), 2);
        shared.daemon_receives(&mut ring, &mut got);
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn room_that_the_daemon_gives_back_is_free() {
    model(4, || {
        let shared = Arc::new(Shared::default());
        let mut ring = ServerRing::connect(shared.page.clone());
        shared.domain_sends(&[1, 2]);
        let domain = thread::spawn({
            let shared = shared.clone();
            move || shared.domain_sends(&[3, 4])
        });
        let mut got = Vec::new();
        shared.daemon_receives(&mut ring, &mut got);
        let sent = domain.join().expect("it ends");
        shared.daemon_receives(&mut ring, &mut got);
        assert!(shared.to_domain.take() && [0, 2].contains(&sent));
        assert_eq!(got, [1, 2, 3, 4][..2 + sent]);
    });
}

#[test]
fn responses_arrive_though_the_domain_sends_events_of_full_rings_only() {
    model(4, || {
        let shared = Arc::new(Shared::default());
        let mut ring = ServerRing::connect(shared.page.clone());
        let domain = thread::spawn({
            let shared = shared.clone();
            move || [shared.domain_receives(), shared.domain_receives()].concat()
        });
        // The second message does not fit behind the first.
        shared.daemon_sends(&mut ring, &mut &[1][..]);
        let mut rest = &[2, 3][..];
        shared.daemon_sends(&mut ring, &mut rest);
        let mut got = domain.join().expect("it ends");
        loop {
            if shared.to_domain.take() {
                got.extend(shared.domain_receives());
            } else if shared.to_daemon.take() {
                shared.daemon_sends(&mut ring, &mut rest);
            } else {
                break;
            }
        }
        assert_eq!(got, [1, 2, 3]);
    });
}
