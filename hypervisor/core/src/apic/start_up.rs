//! INIT and start-up interrupts on their way to a vCPU.
//!
//! Both are in one word, so that whoever takes them sees what was sent in the order of its sending: a start-up interrupt
//! that was taken without the INIT before it would be lost, as one is that arrives at a running vCPU.

use crate::sync::atomic::{AtomicU32, Ordering};

const INIT: u32 = 1 << 9;
const STARTUP: u32 = 1 << 8;

/// What was sent to a vCPU and not taken yet.
#[derive(Debug)]
pub struct StartUp(AtomicU32);

/// What a vCPU takes: first the INIT, then the start-up interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// It goes to wait for a start-up interrupt.
    pub init: bool,
    /// The vector of one, if it comes behind.
    pub startup: Option<u8>,
}

impl Default for StartUp {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl StartUp {
    /// Posts INIT. It makes what was sent before it void.
    pub fn post_init(&self) {
        self.0.swap(INIT, Ordering::AcqRel);
    }

    /// Posts a start-up interrupt; the last one counts.
    pub fn post_startup(&self, vector: u8) {
        let send = |sent: u32| Some(sent & INIT | STARTUP | u32::from(vector));
        // The function never refuses.
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, send);
    }

    /// Whether anything waits to be taken.
    pub fn waits(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Takes all of it.
    pub fn take(&self) -> Sent {
        if !self.waits() {
            return Sent::default();
        }
        let sent = self.0.swap(0, Ordering::AcqRel);
        Sent {
            init: sent & INIT != 0,
            startup: (sent & STARTUP != 0).then_some(sent as u8),
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn an_init_voids_what_was_before_it_and_keeps_what_comes_behind() {
        let sent = StartUp::default();
        sent.post_startup(1);
        sent.post_init();
        assert!(sent.waits());
        assert_eq!(
            sent.take(),
            Sent {
                init: true,
                startup: None
            }
        );
        sent.post_init();
        sent.post_startup(0);
        sent.post_startup(7);
        assert_eq!(
            sent.take(),
            Sent {
                init: true,
                startup: Some(7)
            }
        );
        assert!(!sent.waits());
        assert_eq!(sent.take(), Sent::default());
    }
}

#[cfg(all(test, feature = "loom"))]
mod all_orders {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sync::all_orders::model;

    #[test]
    fn a_startup_interrupt_is_never_taken_before_its_init() {
        model(3, || {
            let sent = Arc::new(StartUp::default());
            let sender = thread::spawn({
                let sent = sent.clone();
                move || {
                    sent.post_init();
                    sent.post_startup(9);
                }
            });
            // A vCPU that runs takes what it finds, again and again.
            let (mut running, mut started) = (true, None);
            let mut look = || {
                let Sent { init, startup } = sent.take();
                running &= !init;
                if !running && startup.is_some() {
                    started = startup;
                }
            };
            look();
            sender.join().expect("it ends");
            look();
            assert_eq!(started, Some(9));
        });
    }
}
