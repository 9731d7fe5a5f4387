//! What other CPUs see of a vCPU: all atomics, so that anyone may post to it at any time.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use oxen_core::apic::local::Identity;
use oxen_core::apic::start_up::Sent;
use oxen_core::apic::{PostedInterrupts, StartUp};
use oxen_core::id::{CpuId, VcpuId};
use oxen_core::schedule::{Handle, RunsOn};
use oxen_core::start::StartRegisters;
use oxen_core::time::{Runstate, RunstateKind};
use spin::{Mutex, Once};

use super::counters::Counters;
use super::schedule::scheduler;
use super::seat::Seat;
use super::snapshot::Snapshot;
use crate::cpu;
use crate::domain::life::Life;
use crate::time;

/// The shared part of a vCPU.
pub struct VcpuShared {
    /// Its number.
    pub id: VcpuId,
    /// Its domain's condition.
    life: Arc<Life>,
    /// Where its state is.
    pub seat: Arc<Seat>,
    /// Interrupts for its local APIC.
    pub posted: PostedInterrupts,
    /// How messages address its local APIC.
    pub identity: Mutex<Identity>,
    /// Time in each run state, and where the guest wants to see it.
    pub runstate: Mutex<Runstate>,
    /// Its one-shot timer.
    pub timer: Deadline,
    /// When a poll ends.
    pub poll_deadline: Deadline,
    /// The CPU that is running it: set before the last look at whether it may, cleared before the last look at whether it
    /// must go on.
    runs_on: RunsOn,
    handle: Once<Handle>,
    /// What it does, and how often.
    pub counters: Counters,
    /// Its state for the control domain, and from it.
    pub snapshot: Snapshot,
    nmi: AtomicBool,
    start_up: StartUp,
    switch: AtomicU8,
    up: AtomicBool,
    /// It has been started once, or given registers to start with.
    initialised: AtomicBool,
    context: Mutex<Option<Box<StartRegisters>>>,
    /// Vector for its events, through its local APIC; 0 for the domain's callback.
    upcall_vector: AtomicU8,
}

/// A moment of system time, kept as the TSC value that is compared with; none is possible.
#[derive(Debug)]
pub struct Deadline(AtomicU64);

impl Deadline {
    const NONE: u64 = u64::MAX;

    /// No moment.
    pub const fn none() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }

    /// Sets it to an absolute system time in nanoseconds; what has passed is due at once.
    pub fn set(&self, nanos: u64) {
        self.0
            .store(time::ticks_at(nanos).min(Self::NONE - 1), Ordering::Relaxed);
    }

    /// Takes it away.
    pub fn clear(&self) {
        self.0.store(Self::NONE, Ordering::Relaxed);
    }

    /// The TSC value, if there is a deadline.
    pub fn ticks(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&ticks| ticks != Self::NONE)
    }

    /// Whether it has come at `now`, a TSC value.
    pub fn is_due(&self, now: u64) -> bool {
        // None is the largest value, which no TSC reaches.
        now >= self.0.load(Ordering::Relaxed)
    }
}

/// What `VCPUOP_up` and `VCPUOP_down` ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Run.
    On,
    /// Stop, and keep all state.
    Off,
}

const SWITCH_NONE: u8 = 0;
const SWITCH_ON: u8 = 1;
const SWITCH_OFF: u8 = 2;

impl VcpuShared {
    /// A vCPU that is down.
    pub fn new(id: VcpuId, life: &Arc<Life>, now: u64) -> Self {
        Self {
            id,
            life: life.clone(),
            seat: Arc::default(),
            posted: PostedInterrupts::new(),
            identity: Mutex::new(Identity {
                id: id.0.into(),
                ..Identity::default()
            }),
            runstate: Mutex::new(Runstate::new(now)),
            timer: Deadline::none(),
            poll_deadline: Deadline::none(),
            runs_on: RunsOn::default(),
            handle: Once::new(),
            counters: Counters::default(),
            snapshot: Snapshot::default(),
            nmi: AtomicBool::new(false),
            start_up: StartUp::default(),
            switch: AtomicU8::new(SWITCH_NONE),
            up: AtomicBool::new(false),
            initialised: AtomicBool::new(false),
            context: Mutex::new(None),
            upcall_vector: AtomicU8::new(0),
        }
    }

    /// Makes the vCPU look at what was posted to it: interrupts the CPU that runs it, or wakes it.
    pub fn kick(&self) {
        match self.runs_on.get_after_post() {
            Some(cpu) => {
                if let Some(cpu) = cpu::percpu::by_id(cpu) {
                    cpu.look_up();
                }
            }
            None => self.wake(),
        }
    }

    /// The same for events and interrupts, which the CPU that runs it looks at before each entry: where that is the calling
    /// one, it does so without being asked.
    pub fn kick_for_entry(&self) {
        match self.runs_on.get_after_post() {
            Some(cpu) if cpu == cpu::current().id() => {}
            _ => self.kick(),
        }
    }

    /// Makes it ready if it waits. One whose domain may not run, or that is down, stays where it is: it looks when that ends.
    /// If somebody waits for its state, it comes to a CPU all the same, which sees that it may not run.
    fn wake(&self) {
        let may_run = self.life.may_run();
        let has_cause = may_run && (self.is_up() || self.control_waits());
        if !has_cause && !self.is_state_wanted() {
            return;
        }
        let Some(handle) = self.handle.get() else {
            return;
        };
        let now = time::nanos();
        let mut runstate = self.runstate.lock();
        let here = cpu::current();
        let waker = here.is_asked.load(Ordering::Relaxed).then(|| here.id());
        let cpu = scheduler().wake_by(handle, waker, now);
        let waits = match runstate.state() {
            RunstateKind::Blocked => may_run,
            // It was paused.
            RunstateKind::Offline => may_run && self.is_up(),
            RunstateKind::Running | RunstateKind::Runnable => false,
        };
        if waits {
            runstate.enter(RunstateKind::Runnable, now);
        }
        drop(runstate);
        if let Some(cpu) = cpu.and_then(cpu::percpu::by_id) {
            cpu.reschedule();
        }
    }

    /// Its domain may not run any more: waiting for a CPU ends, as nothing would come of it.
    pub fn stop_waiting(&self) {
        let mut runstate = self.runstate.lock();
        if runstate.state() == RunstateKind::Runnable && !self.life.may_run() {
            runstate.enter(RunstateKind::Offline, time::nanos());
        }
    }

    /// The CPU that is running it.
    pub fn runs_on(&self) -> Option<CpuId> {
        self.runs_on.get()
    }

    /// Notes which CPU is running it. What is looked at behind this is looked at later.
    pub fn set_runs_on(&self, cpu: Option<CpuId>) {
        self.runs_on.set(cpu);
    }

    /// The scheduler's name for it, once it has been made.
    pub fn handle(&self) -> Option<&Handle> {
        self.handle.get()
    }

    /// Sets that.
    pub fn set_handle(&self, handle: Handle) {
        self.handle.call_once(|| handle);
    }

    /// The CPU that runs it, or did last.
    pub fn cpu(&self) -> CpuId {
        self.handle.get().map_or(CpuId(0), Handle::cpu)
    }

    /// Posts an NMI.
    pub fn post_nmi(&self) {
        self.nmi.store(true, Ordering::Release);
        self.kick();
    }

    /// Whether an NMI waits.
    pub fn nmi_waits(&self) -> bool {
        self.nmi.load(Ordering::Acquire)
    }

    /// Takes the waiting NMI.
    pub fn take_nmi(&self) -> bool {
        self.nmi.swap(false, Ordering::AcqRel)
    }

    /// Posts INIT: the vCPU goes to wait for a start-up interrupt.
    pub fn post_init(&self) {
        self.start_up.post_init();
        self.kick();
    }

    /// Posts a start-up interrupt.
    pub fn post_startup(&self, vector: u8) {
        self.start_up.post_startup(vector);
        self.kick();
    }

    /// Takes INIT and start-up interrupts.
    pub fn take_start_up(&self) -> Sent {
        self.start_up.take()
    }

    /// Whether INIT, a start-up interrupt, a switch or state to load waits.
    pub fn control_waits(&self) -> bool {
        self.start_up.waits()
            || self.switch.load(Ordering::Acquire) != SWITCH_NONE
            || self.has_given_state()
    }

    /// Posts a switch; the last one counts.
    pub fn post_switch(&self, switch: Switch) {
        let value = match switch {
            Switch::On => SWITCH_ON,
            Switch::Off => SWITCH_OFF,
        };
        self.switch.store(value, Ordering::Release);
        self.kick();
    }

    /// Takes a posted switch.
    pub fn take_switch(&self) -> Option<Switch> {
        match self.switch.swap(SWITCH_NONE, Ordering::AcqRel) {
            SWITCH_ON => Some(Switch::On),
            SWITCH_OFF => Some(Switch::Off),
            _ => None,
        }
    }

    /// Whether it has something to run, or to go on with.
    pub fn is_initialised(&self) -> bool {
        self.initialised.load(Ordering::Acquire)
    }

    /// Gives it registers to start with; false if it has been given some, or started, before.
    pub fn set_context(&self, context: Box<StartRegisters>) -> bool {
        let mut place = self.context.lock();
        if self.initialised.swap(true, Ordering::AcqRel) {
            return false;
        }
        *place = Some(context);
        true
    }

    /// Takes those registers.
    pub fn take_context(&self) -> Option<Box<StartRegisters>> {
        self.context.lock().take()
    }

    /// The vector for its events through its local APIC, if the guest asked for one.
    pub fn upcall_vector(&self) -> Option<u8> {
        match self.upcall_vector.load(Ordering::Acquire) {
            0 => None,
            vector => Some(vector),
        }
    }

    /// Sets it.
    pub fn set_upcall_vector(&self, vector: u8) {
        self.upcall_vector.store(vector, Ordering::Release);
    }

    /// Whether it has been started and not stopped.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Notes that it was started or stopped.
    pub fn set_up(&self, up: bool) {
        if up {
            self.initialised.store(true, Ordering::Release);
        }
        self.up.store(up, Ordering::Release);
    }
}
