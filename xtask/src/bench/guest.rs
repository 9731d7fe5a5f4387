//! Path lengths, measured by a small guest in dom0's place: the quickest way to them, for this hypervisor only.

use anyhow::{Result, bail};

use super::{Bench, Row};

/// What the guest's lines begin with.
const MARK: &str = "bench: ";
/// Rows that need two vCPUs.
const BETWEEN_VCPUS: &str = "event IPI";
const MEMORY: u32 = 1024;

/// Everything on one CPU with one vCPU.
pub(super) fn measure_paths(bench: &Bench) -> Result<Vec<Row>> {
    let machine = bench.machine(1, MEMORY);
    let text = bench.run_guest("bench-paths", &machine, "dom0_mem=256M dom0_max_vcpus=1")?;
    rows(bench, &text)
}

/// What one vCPU does to another, each on a CPU of its own. With several CPUs an emulator takes turns between them, so
/// that these ticks are not to be compared with the others.
pub(super) fn measure_between_vcpus(bench: &Bench) -> Result<Vec<Row>> {
    let machine = bench.machine(2, MEMORY);
    let text = bench.run_guest(
        "bench-between-vcpus",
        &machine,
        "dom0_mem=256M dom0_max_vcpus=2",
    )?;
    let mut rows = rows(bench, &text)?;
    rows.retain(|row| row.name.starts_with(BETWEEN_VCPUS));
    if rows.is_empty() {
        bail!("the bench guest did not start its second vCPU");
    }
    Ok(rows)
}

/// The figures among what the guest printed.
pub(super) fn rows(bench: &Bench, text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(MARK))
    {
        let Some((name, median, max)) = parse(line) else {
            bail!("the bench guest says: {line}");
        };
        rows.push(bench.row(name, "ticks", median, max));
    }
    if rows.is_empty() {
        bail!("the bench guest printed no figures");
    }
    Ok(rows)
}

/// `NAME: MEDIAN MAXIMUM`.
fn parse(line: &str) -> Option<(&str, u64, u64)> {
    let (name, numbers) = line.rsplit_once(": ")?;
    let (median, max) = numbers.split_once(' ')?;
    Some((name, median.parse().ok()?, max.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_are_parsed() {
        assert_eq!(parse("cpuid: 4 5"), Some(("cpuid", 4, 5)));
        assert_eq!(parse("error: no second vCPU"), None);
    }
}
