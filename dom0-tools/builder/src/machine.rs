//! What a build asks of the hypervisor.

use std::io;

use oxen_xen::domain::CreateDomain;
use oxen_xen::memory::MemoryRange;

/// The hypervisor as far as building a guest needs it. [`crate::Xen`] is the real one; tests have a model that fails where
/// they want it to.
///
/// All methods give the hypervisor's errno as their error.
#[allow(clippy::missing_errors_doc)]
pub trait Machine {
    /// Creates a domain, paused and without memory.
    fn create(&self, domain: &CreateDomain) -> io::Result<u16>;
    /// Destroys it with all that it has.
    fn destroy(&self, domid: u16) -> io::Result<()>;
    /// Makes its vCPUs.
    fn set_max_vcpus(&self, domid: u16, vcpus: u32) -> io::Result<()>;
    /// Limits its memory, in KiB.
    fn set_max_memory(&self, domid: u16, kib: u64) -> io::Result<()>;
    /// Keeps free pages for it; 0 ends the claim.
    fn claim(&self, domid: u16, pages: u64) -> io::Result<()>;
    /// Gives it zeroed extents of 2^`order` pages; the number done.
    fn populate(&self, domid: u16, gfns: &[u64], order: u32) -> io::Result<usize>;
    /// Sets the memory map that it is told.
    fn set_memory_map(&self, domid: u16, map: &[MemoryRange]) -> io::Result<()>;
    /// Copies bytes to a guest-physical address.
    fn write(&self, domid: u16, address: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets an HVM parameter.
    fn set_param(&self, domid: u16, index: u32, value: u64) -> io::Result<()>;
    /// Allocates one of its event channels for the control domain.
    fn alloc_unbound(&self, domid: u16) -> io::Result<u32>;
    /// Grants the console page and the store page (guest frame numbers) to the control domain.
    fn seed_grants(&self, domid: u16, console: u64, store: u64) -> io::Result<()>;
    /// Loads its save records.
    fn set_context(&self, domid: u16, records: &[u8]) -> io::Result<()>;
}
