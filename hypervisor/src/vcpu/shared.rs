//! What other CPUs see of a vCPU: all atomics, so that anyone may post to it at any time.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use oxen_core::apic::PostedInterrupts;
use oxen_core::apic::local::Identity;
use oxen_core::id::{CpuId, VcpuId};
use oxen_core::time::Runstate;
use spin::Mutex;

use super::exits::Counters;
use crate::cpu;
use crate::interrupt::{local_apic, vectors};

/// No start-up interrupt is waiting.
const NO_STARTUP: u32 = u32::MAX;

/// The shared part of a vCPU.
pub struct VcpuShared {
    /// Its number.
    pub id: VcpuId,
    /// The CPU that runs it.
    pub cpu: CpuId,
    /// Interrupts for its local APIC.
    pub posted: PostedInterrupts,
    /// How messages address its local APIC.
    pub identity: Mutex<Identity>,
    /// Time in each run state, and where the guest wants to see it.
    pub runstate: Mutex<Runstate>,
    /// Absolute system time of its one-shot timer; 0 when stopped.
    pub timer: AtomicU64,
    /// Absolute system time at which a poll ends; 0 for none.
    pub poll_deadline: AtomicU64,
    /// Why it left guest mode, and how often.
    pub exits: Counters,
    nmi: AtomicBool,
    init: AtomicBool,
    startup: AtomicU32,
    up: AtomicBool,
}

impl VcpuShared {
    /// A vCPU that is down.
    pub fn new(id: VcpuId, cpu: CpuId, now: u64) -> Self {
        Self {
            id,
            cpu,
            posted: PostedInterrupts::new(),
            identity: Mutex::new(Identity {
                id: id.0.into(),
                ..Identity::default()
            }),
            runstate: Mutex::new(Runstate::new(now)),
            timer: AtomicU64::new(0),
            poll_deadline: AtomicU64::new(0),
            exits: Counters::default(),
            nmi: AtomicBool::new(false),
            init: AtomicBool::new(false),
            startup: AtomicU32::new(NO_STARTUP),
            up: AtomicBool::new(false),
        }
    }

    /// Makes the vCPU look at what was posted to it: interrupts its CPU if that is not this one.
    pub fn kick(&self) {
        let Some(target) = cpu::percpu::by_id(self.cpu) else {
            return;
        };
        if target.attention.swap(true, Ordering::AcqRel) {
            // Someone has already asked and the CPU has not looked yet.
            return;
        }
        if target.id() != cpu::current().id() {
            local_apic::send(target.apic_id(), vectors::ATTENTION);
        }
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
        self.startup.store(NO_STARTUP, Ordering::Release);
        self.init.store(true, Ordering::Release);
        self.kick();
    }

    /// Posts a start-up interrupt.
    pub fn post_startup(&self, vector: u8) {
        self.startup.store(vector.into(), Ordering::Release);
        self.kick();
    }

    /// Takes a posted INIT.
    pub fn take_init(&self) -> bool {
        self.init.swap(false, Ordering::AcqRel)
    }

    /// Takes a posted start-up interrupt.
    pub fn take_startup(&self) -> Option<u8> {
        u8::try_from(self.startup.swap(NO_STARTUP, Ordering::AcqRel)).ok()
    }

    /// Whether INIT or a start-up interrupt waits.
    pub fn control_waits(&self) -> bool {
        self.init.load(Ordering::Acquire) || self.startup.load(Ordering::Acquire) != NO_STARTUP
    }

    /// Whether it has been started and not stopped.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Notes that it was started or stopped.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Release);
    }
}
