//! CPUs that want a vCPU's state and CPUs that idle with it, in all orders of what they do: whoever idles with a state that
//! another wants has been made to look.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::schedule::Attention;
use crate::sync::all_orders::model;

/// A seat and two CPUs.
#[derive(Default)]
struct World {
    seat: Seat<()>,
    attention: [Attention; 2],
    /// Interrupts on their way to the CPUs.
    interrupt: [AtomicBool; 2],
}

const FIRST: CpuId = CpuId(0);
const SECOND: CpuId = CpuId(1);

impl World {
    /// One in which the first CPU has the state and nothing to do.
    fn held_by_first() -> Arc<Self> {
        let world = Self::default();
        world.seat.fill(());
        assert_eq!(world.seat.take(FIRST), Asked::Taken(()));
        Arc::new(world)
    }

    /// Tells the CPU that has the state; whether there was no such CPU.
    fn tell(&self, asked: &Asked<()>) -> bool {
        if let Asked::Elsewhere(Some(cpu)) = asked
            && self.attention[cpu.index()].ask_to_reschedule()
        {
            self.interrupt[cpu.index()].swap(true, Ordering::AcqRel);
        }
        !matches!(asked, Asked::Elsewhere(_))
    }

    /// One round of a CPU that has the state and nothing to do; whether it gave the state up.
    fn round(&self, cpu: CpuId) -> bool {
        self.attention[cpu.index()].begin_round();
        let wanted = self.seat.is_wanted();
        if wanted {
            self.seat.put_back(());
        }
        wanted
    }

    /// The same as often as the CPU does not come to halt.
    fn idle(&self, cpu: CpuId) -> bool {
        loop {
            if self.round(cpu) {
                return true;
            }
            if self.attention[cpu.index()].is_undisturbed() {
                return false;
            }
        }
    }

    /// What has been sent arrives: the CPU goes on if it was interrupted, and sleeps on if not.
    fn go_on(&self, cpu: CpuId) -> bool {
        self.interrupt[cpu.index()].swap(false, Ordering::AcqRel) && self.idle(cpu)
    }
}

#[test]
fn a_cpu_that_idles_with_the_state_hears_of_a_wish() {
    model(3, || {
        let world = World::held_by_first();
        let other = thread::spawn({
            let world = world.clone();
            move || {
                let asked = world.seat.take(SECOND);
                world.tell(&asked)
            }
        });
        let mut given_up = world.idle(FIRST);
        let taken = other.join().expect("it ends");
        given_up = given_up || world.go_on(FIRST);
        assert!(
            taken || given_up,
            "it sleeps with a state that another wants"
        );
    });
}

#[test]
fn a_wish_is_for_the_cpu_that_has_the_state_and_not_for_the_one_before() {
    model(3, || {
        let world = World::held_by_first();
        world.tell(&world.seat.take(SECOND));
        // The first gives it up to the second, which comes to idle with it, while somebody ends the vCPU.
        let ender = thread::spawn({
            let world = world.clone();
            move || world.tell(&world.seat.withdraw())
        });
        assert!(world.idle(FIRST));
        let taken = world.seat.take(SECOND) == Asked::Taken(());
        let mut given_up = taken && world.idle(SECOND);
        // Who ends the vCPU asks again until the state is there.
        let withdrawn = ender.join().expect("it ends") || world.tell(&world.seat.withdraw());
        given_up = given_up || taken && world.go_on(SECOND);
        assert!(
            withdrawn || given_up,
            "the second sleeps with a state that is wanted"
        );
    });
}

#[test]
fn who_waits_without_the_lock_gets_the_state() {
    model(3, || {
        let world = World::held_by_first();
        let other = thread::spawn({
            let world = world.clone();
            move || {
                while !world.tell(&world.seat.take(SECOND)) {
                    while world.seat.is_awaited() {
                        thread::yield_now();
                    }
                }
            }
        });
        let mut given_up = world.idle(FIRST);
        while !given_up {
            thread::yield_now();
            given_up = world.go_on(FIRST);
        }
        other.join().expect("it ends");
    });
}

#[test]
fn one_state_is_had_by_one_cpu() {
    model(3, || {
        let world = World::default();
        world.seat.fill(());
        let world = Arc::new(world);
        let other = thread::spawn({
            let world = world.clone();
            move || world.seat.take(SECOND) == Asked::Taken(())
        });
        let first = world.seat.take(FIRST) == Asked::Taken(());
        assert!(first != other.join().expect("it ends"));
    });
}
