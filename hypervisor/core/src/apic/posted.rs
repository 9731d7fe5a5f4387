//! Interrupts on their way to a vCPU's local APIC from other CPUs: posted without a lock, taken by the CPU that runs it.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{LocalApic, Trigger};

/// Posted vectors, with their trigger modes.
#[derive(Debug, Default)]
pub struct PostedInterrupts {
    requested: [AtomicU64; 4],
    level: [AtomicU64; 4],
    outstanding: AtomicBool,
}

impl PostedInterrupts {
    /// Nothing posted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Posts a vector; true if the vCPU must be told to look.
    pub fn post(&self, vector: u8, trigger: Trigger) -> bool {
        let (word, bit) = (usize::from(vector) / 64, 1 << (vector % 64));
        match trigger {
            Trigger::Level => self.level[word].fetch_or(bit, Ordering::Relaxed),
            Trigger::Edge => self.level[word].fetch_and(!bit, Ordering::Relaxed),
        };
        self.requested[word].fetch_or(bit, Ordering::Release);
        !self.outstanding.swap(true, Ordering::AcqRel)
    }

    /// Moves what was posted into the local APIC.
    pub fn drain_into(&self, apic: &mut LocalApic) {
        self.drain(|vector, trigger| apic.accept(vector, trigger));
    }

    fn drain(&self, mut accept: impl FnMut(u8, Trigger)) {
        if !self.outstanding.load(Ordering::Relaxed)
            || !self.outstanding.swap(false, Ordering::AcqRel)
        {
            return;
        }
        for word in 0..4 {
            let mut bits = self.requested[word].swap(0, Ordering::Acquire);
            let level = self.level[word].load(Ordering::Relaxed);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let trigger = if level >> bit & 1 != 0 {
                    Trigger::Level
                } else {
                    Trigger::Edge
                };
                accept((word as u32 * 64 + bit) as u8, trigger);
            }
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod all_orders {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sync::all_orders::model;

    /// A vCPU that looks when it was told to.
    #[derive(Default)]
    struct Vcpu {
        posted: PostedInterrupts,
        told: AtomicBool,
    }

    impl Vcpu {
        fn post(&self, vector: u8, trigger: Trigger) {
            if self.posted.post(vector, trigger) {
                self.told.swap(true, Ordering::AcqRel);
            }
        }

        fn look(&self, accepted: &mut Vec<(u8, Trigger)>) {
            if self.told.swap(false, Ordering::AcqRel) {
                self.posted
                    .drain(|vector, trigger| accepted.push((vector, trigger)));
            }
        }
    }

    #[test]
    fn interrupts_of_two_senders_arrive_with_their_triggers() {
        model(3, || {
            let vcpu = Arc::new(Vcpu::default());
            let all = [(0x31, Trigger::Edge), (0x32, Trigger::Level)];
            let senders = all.map(|(vector, trigger)| {
                let vcpu = vcpu.clone();
                thread::spawn(move || vcpu.post(vector, trigger))
            });
            let mut accepted = Vec::new();
            vcpu.look(&mut accepted);
            for sender in senders {
                sender.join().expect("it ends");
            }
            vcpu.look(&mut accepted);
            accepted.sort_by_key(|(vector, _)| *vector);
            assert_eq!(accepted, all);
        });
    }
}
