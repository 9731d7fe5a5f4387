//! A domain's guest-physical map on this machine, with the flushes that its changes need.

use core::sync::atomic::{AtomicU64, Ordering};

use oxen_core::address::{Gfn, Mfn};
use oxen_core::memory::p2m::{Format, Kind, MapError, Mapping, P2m, Span, TableMemory, Unlinked};

use crate::cpu;
use crate::cpu::features::{self, Vendor};
use crate::interrupt::{local_apic, vectors};
use crate::memory::{frames, layout};
use crate::virt::vmx;

/// Table frames from the machine's allocator.
pub struct Tables;

impl TableMemory for Tables {
    fn allocate(&mut self) -> Option<Mfn> {
        frames::allocate_zeroed()
    }

    fn release(&mut self, table: Mfn) {
        frames::free(table, 0);
    }

    fn wait_for_walks(&mut self) {
        flush_all();
    }

    fn read(&self, table: Mfn, slot: usize) -> u64 {
        // SAFETY: tables come from `allocate`, lie in the direct map, and slots are below 512; the CPU may set accessed
        // bits at the same time, hence volatile.
        unsafe {
            layout::direct_map_frame(table)
                .cast::<u64>()
                .add(slot)
                .read_volatile()
        }
    }

    fn write(&mut self, table: Mfn, slot: usize, entry: u64) {
        // SAFETY: as for `read`; the map's lock makes this the only writer.
        unsafe {
            layout::direct_map_frame(table)
                .cast::<u64>()
                .add(slot)
                .write_volatile(entry)
        }
    }
}

/// Grows with every change that cached translations must not outlive.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The number that a CPU compares before it enters a guest: if it has changed, cached translations are dropped first.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::SeqCst)
}

/// How this machine's CPUs want the tables, and whether they have 1 GiB pages.
pub fn machine_format() -> (Format, bool) {
    match features::vendor() {
        Vendor::Intel => (Format::Ept, vmx::controls::gigabyte_pages()),
        Vendor::Amd => (Format::Npt, features::gigabyte_pages()),
    }
}

/// The map and its flushes.
pub struct DomainP2m(P2m<Tables>);

impl DomainP2m {
    /// An empty map; `None` without memory for its root.
    pub fn new(format: Format, gigabyte_pages: bool) -> Option<Self> {
        P2m::new(format, Tables, gigabyte_pages).map(Self)
    }

    /// Frame of the root table.
    pub const fn root(&self) -> Mfn {
        self.0.root()
    }

    /// Frames that the tables take.
    pub const fn tables(&self) -> u64 {
        self.0.tables()
    }

    /// Bounds the frames that the tables may take, see [`P2m::limit_tables`].
    pub const fn limit_tables(&mut self, most: u64) {
        self.0.limit_tables(most);
    }

    /// Most frames that the tables may take.
    pub const fn most_tables(&self) -> u64 {
        self.0.most_tables()
    }

    /// What a guest frame leads to.
    pub fn lookup(&self, gfn: Gfn) -> Option<Mapping> {
        self.0.lookup(gfn)
    }

    /// What a guest frame leads to, with all that the same entry maps.
    pub fn lookup_span(&self, gfn: Gfn) -> Option<Span> {
        self.0.lookup_span(gfn)
    }

    /// Whether none of `count` guest frames leads anywhere.
    pub fn is_hole(&self, gfn: Gfn, count: u64) -> bool {
        self.0.is_hole(gfn, count)
    }

    /// Maps where nothing is mapped.
    ///
    /// # Errors
    /// See [`P2m::map`].
    pub fn map(&mut self, gfn: Gfn, mfn: Mfn, count: u64, kind: Kind) -> Result<(), MapError> {
        self.0.map(gfn, mfn, count, kind)
    }

    /// Maps one frame in place of whatever is there.
    ///
    /// # Errors
    /// See [`P2m::map`].
    pub fn replace(&mut self, gfn: Gfn, mfn: Mfn, kind: Kind) -> Result<(), MapError> {
        let was_mapped = self.0.lookup(gfn).is_some();
        self.0.map(gfn, mfn, 1, kind)?;
        if was_mapped {
            flush_all();
        }
        Ok(())
    }

    /// Makes guest frames lead nowhere.
    ///
    /// # Errors
    /// See [`P2m::unmap`].
    pub fn unmap(&mut self, gfn: Gfn, count: u64) -> Result<(), MapError> {
        self.unmap_unflushed(gfn, count)?;
        flush_and_release(self.take_unlinked());
        Ok(())
    }

    /// The same where the caller flushes for many changes at once with [`flush_and_release`], before it lets anybody have the
    /// frames.
    ///
    /// # Errors
    /// See [`P2m::unmap`].
    pub fn unmap_unflushed(&mut self, gfn: Gfn, count: u64) -> Result<(), MapError> {
        self.0.unmap(gfn, count)
    }

    /// Tables that were emptied since, for [`flush_and_release`].
    pub fn take_unlinked(&mut self) -> Unlinked {
        self.0.take_unlinked()
    }
}

impl Drop for DomainP2m {
    /// No vCPU is left that would walk the tables; what CPUs have cached of them goes before the root's next user runs.
    fn drop(&mut self) {
        self.0.release_all();
    }
}

/// Drops translations that are cached, and then gives back tables that nothing leads to any more. They are taken from the
/// map before, as others may take tables out of it meanwhile that this flush is too early for.
pub fn flush_and_release(tables: Unlinked) {
    flush_all();
    for table in tables {
        frames::free(table, 0);
    }
}

/// Returns when no CPU can use a translation from before any more: those in guest mode are made to leave it, those not
/// in guest mode will see the new generation before they enter.
pub fn flush_all() {
    GENERATION.fetch_add(1, Ordering::SeqCst);
    let me = cpu::current().id();
    for other in cpu::percpu::all().filter(|other| other.id() != me) {
        // Before it is interrupted: it may be in the guest again, and for long, as soon as it was.
        let entries = other.entries.load(Ordering::SeqCst);
        if !other.in_guest.load(Ordering::SeqCst) {
            continue;
        }
        local_apic::send(other.apic_id(), vectors::ATTENTION);
        while other.in_guest.load(Ordering::SeqCst)
            && other.entries.load(Ordering::SeqCst) == entries
        {
            core::hint::spin_loop();
        }
    }
}
