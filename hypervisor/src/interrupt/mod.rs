//! Interrupts of the physical machine.
//!
//! The hypervisor runs with interrupts disabled except at one point: the vCPU loop opens a window (`sti; nop; cli`) when
//! an exit says that one is pending, and idles with them enabled. No lock is held there, so a handler may take any.

pub mod exception;
pub mod io_apic;
pub mod local_apic;
pub mod pic;
pub mod table;
pub mod vectors;

use crate::cpu;
use core::sync::atomic::Ordering;

/// Lets the CPU take what interrupts are pending, and disables them again.
pub fn window() {
    // SAFETY: called where no lock is held; handlers return to the NOP with the state they found.
    unsafe { core::arch::asm!("sti", "nop", "cli", options(nostack)) };
}

/// Waits for an interrupt, and takes it. The enable and the halt are one step for the CPU, so that nothing is missed.
pub fn wait() {
    // SAFETY: as for `window`.
    cpu::current().wait(|| unsafe { core::arch::asm!("sti", "hlt", "cli", options(nostack)) });
}

/// The host's reaction to an NMI: counted; a CPU that another told to stop stops here.
pub fn host_nmi() {
    cpu::current().nmis.fetch_add(1, Ordering::Relaxed);
    crate::stop::check_stopped();
}

/// The host's reaction to a machine check: the banks are logged, and the machine stops.
pub fn host_machine_check() -> ! {
    exception::machine_check()
}
