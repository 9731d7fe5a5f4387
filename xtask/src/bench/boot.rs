//! dom0's boot and its work against the same kernel's on the bare machine, and what left guest mode meanwhile.

use anyhow::{Context, Result};

use super::shell::Shell;
use super::{Bench, HYPERVISOR_OPTIONS, Row, module, number_before};
use crate::iso::Boot;
use crate::machine::{Kind, Machine};
use crate::provision::{self, Dom0, Suite};

/// Memory of the machine, and of dom0 or the bare kernel, in MiB.
const MEMORY: u32 = 1024;
const KERNELS_MEMORY: u32 = 512;
/// Nothing of the boot goes to the console: the serial line's speed would be what is measured.
pub(super) const QUIET: &str = "quiet loglevel=0";
/// The kernel's last words before user space, with its clock before them.
const LAST_STEP: &str = "Run /init as init process";
/// Computes in user space, for seconds of any machine's clock.
const WORK: &str = "awk 'BEGIN { for (i = 0; i < 300000; i++) x += i }'";

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let Dom0 { kernel, initrd } = provision::dom0(Suite::default())?;
    let bare = Boot::Linux {
        kernel: kernel.clone(),
        arguments: format!(
            "console=ttyS0 mem={KERNELS_MEMORY}M {QUIET} {}",
            clock_option(bench)
        ),
        initrd: initrd.clone(),
    };
    let (bare, baseline_work) = run(bench, "bench-boot-bare", bare)?;
    let dom0 = Boot::Hypervisor {
        image: bench.hypervisor.clone(),
        arguments: format!("{HYPERVISOR_OPTIONS} dom0_mem={KERNELS_MEMORY}M dom0_max_vcpus=1"),
        modules: vec![
            module(&kernel, &format!("console=hvc0 {QUIET}")),
            module(&initrd, ""),
        ],
    };
    let (dom0, work) = run(bench, "bench-boot-dom0", dom0)?;
    let (own, baseline) = (time_of_user_space(&dom0)?, time_of_user_space(&bare)?);
    let start = number_before(&dom0, "dom0 starts", " ticks")
        .context("the hypervisor does not say when dom0 starts")?;
    let against_bare = |name, own, baseline| Row {
        baseline: Some(baseline),
        ..bench.row(name, "µs of the machine", own, own)
    };
    let mut rows = vec![
        bench.row(
            "hypervisor's entry to dom0's first instruction",
            "ticks",
            start,
            start,
        ),
        against_bare("kernel's clock at its start of user space", own, baseline),
        against_bare("computing in user space", work, baseline_work),
    ];
    rows.extend(exits(bench, &dom0)?);
    Ok(rows)
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
    let mut shell = Shell::start(bench, name, boot, MEMORY)?;
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
    fn the_kernels_clock_is_read_past_the_commands_echo() {
        let text = "dom0# dmesg | grep 'Run /init as init process'\n[    7.012345] Run /init as init process\n";
        assert_eq!(time_of_user_space(text).ok(), Some(7_012_345));
        assert!(time_of_user_space("nothing").is_err());
    }
}
