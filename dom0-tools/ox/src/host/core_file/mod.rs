//! Memory images of domains: an ELF core file by guest-physical addresses, with the registers where the hypervisor tells them, which
//! `crash`, `gdb` and `readelf` read.

mod elf;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use oxen_xen::domain;
use oxen_xen::foreign::Mapping;
use oxen_xen::memory;
use oxen_xen::privcmd::Privcmd;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Pages that are asked for at once.
const BATCH: u64 = 512;
/// After so many pages in a row that are not there, the next place that is looked at is one of `PLACES`.
const GAP: u64 = 16 << 10;
/// Page numbers at which a PVH guest's memory goes on after a hole: ACPI tables, shared pages, RAM above 4 GiB.
const PLACES: [u64; 3] = [0xF_C000, 0xF_EFF8, LAST_PLACE];
const LAST_PLACE: u64 = 0x10_0000;

/// Guest memory, by pages.
trait Memory {
    /// Highest page number.
    fn last(&self) -> io::Result<u64>;
    /// Pages that there may be.
    fn most(&self) -> io::Result<u64>;
    /// Calls `visit` for each of the `count` pages from `first` on that is there.
    fn pages(
        &self,
        first: u64,
        count: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()>;
}

/// A domain's memory.
struct Domain<'a> {
    privcmd: &'a Privcmd,
    domid: u16,
}

impl Memory for Domain<'_> {
    fn last(&self) -> io::Result<u64> {
        memory::maximum_gpfn(self.privcmd, self.domid)
    }

    fn most(&self) -> io::Result<u64> {
        let info = domain::info(self.privcmd, self.domid)?;
        let gone = || io::Error::new(io::ErrorKind::NotFound, "there is no such domain any more");
        Ok(info.ok_or_else(gone)?.max_pages)
    }

    fn pages(
        &self,
        first: u64,
        count: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let gfns: Vec<u64> = (first..first + count).collect();
        let (mapping, present) = Mapping::map_present(self.privcmd, self.domid, &gfns)?;
        let mut page = [0; PAGE as usize];
        for (nth, gfn) in gfns.into_iter().enumerate() {
            if present.get(nth) == Some(&true) {
                mapping.read(nth * PAGE as usize, &mut page)?;
                visit(gfn, &page)?;
            }
        }
        Ok(())
    }
}

/// Writes the memory of a domain to a new file. One that cannot be written whole is removed again.
pub fn write(privcmd: &Privcmd, domid: u16, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let memory = Domain { privcmd, domid };
    // A hypervisor that does not tell registers is no reason to lose the memory.
    let context = domain::get_hvm_context(privcmd, domid).unwrap_or_else(|error| {
        log::warn!("the registers of domain {domid} are left out: {error}");
        Vec::new()
    });
    fill(&mut file, &memory, &elf::notes(&context)).inspect_err(|_| {
        // What is there of it would be taken for the whole.
        let _ = std::fs::remove_file(path);
    })
}

fn fill(file: &mut File, memory: &dyn Memory, notes: &[u8]) -> io::Result<()> {
    let data = elf::data_start(notes.len());
    let mut runs: Vec<elf::Run> = Vec::new();
    let mut end = data;
    let highest = memory.last()?;
    // A guest may put a page wherever it likes. Its memory is not beyond what it would fill behind the last hole, and the search for it ends.
    let last = highest.min(LAST_PLACE.saturating_add(memory.most()?));
    if highest > last {
        log::warn!("pages beyond {last:#x} are left out: the guest has put some at {highest:#x}");
    }
    let (mut at, mut absent) = (0, 0);
    while at <= last {
        let count = BATCH.min(last + 1 - at);
        let mut seen = 0;
        memory.pages(at, count, &mut |gfn, page| {
            seen += 1;
            let offset = elf::place(&mut runs, gfn, end);
            end = end.max(offset + PAGE);
            // Pages of zeros stay holes of the file.
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, offset)?;
            }
            Ok(())
        })?;
        absent = if seen == 0 { absent + count } else { 0 };
        at += count;
        if absent >= GAP {
            at = PLACES.into_iter().find(|place| *place > at).unwrap_or(at);
            absent = 0;
        }
    }
    file.set_len(end)?;
    file.write_all_at(&elf::head(&runs, notes), 0)?;
    file.flush()
}

#[cfg(test)]
mod tests;
