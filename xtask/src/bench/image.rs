//! The size of the hypervisor's image, by section.

use std::fs;

use anyhow::{Context, Result, anyhow};
use xmas_elf::ElfFile;
use xmas_elf::sections::SHF_ALLOC;

use super::{Bench, Row};

/// Sections that are loaded, and their sum.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let bytes = fs::read(&bench.hypervisor)
        .with_context(|| format!("{} cannot be read", bench.hypervisor.display()))?;
    let broken = |why: &'static str| anyhow!("{}: {why}", bench.hypervisor.display());
    let elf = ElfFile::new(&bytes).map_err(broken)?;
    let mut rows = Vec::new();
    let mut total = 0;
    for section in elf
        .section_iter()
        .filter(|section| section.flags() & SHF_ALLOC != 0)
    {
        let name = section.get_name(&elf).map_err(broken)?;
        let size = section.size();
        total += size;
        rows.push(bench.row(format!("image, {name}"), "bytes", size, size));
    }
    rows.push(bench.row("image, all that is loaded", "bytes", total, total));
    Ok(rows)
}
