//! dom0's boot and its work against the same kernel's on the bare machine, and what left guest mode meanwhile.

use anyhow::{Context, Result};

use super::shell::Shell;
use super::stack::Stack;
use super::{Bench, Row, number_before};
use crate::iso::Boot;
use crate::machine::{Kind, Machine};
use crate::provision::{self, Dom0};

/// Memory of the machine, and of dom0 or the bare kernel, in MiB.
const MEMORY: u32 = 1024;
const KERNELS_MEMORY: u32 = 512;
const TIME: &str = "µs of the machine";
const CLOCK: &str = "kernel's clock at its start of user space";
const COMPUTING: &str = "computing in user space";
/// Nothing of the boot goes to the console: the serial line's speed would be what is measured.
pub(super) const QUIET: &str = "quiet loglevel=0";
/// Kernels copy by words. What they would have from ERMS and FSRM (`cpufeatures.h`) is one instruction that copies all bytes, for which
/// the emulators count a tick for each, where hardware copies 16 and more in a cycle.
pub(super) const BY_WORDS: &str = "clearcpuid=297,580";
/// The kernel's last words before user space, with its clock before them.
const LAST_STEP: &str = "Run /init as init process";
/// Computes in user space, for seconds of any machine's clock.
pub(super) const WORK: &str = "awk 'BEGIN { for (i = 0; i < 300000; i++) x += i }'";

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let dom0 = provision::dom0(bench.suite)?;
    let boot = bench.boot(&dom0, KERNELS_MEMORY);
    let (text, work) = run(bench, &bench.run_name("boot"), boot)?;
    let start = match bench.stack {
        Stack::Oxen => number_before(&text, "dom0 starts", " ticks"),
        Stack::Xen(_) => ticks_of_xen(&text),
    };
    let start = start.context("the hypervisor does not say when dom0 starts")?;
    let own = time_of_user_space(&text)?;
    let mut clock = bench.row(CLOCK, TIME, own, own);
    let mut computing = bench.row(COMPUTING, TIME, work, work);
    // Beside another hypervisor's figures, those of no hypervisor would be taken for them.
    if !bench.compares {
        let (bare, bare_work) = bare(bench)?;
        clock.baseline = Some(time_of_user_space(&bare)?);
        computing.baseline = Some(bare_work);
    }
    let name = "hypervisor's entry to dom0's first instruction";
    let mut rows = vec![bench.row(name, "ticks", start, start), clock, computing];
    if let Stack::Oxen = bench.stack {
        rows.extend(exits(bench, &text)?);
    }
    Ok(rows)
}

/// The same kernel on the bare machine: all that was printed, and how long the work took.
pub(super) fn bare(bench: &Bench) -> Result<(String, u64)> {
    let Dom0 { kernel, initrd } = provision::dom0(bench.suite)?;
    let arguments = format!(
        "console=ttyS0 mem={KERNELS_MEMORY}M {QUIET} {BY_WORDS} {}",
        clock_option(bench)
    );
    let boot = Boot::Linux {
        kernel,
        arguments,
        initrd,
    };
    run(bench, &format!("bench-bare-{}-boot", bench.kind), boot)
}

/// Ticks between the first and the last line that Xen prints before dom0 runs, by the TSC before each of them.
fn ticks_of_xen(text: &str) -> Option<u64> {
    let ticks = |line: &str| {
        let (_, rest) = line.split_once("(XEN) [")?;
        u64::from_str_radix(rest.split_once(']')?.0.trim(), 16).ok()
    };
    let first = text.lines().find_map(ticks)?;
    let last = text
        .lines()
        .find(|line| line.contains("(XEN) [") && line.contains("init memory"))?;
    ticks(last)?.checked_sub(first)
}

/// Bochs's CPU claims another frequency than it has: a bare kernel must be told, or its clock is wrong.
fn clock_option(bench: &Bench) -> String {
    match bench.kind {
        Kind::Bochs => format!("tsc_early_khz={}", Machine::new(Kind::Bochs).ips / 1000),
        Kind::Tcg | Kind::Kvm => String::new(),
    }
}

/// Boots to the shell, has the kernel's log printed, works, and powers off; returns all that was printed and how long the work
/// took.
fn run(bench: &Bench, name: &str, boot: Boot) -> Result<(String, u64)> {
    let mut shell = Shell::start(bench, name, boot, 1, MEMORY)?;
    shell.command(&format!("dmesg | grep '{LAST_STEP}'"))?;
    let (work, _) = shell.timed(WORK)?;
    Ok((shell.finish()?, work))
}

/// Microseconds in a kernel's log at its step to user space.
pub(super) fn time_of_user_space(text: &str) -> Result<u64> {
    text.lines()
        .filter_map(|line| line.split_once(&format!("] {LAST_STEP}")))
        .filter_map(|(clock, _)| clock.rsplit('[').next())
        .find_map(|clock| {
            let (seconds, micros) = clock.trim().split_once('.')?;
            Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
        })
        .context("the kernel's log does not say when it started user space")
}

/// `exits: NAME COUNT, NAME COUNT,`
fn exits(bench: &Bench, text: &str) -> Result<Vec<Row>> {
    let (_, list) = text
        .split_once("exits: ")
        .context("the hypervisor does not say what exits there were")?;
    let line = list.lines().next().unwrap_or_default();
    Ok(line
        .split(',')
        .filter_map(|item| item.trim().rsplit_once(' '))
        .filter_map(|(name, count)| Some((name, count.parse::<u64>().ok()?)))
        .map(|(name, count)| {
            bench.row(
                format!("exits of dom0's vCPU, boot, work and power-off: {name}"),
                "exits",
                count,
                count,
            )
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xens_own_part_ends_where_it_frees_what_it_needed_to_boot() {
        let text = "(XEN) [0000000000000100] Xen version 4.17.5\n\
            (XEN) [0000000000000180] Dom0 has maximum 1 VCPUs\n\
            (XEN) [00000000000001f0] Freed 664kB init memory\n\
            (XEN) [0000000000000900] d0: later\n";
        assert_eq!(ticks_of_xen(text), Some(0xF0));
        assert_eq!(ticks_of_xen("(XEN) no clock"), None);
    }

    #[test]
    fn the_kernels_clock_is_read_past_the_commands_echo() {
        let text = "dom0# dmesg | grep 'Run /init as init process'\n[    7.012345] Run /init as init process\n";
        assert_eq!(time_of_user_space(text).ok(), Some(7_012_345));
        assert!(time_of_user_space("nothing").is_err());
    }
}
