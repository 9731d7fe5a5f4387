//! Where a vCPU's state is while no CPU has it.
//!
//! The state has one owner at a time: a CPU takes it out of the seat, loads it, and puts it back once all of it is saved. A
//! CPU that has nothing else to run keeps it loaded until somebody asks, as the vCPU most often goes on where it was.
//! Nobody waits for a seat with a lock held or with another vCPU loaded, so the one who is waited for always answers.

use alloc::boxed::Box;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use oxen_core::id::CpuId;
use spin::Mutex;

use super::Running;
use crate::cpu;
use crate::virt::Vcpu;

/// A vCPU's state, whatever the backend.
pub type State = Box<dyn Any + Send>;

/// No CPU has it.
const NOBODY: u16 = u16::MAX;

/// A vCPU's seat.
pub struct Seat {
    state: Mutex<Option<State>>,
    holder: AtomicU16,
    /// Somebody waits for the state.
    wanted: AtomicBool,
    /// There is a state, here or on a CPU.
    exists: AtomicBool,
    /// The vCPU ends: nobody takes it any more.
    closed: AtomicBool,
}

impl Seat {
    /// One for a vCPU that is yet to be made.
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(None),
            holder: AtomicU16::new(NOBODY),
            wanted: AtomicBool::new(false),
            exists: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The vCPU has been made.
    pub fn fill(&self, state: State) {
        *self.state.lock() = Some(state);
        self.exists.store(true, Ordering::Release);
    }

    /// Takes the state for the calling CPU, which has none loaded; waits until the CPU that has it gives it up. `None` when
    /// the vCPU ends.
    pub fn take<H: Vcpu>(&self) -> Option<Box<Running<H>>> {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            let found = {
                let mut state = self.state.lock();
                if state.is_some() {
                    self.holder.store(cpu::current().id().0, Ordering::Release);
                    self.wanted.store(false, Ordering::Release);
                }
                state.take()
            };
            if let Some(state) = found {
                // Only vCPUs of this machine's one backend are made.
                return state.downcast().ok();
            }
            self.ask();
            core::hint::spin_loop();
        }
    }

    /// Puts the saved state back.
    pub fn put_back<H: Vcpu>(&self, vcpu: Box<Running<H>>) {
        let mut state = self.state.lock();
        self.holder.store(NOBODY, Ordering::Release);
        *state = Some(vcpu);
    }

    /// Whether the CPU that has the state is to put it back.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Nobody takes the state from now on; the scheduler does not know the vCPU any more, or will not soon.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Takes the state of a closed seat for good; `None` as long as a CPU still has it, which is asked for it, and when it
    /// has been taken before.
    pub fn withdraw(&self) -> Option<State> {
        if !self.exists() {
            return None;
        }
        let state = self.state.lock().take();
        if state.is_some() {
            self.exists.store(false, Ordering::Release);
        } else {
            self.ask();
        }
        state
    }

    /// Whether there is a state anywhere.
    pub fn exists(&self) -> bool {
        self.exists.load(Ordering::Acquire)
    }

    /// Makes the CPU that has the state look whether it is wanted, once for each time that somebody takes it.
    fn ask(&self) {
        let holder = CpuId(self.holder.load(Ordering::Acquire));
        if holder.0 == NOBODY || self.wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(holder) = cpu::percpu::by_id(holder) {
            holder.reschedule();
        }
    }
}
