//! The build itself: step by step, and back again if one fails.

use std::io::{self, Read};

use oxen_core::kernel::PvhKernel;
use oxen_xen::hvm::param;

use crate::PAGE_SIZE;
use crate::content;
use crate::context;
use crate::error::BuildError;
use crate::extents::{self, Run};
use crate::guest::Guest;
use crate::layout::{CONSOLE_GFN, EXTRA_PAGES, STORE_GFN};
use crate::machine::Machine;

/// Extents asked for in one call.
const BATCH: u64 = 2048;
/// Bytes of a ramdisk read at a time.
const CHUNK: usize = 4 << 20;
const PAGES_PER_MIB: u64 = 256;
const KIB_PER_PAGE: u64 = 4;

/// A ring that a guest shares with a daemon in dom0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Guest frame number of its page.
    pub gfn: u64,
    /// The guest's event channel, meant for dom0 to bind to.
    pub port: u32,
}

/// A guest that was built, still paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Domain number.
    pub domid: u16,
    /// PV console.
    pub console: Ring,
    /// xenstore connection.
    pub store: Ring,
}

impl Guest {
    /// Makes the domain.
    ///
    /// # Errors
    /// The step that failed, and why; the domain is destroyed then.
    pub fn build(self, machine: &impl Machine) -> Result<Built, BuildError> {
        let domid = step("creating the domain", machine.create(&self.domain))?;
        let undo = Undo {
            machine,
            domid,
            armed: true,
        };
        let built = Building {
            machine,
            domid,
            guest: &self,
        }
        .run()?;
        undo.disarm();
        Ok(built)
    }
}

/// Destroys the domain unless the build came to its end.
struct Undo<'a, M: Machine> {
    machine: &'a M,
    domid: u16,
    armed: bool,
}

impl<M: Machine> Undo<'_, M> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl<M: Machine> Drop for Undo<'_, M> {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = self.machine.destroy(self.domid)
        {
            log::error!(
                "domain {} is half built and cannot be destroyed: {error}; try `ox destroy {}`",
                self.domid,
                self.domid
            );
        }
    }
}

struct Building<'a, M: Machine> {
    machine: &'a M,
    domid: u16,
    guest: &'a Guest,
}

impl<M: Machine> Building<'_, M> {
    fn run(&self) -> Result<Built, BuildError> {
        let (machine, domid, guest) = (self.machine, self.domid, self.guest);
        let vcpus = guest.domain.vcpus;
        step("making its vCPUs", machine.set_max_vcpus(domid, vcpus))?;
        let limit = (guest.max_memory_mib * PAGES_PER_MIB + EXTRA_PAGES) * KIB_PER_PAGE;
        step("limiting its memory", machine.set_max_memory(domid, limit))?;
        self.memory()?;
        let map = guest.layout.memory_map();
        step(
            "telling its memory map",
            machine.set_memory_map(domid, &map),
        )?;
        self.contents()?;
        let (store, console) = self.rings()?;
        let start_info = guest.layout.start_info.start as u32;
        let records = context::pvh_entry(guest.entry, start_info);
        step(
            "setting its registers",
            machine.set_context(domid, &records),
        )?;
        Ok(Built {
            domid,
            console,
            store,
        })
    }

    /// Claims all memory before taking any of it: of two builds that want the last page one fails at once.
    fn memory(&self) -> Result<(), BuildError> {
        let layout = &self.guest.layout;
        let extra = layout.extra_gfns();
        self.claim(layout.ram_pages() + extra.len() as u64)?;
        let pages = |ram: &std::ops::Range<u64>| ram.start / PAGE_SIZE..ram.end / PAGE_SIZE;
        for ram in [&layout.low_ram, &layout.high_ram] {
            for run in extents::cover(pages(ram)) {
                self.populate(run)?;
            }
        }
        let done = step(
            "giving it pages for its tables and rings",
            self.machine.populate(self.domid, &extra, 0),
        )?;
        if done < extra.len() {
            return Err(self.out_of_memory());
        }
        self.claim(0)
    }

    fn claim(&self, pages: u64) -> Result<(), BuildError> {
        match self.machine.claim(self.domid, pages) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(self.out_of_memory()),
            // Without claims the memory is simply taken page by page.
            Err(error) if is_unsupported(&error) => Ok(()),
            result => step("claiming memory", result),
        }
    }

    /// Where there is no large extent any more, smaller ones do.
    fn populate(&self, mut run: Run) -> Result<(), BuildError> {
        while run.count > 0 {
            let gfns: Vec<u64> = run.gfns().take(BATCH as usize).collect();
            let result = self.machine.populate(self.domid, &gfns, run.order);
            let all = gfns.len();
            let done = match (result, run.split_first()) {
                (Ok(done), _) => done.min(all),
                (Err(_), Some(_)) => 0,
                (Err(error), None) if error.kind() == io::ErrorKind::OutOfMemory => 0,
                (Err(error), None) => return step("giving it memory", Err(error)),
            };
            run.advance(done as u64);
            if done < all {
                let smaller = run.split_first().ok_or_else(|| self.out_of_memory())?;
                self.populate(smaller)?;
                run.advance(1);
            }
        }
        Ok(())
    }

    fn out_of_memory(&self) -> BuildError {
        BuildError::OutOfMemory {
            wanted_mib: self.guest.memory_mib,
        }
    }

    /// Kernel, start information, ACPI tables and ramdisk.
    fn contents(&self) -> Result<(), BuildError> {
        let (machine, domid, guest) = (self.machine, self.domid, self.guest);
        let kernel = PvhKernel::parse(&guest.kernel)
            .map_err(|cause| BuildError::Config(format!("kernel: {cause}")))?;
        // Memory comes zeroed (`Machine::populate`): bss and rings are as they have to be.
        for segment in kernel.segments() {
            for (address, bytes) in content::runs(segment.address, segment.bytes) {
                step("writing the kernel", machine.write(domid, address, bytes))?;
            }
        }
        let layout = &guest.layout;
        for (address, bytes) in [
            (layout.start_info.start, &guest.start_info),
            (layout.acpi.start, &guest.acpi),
        ] {
            step(
                "writing start information",
                machine.write(domid, address, bytes),
            )?;
        }
        self.ramdisk()
    }

    /// Streams the ramdisk: it may be larger than what dom0 has free.
    fn ramdisk(&self) -> Result<(), BuildError> {
        let Some((path, file)) = &self.guest.ramdisk else {
            return Ok(());
        };
        let range = &self.guest.layout.ramdisk;
        let mut chunk = vec![0; CHUNK];
        let mut at = range.start;
        let mut file: &std::fs::File = file;
        while at < range.end {
            let size = CHUNK.min((range.end - at) as usize);
            file.read_exact(&mut chunk[..size])
                .map_err(|source| BuildError::Read {
                    path: path.clone(),
                    source,
                })?;
            step(
                "writing the ramdisk",
                self.machine.write(self.domid, at, &chunk[..size]),
            )?;
            at += size as u64;
        }
        Ok(())
    }

    /// Event channels, parameters and grants of store and console.
    fn rings(&self) -> Result<(Ring, Ring), BuildError> {
        let ring = |gfn| -> Result<Ring, BuildError> {
            let port = step(
                "allocating its event channels",
                self.machine.alloc_unbound(self.domid),
            )?;
            Ok(Ring { gfn, port })
        };
        let (store, console) = (ring(STORE_GFN)?, ring(CONSOLE_GFN)?);
        for (index, value) in [
            (param::STORE_PFN, store.gfn),
            (param::STORE_EVTCHN, store.port.into()),
            (param::CONSOLE_PFN, console.gfn),
            (param::CONSOLE_EVTCHN, console.port.into()),
        ] {
            let result = self.machine.set_param(self.domid, index, value);
            step("telling it its console and its store", result)?;
        }
        match self.machine.seed_grants(self.domid, console.gfn, store.gfn) {
            // The daemons can map the pages as foreign ones instead.
            Err(error) if is_unsupported(&error) => {
                log::debug!("domain {}: rings are not granted: {error}", self.domid);
            }
            result => step("granting its rings", result)?,
        }
        Ok((store, console))
    }
}

/// Whether the hypervisor does not know the call at all.
fn is_unsupported(error: &io::Error) -> bool {
    const ENOSYS: i32 = 38;
    const EOPNOTSUPP: i32 = 95;
    matches!(error.raw_os_error(), Some(ENOSYS | EOPNOTSUPP))
}

fn step<T>(step: &'static str, result: io::Result<T>) -> Result<T, BuildError> {
    result.map_err(|source| BuildError::Step { step, source })
}

#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod tests;
