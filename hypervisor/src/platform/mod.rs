//! The machine around the CPUs: what dom0 may reach of it, and what stays the hypervisor's.

pub mod console_input;
pub mod firmware;
pub mod irq;
pub mod mmio;
pub mod pci;
pub mod pm_timer;
pub mod ports;
pub mod power;

/// Writes all caches of the calling CPU back to memory.
pub fn write_back_caches() {
    // SAFETY: WBINVD changes no content of memory.
    unsafe { core::arch::asm!("wbinvd", options(nostack)) };
}
