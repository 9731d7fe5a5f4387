//! Posters and the CPU that runs a vCPU, in all orders of what they do: nothing posted stays unseen.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use super::*;
use crate::sync::all_orders::model;

const CPU: CpuId = CpuId(0);

/// A vCPU, the CPU that may run it, and what of the scheduler matters for waking.
#[derive(Default)]
struct World {
    runs_on: RunsOn,
    attention: Attention,
    /// An interrupt on its way to the CPU.
    interrupt: AtomicBool,
    posted: [AtomicBool; 2],
    state: Mutex<State>,
}

/// The scheduler's view of the vCPU.
#[derive(Default)]
struct State {
    /// It does not wait.
    ready: bool,
    /// It was woken while it did not wait: it may not begin to.
    woken: bool,
}

impl World {
    /// One whose vCPU has just been picked.
    fn picked() -> Arc<Self> {
        let world = Self::default();
        world.state.lock().expect("no test panics here").ready = true;
        Arc::new(world)
    }

    fn post(&self, item: usize) {
        self.posted[item].store(true, Ordering::Release);
        match self.runs_on.get_after_post() {
            Some(_) => {
                if self.attention.ask() {
                    self.interrupt.swap(true, Ordering::AcqRel);
                }
            }
            None => {
                let mut state = self.state.lock().expect("no test panics here");
                state.woken |= state.ready;
                state.ready = true;
            }
        }
    }

    /// Looks at what was posted.
    fn look(&self, seen: &mut [bool; 2]) {
        for (posted, seen) in self.posted.iter().zip(seen) {
            *seen |= posted.load(Ordering::Acquire);
        }
    }

    /// From being picked to the entry.
    fn enter(&self, seen: &mut [bool; 2]) {
        self.runs_on.set(Some(CPU));
        self.look(seen);
        while self.attention.take() {
            self.look(seen);
        }
    }

    /// The guest waits: the vCPU comes to rest, unless it was woken meanwhile.
    fn leave(&self, seen: &mut [bool; 2]) {
        self.runs_on.set(None);
        self.look(seen);
        let mut state = self.state.lock().expect("no test panics here");
        state.ready = std::mem::take(&mut state.woken);
    }
}

#[test]
fn a_guest_that_runs_on_is_interrupted_for_what_is_posted() {
    model(3, || {
        let world = World::picked();
        let posters = [0, 1].map(|item| {
            let world = world.clone();
            thread::spawn(move || world.post(item))
        });
        let mut seen = [false; 2];
        world.enter(&mut seen);
        for poster in posters {
            poster.join().expect("it ends");
        }
        // Nothing but an interrupt makes it leave the guest.
        if world.interrupt.swap(false, Ordering::AcqRel) && world.attention.take() {
            world.look(&mut seen);
        }
        // One that was posted before the CPU said that it runs the vCPU wakes it.
        let ready = world.state.lock().expect("no test panics here").woken;
        assert!(seen == [true; 2] || ready, "{seen:?}");
    });
}

#[test]
fn a_vcpu_that_comes_to_rest_has_seen_what_was_posted_or_is_woken() {
    model(3, || {
        let world = World::picked();
        let poster = thread::spawn({
            let world = world.clone();
            move || world.post(0)
        });
        let mut seen = [false; 2];
        world.enter(&mut seen);
        world.leave(&mut seen);
        poster.join().expect("it ends");
        let ready = world.state.lock().expect("no test panics here").ready;
        assert!(seen[0] || ready, "asleep with something posted");
    });
}

#[test]
fn a_request_to_reschedule_is_heeded_by_a_round_that_sees_its_cause() {
    model(3, || {
        let world = World::picked();
        let poster = thread::spawn({
            let world = world.clone();
            move || {
                world.posted[0].store(true, Ordering::Release);
                if world.attention.ask_to_reschedule() {
                    world.interrupt.swap(true, Ordering::AcqRel);
                }
            }
        });
        let mut seen = [false; 2];
        world.attention.begin_round();
        world.look(&mut seen);
        poster.join().expect("it ends");
        let asked = world.interrupt.swap(false, Ordering::AcqRel);
        if asked && world.attention.take() && world.attention.must_reschedule() {
            world.attention.begin_round();
            world.look(&mut seen);
        }
        assert!(seen[0], "the cause was missed");
    });
}
