//! Domains made and ended by dom0's tools: how long dom0's shell waits, and the guest's own boot against the bare machine's.

use anyhow::{Context, Result, bail};

use super::{Bench, HYPERVISOR_OPTIONS, LIMIT, Row, boot, module};
use crate::iso::Boot;
use crate::machine::{Outcome, Running};
use crate::provision::{self, Dom0, Suite};

/// Memory of the machine and of dom0, in MiB.
const MEMORY: u32 = 1536;
const DOM0_MEMORY: u32 = 512;
/// Memory of the guests that are made, in MiB: the first one's boot is measured too.
const GUESTS: [u32; 3] = [256, 128, 768];
const PROMPT: &str = "dom0# ";
const CONFIG: &str = "/etc/oxen/demo.cfg";
const LOG: &str = "/var/log/xen/console/guest-demo.log";
/// Before the two clock readings, in hundredths of a second, of what was timed.
const TOOK: &str = "took:";

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let name = "bench-domain";
    let dom0 = provision::with_tools(provision::dom0(Suite::default())?)?;
    let iso = bench.iso(name, hypervisor_with(bench, &dom0))?;
    let mut running = bench.machine(1, MEMORY).start(name, &iso)?;
    running.console().expect(PROMPT, LIMIT)?;
    let clock = "now() { sed 's/ .*//; s/[.]//' /proc/uptime; }";
    command(&mut running, clock)?;
    let mut rows = Vec::new();
    let mut row = |name: String, (from, to): (u64, u64)| {
        let waited = (to - from) * 10_000;
        rows.push(bench.row(name, "µs of the machine", waited, waited));
    };
    for (nth, memory) in GUESTS.into_iter().enumerate() {
        let create = format!("ox create -p {CONFIG} memory={memory}");
        row(
            format!("ox create -p, {memory} MiB"),
            timed(&mut running, &create)?,
        );
        if nth == 0 {
            let wait =
                format!("ox unpause demo; until grep -q userspace {LOG}; do usleep 10000; done");
            let booted = timed(&mut running, &wait)?;
            row(format!("ox unpause to userspace, {memory} MiB"), booted);
        }
        row(
            format!("ox destroy, {memory} MiB"),
            timed(&mut running, "ox destroy demo")?,
        );
    }
    running.console().send_line("poweroff")?;
    let outcome = running.wait_exit(LIMIT);
    if outcome != Outcome::PowerOff {
        bail!("{name}: {outcome}; see {}", running.log().display());
    }
    std::fs::remove_file(&iso)?;
    Ok(rows)
}

fn hypervisor_with(bench: &Bench, dom0: &Dom0) -> Boot {
    Boot::Hypervisor {
        image: bench.hypervisor.clone(),
        arguments: format!("{HYPERVISOR_OPTIONS} dom0_mem={DOM0_MEMORY}M dom0_max_vcpus=1"),
        modules: vec![
            module(&dom0.kernel, &format!("console=hvc0 {}", boot::QUIET)),
            module(&dom0.initrd, ""),
        ],
    }
}

fn command(running: &mut Running, command: &str) -> Result<String> {
    running.console().send_line(command)?;
    // The echo of what was typed comes first.
    Ok(running.console().expect(PROMPT, LIMIT)?)
}

/// dom0's clock before and after a command that must succeed.
fn timed(running: &mut Running, what: &str) -> Result<(u64, u64)> {
    let line = format!("a=$(now); {{ {what}; }} >/dev/null && echo {TOOK} $a $(now)");
    let text = command(running, &line)?;
    readings(&text).with_context(|| format!("dom0: `{what}` failed: {text}"))
}

fn readings(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(TOOK))?
        .trim()
        .split_once(' ')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_not_taken_from_the_commands_echo() {
        let text = "a=$(now); { true; } && echo took: $a $(now)\r\ntook: 1234 1240\r\ndom0# ";
        assert_eq!(readings(text), Some((1234, 1240)));
        assert_eq!(readings("sh: ox: not found"), None);
    }
}
