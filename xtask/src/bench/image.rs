//! The size of the hypervisor's image, by section where it has some.

use std::fs;

use anyhow::{Context, Result, anyhow};
use xmas_elf::ElfFile;
use xmas_elf::program::Type;
use xmas_elf::sections::SHF_ALLOC;

use super::stack::Stack;
use super::{Bench, Row};

const TOTAL: &str = "image, all that is loaded";

/// Sections that are loaded, and their sum.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let image = bench.image();
    let bytes = fs::read(&image).with_context(|| format!("{} cannot be read", image.display()))?;
    let broken = |why: &'static str| anyhow!("{}: {why}", image.display());
    let elf = ElfFile::new(&bytes).map_err(broken)?;
    if let Stack::Xen(_) = bench.stack {
        // Its sections are one by now.
        let mut total = 0;
        for part in elf.program_iter() {
            if part.get_type().map_err(broken)? == Type::Load {
                total += part.mem_size();
            }
        }
        return Ok(vec![bench.row(TOTAL, "bytes", total, total)]);
    }
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
    rows.push(bench.row(TOTAL, "bytes", total, total));
    Ok(rows)
}
