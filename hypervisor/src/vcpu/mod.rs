//! Virtual CPUs: what other CPUs see of them, and what only the CPU that runs them touches.

pub mod counters;
pub mod cpuid;
pub mod exits;
pub mod interrupts;
pub mod io;
pub mod mmio;
pub mod msr;
pub mod run;
pub mod schedule;
pub mod seat;
pub mod shared;
pub mod snapshot;

use alloc::sync::Arc;

use oxen_core::apic::LocalApic;

use crate::cpu::{self, fpu};
use crate::domain::Domain;
use crate::domain::control::PolicyCopy;
use crate::memory::HostPages;
use crate::virt::{Exception, Gprs, StartRegisters, Vcpu};

pub use shared::VcpuShared;

/// A vCPU as the CPU that runs it holds it.
pub struct Running<H> {
    /// Its domain.
    pub domain: Arc<Domain>,
    /// Index in [`Domain::vcpus`].
    pub index: usize,
    /// What is there: every exit looks at it, and should not have to look it up.
    pub shared: Arc<VcpuShared>,
    /// Hardware state.
    pub hardware: H,
    /// General-purpose registers.
    pub gprs: Gprs,
    /// Floating-point state while another vCPU has the CPU.
    pub fpu: fpu::State,
    /// DR0 to DR3 while another vCPU has the CPU.
    pub debug_registers: [u64; 4],
    /// Where it is to start, once it is loaded.
    pub start: Option<StartRegisters>,
    /// The emulated local APIC.
    pub apic: LocalApic,
    /// Keeps the local APIC's register page from other use.
    pub _apic_page: HostPages,
    /// Why it does not run, if so.
    pub wait: Wait,
    /// It gave up the rest of its slice.
    pub yields: bool,
    /// MTRR and other registers that guests set and read back.
    pub kept: msr::Kept,
    /// What CPUID shows it, if not what all guests are shown.
    pub cpu_policy: PolicyCopy,
    /// What wakes it, while it waits for a moment too.
    pub set_timer: Option<schedule::SetTimer>,
    /// Generation of guest-physical maps that its cached translations are of.
    pub map_generation: u64,
}

/// Why a vCPU does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It runs or waits for its turn.
    Ready,
    /// HLT: until an interrupt that it can take, or an NMI.
    Halted,
    /// SCHEDOP_poll: until one of its ports is pending or the time has come.
    Polling,
    /// Not started, or stopped.
    Down,
}

impl<H> Drop for Running<H> {
    fn drop(&mut self) {
        if let Some(timer) = self.set_timer.take() {
            schedule::cancel_timer(timer);
        }
    }
}

impl<H: Vcpu> Running<H> {
    /// What other CPUs see.
    pub fn shared(&self) -> &VcpuShared {
        &self.shared
    }

    /// Starts or restarts the vCPU, as soon as it has the CPU.
    pub fn start(&mut self, start: StartRegisters) {
        self.start = Some(start);
        self.wait = Wait::Ready;
        self.shared().set_up(true);
    }

    /// Lets others go first that wait for the CPU; goes on at once if nobody does.
    pub fn yield_turn(&mut self) {
        self.yields = schedule::scheduler().is_waited_for(cpu::current().id());
    }

    /// Whether it is ready and its domain may run.
    pub fn may_run(&self) -> bool {
        self.wait == Wait::Ready && self.domain.life.may_run()
    }

    /// Raises #GP(0) in the guest.
    pub fn general_protection(&mut self) {
        self.hardware.raise(Exception::GENERAL_PROTECTION);
    }
}
