//! Where a vCPU's state is while no CPU has it.
//!
//! A CPU that has nothing else to run keeps the state loaded until somebody asks, as the vCPU most often goes on where it
//! was. Nobody waits for a seat with a lock held or with another vCPU loaded, so the one who is waited for always answers.

use alloc::boxed::Box;
use core::any::Any;

use oxen_core::schedule::{self, Asked};

use super::Running;
use crate::cpu;
use crate::virt::Vcpu;

/// A vCPU's state, whatever the backend.
pub type State = Box<dyn Any + Send>;

/// A vCPU's seat.
#[derive(Default)]
pub struct Seat(schedule::Seat<State>);

impl Seat {
    /// The vCPU has been made.
    pub fn fill(&self, state: State) {
        self.0.fill(state);
    }

    /// Takes the state for the calling CPU, which has none loaded; waits until the CPU that has it gives it up. `None` when
    /// the vCPU ends.
    pub fn take<H: Vcpu>(&self) -> Option<Box<Running<H>>> {
        loop {
            // Only vCPUs of this machine's one backend are made.
            match self.had(self.0.take(cpu::current().id())) {
                Asked::Taken(state) => return state.downcast().ok(),
                Asked::Elsewhere(_) => {
                    while self.0.is_awaited() {
                        core::hint::spin_loop();
                    }
                }
                Asked::Gone => return None,
            }
        }
    }

    /// Puts the saved state back.
    pub fn put_back<H: Vcpu>(&self, vcpu: Box<Running<H>>) {
        self.0.put_back(vcpu);
    }

    /// Whether the CPU that has the state is to put it back.
    pub fn is_wanted(&self) -> bool {
        self.0.is_wanted()
    }

    /// Nobody takes the state from now on; the scheduler does not know the vCPU any more, or will not soon.
    pub fn close(&self) {
        self.0.close();
    }

    /// Takes the state of a closed seat for good; `None` as long as a CPU still has it, which is asked for it, and when it
    /// has been taken before.
    pub fn withdraw(&self) -> Option<State> {
        match self.had(self.0.withdraw()) {
            Asked::Taken(state) => Some(state),
            Asked::Elsewhere(_) | Asked::Gone => None,
        }
    }

    /// Whether there is a state anywhere.
    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Makes the CPU look that has the state, where it must.
    fn had(&self, asked: Asked<State>) -> Asked<State> {
        if let Asked::Elsewhere(Some(holder)) = asked
            && let Some(holder) = cpu::percpu::by_id(holder)
        {
            holder.reschedule();
        }
        asked
    }
}
