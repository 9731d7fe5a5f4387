//! Domains made and ended by dom0's tools: how long dom0's shell waits, where that goes, how long a guest's own boot takes, and
//! what memory the hypervisor needs for a domain.

use anyhow::{Context, Result};

use super::kept::Kept;
use super::shell::{CLOCK, Shell, two_words};
use super::{Bench, Row, boot};
use crate::build;

/// Memory of the machine and of dom0, in MiB.
const MEMORY: u32 = 1536;
const DOM0_MEMORY: u32 = 512;
const TIME: &str = "µs of the machine";
/// Where the small guest lies in dom0: one that needs no unpacking.
const SMALL: &str = "/boot/guest/small";
/// A script that the Linux guest runs, once it has booted.
const SCRIPT: &str = "/boot/guest/script";
/// Before the two clock readings, in nanoseconds, of what the script does.
const WORKED: &str = "worked:";
/// Before the seconds that a command spent in user space and in its kernel.
const SPENT: &str = "spent:";

/// A guest that is made and ended.
struct Guest {
    /// For the reader of the report.
    name: &'static str,
    /// What its configuration has besides name, type and command line.
    settings: &'static str,
    /// Its command line, as dom0's shell understands it.
    options: &'static str,
    /// It says when it has booted.
    boots: bool,
}

/// The Linux one shows what a user waits for; the others, how that grows with memory and vCPUs, and are made at once.
const GUESTS: [Guest; 4] = [
    Guest {
        name: "Linux, 256 MiB",
        settings: "kernel='/boot/guest/vmlinuz' ramdisk='/boot/guest/initrd' memory=256 vcpus=1",
        options: "console=hvc0 oxen.run=$(base64 /boot/guest/script | tr -d '\\n')",
        boots: true,
    },
    small(
        "no Linux, 128 MiB",
        "kernel='/boot/guest/small' memory=128 vcpus=1",
    ),
    small(
        "no Linux, 768 MiB",
        "kernel='/boot/guest/small' memory=768 vcpus=1",
    ),
    small(
        "no Linux, 128 MiB, 4 vCPUs",
        "kernel='/boot/guest/small' memory=128 vcpus=4",
    ),
];

const fn small(name: &'static str, settings: &'static str) -> Guest {
    Guest {
        name,
        settings,
        options: "",
        boots: false,
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let small = std::fs::read(build::guest("oxen-spin-guest")?)?;
    let name = bench.run_name("domain");
    let dom0 = bench.dom0(&name, vec![(SMALL, small), (SCRIPT, script().into_bytes())])?;
    let boot = bench.boot(&dom0, DOM0_MEMORY);
    let mut shell = Shell::start(bench, &name, boot, 1, MEMORY)?;
    std::fs::remove_file(&dom0.initrd)?;
    let mut rows = vec![kept(bench, &mut shell)?];
    for guest in &GUESTS {
        rows.extend(one(bench, &mut shell, guest)?);
    }
    shell.finish()?;
    Ok(rows)
}

/// Computes in the guest as [`boot`] has it done in dom0 and on the bare machine, once dom0 is quiet.
fn script() -> String {
    let work = boot::WORK;
    format!("{CLOCK}\nsleep 3\nnow; a=$NOW\n{work} >/dev/null\nnow; echo {WORKED} $a $NOW\n")
}

/// What neither dom0 has nor is free.
fn kept(bench: &Bench, shell: &mut Shell) -> Result<Row> {
    let tool = bench.stack.tool();
    let total = shell.number(&format!("{tool} info | sed -n 's/^total_memory *: *//p'"))?;
    let kept = Kept::now(shell, &bench.stack)?.of(total << 20) >> 10;
    Ok(bench.row(
        format!("memory kept, of {MEMORY} MiB with dom0's tools"),
        "KiB",
        kept,
        kept,
    ))
}

fn one(bench: &Bench, shell: &mut Shell, guest: &Guest) -> Result<Vec<Row>> {
    let Guest {
        name,
        settings,
        options,
        boots,
    } = guest;
    let tool = bench.stack.tool();
    let mut rows = Vec::new();
    let mut row = |what: &str, unit, value| {
        rows.push(bench.row(format!("{what}: {name}"), unit, value, value));
    };
    shell.configure("demo", settings, options)?;
    if *boots {
        // Ours unpacks its kernel this once, and keeps it.
        let (took, _) = shell.timed(&format!("{tool} create -p /tmp/demo.cfg"))?;
        row("create -p, the kernel's first time", TIME, took);
        shell.succeed(&format!("{tool} destroy demo"))?;
    }
    let before = Kept::now(shell, &bench.stack)?;
    let create = format!("time -f '{SPENT} %U %S' {tool} create -p /tmp/demo.cfg");
    let (took, text) = shell.timed(&create)?;
    let (user, kernel) =
        spent(&text).with_context(|| format!("no times of `{tool} create`: {text}"))?;
    row("create -p", TIME, took);
    row("create -p, in its own code", TIME, user);
    row(
        "create -p, in dom0's kernel and the hypervisor",
        TIME,
        kernel,
    );
    let after = Kept::now(shell, &bench.stack)?;
    let (own, tables) = (after.since(&before), after.tables_since(&before));
    if let Some(tables) = tables {
        row(
            "hypervisor's memory for a domain, without the tables of maps",
            "bytes",
            own,
        );
        row("tables of a domain's map", "bytes", tables);
    }
    row(
        "hypervisor's memory for a domain, with all",
        "bytes",
        own + tables.unwrap_or(0),
    );
    if *boots {
        let log = Shell::guest_log("demo");
        // Not more often: a look costs a good part of a CPU that the guest needs.
        let wait =
            format!("{tool} unpause demo; until grep -q userspace {log}; do usleep 100000; done");
        let (took, _) = shell.timed(&wait)?;
        row("unpause to the guest's user space", TIME, took);
        let text = shell.command(&format!("grep -a 'Run /init' {log}"))?;
        row(
            "guest kernel's clock at its start of user space",
            TIME,
            boot::time_of_user_space(&text)?,
        );
    }
    if *boots {
        rows.push(computing(bench, shell)?);
    }
    let (took, _) = shell.timed(&format!("{tool} destroy demo"))?;
    rows.push(bench.row(format!("destroy: {name}"), TIME, took, took));
    Ok(rows)
}

/// How long the guest's script works, against the bare machine where nothing else is compared.
fn computing(bench: &Bench, shell: &mut Shell) -> Result<Row> {
    let log = Shell::guest_log("demo");
    // Hardly ever: each look is on the guest's CPU.
    shell.wait_for(&format!("grep -q '^{WORKED} [0-9]' {log}"), 20)?;
    let text = shell.command(&format!("grep '^{WORKED}' {log}"))?;
    let (from, to) = two_words(&text, WORKED)
        .and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?)))
        .with_context(|| format!("the guest does not say how long it worked: {text}"))?;
    let took = to.saturating_sub(from) / 1000;
    let mut row = bench.row("computing in a guest's user space", TIME, took, took);
    if !bench.compares {
        row.baseline = Some(boot::bare(bench)?.1);
    }
    Ok(row)
}

/// Microseconds in user space and in the kernel, from seconds with two digits behind the point.
fn spent(text: &str) -> Option<(u64, u64)> {
    let (user, kernel) = two_words(text, SPENT)?;
    let micros = |seconds: &str| -> Option<u64> {
        let (whole, hundredths) = seconds.split_once('.')?;
        Some(whole.parse::<u64>().ok()? * 1_000_000 + hundredths.parse::<u64>().ok()? * 10_000)
    };
    Some((micros(user)?, micros(kernel)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_spent_are_not_taken_from_the_commands_echo() {
        let text = "time -f 'spent: %U %S' ox\r\nspent: 4.53 0.42\r\n";
        assert_eq!(spent(text), Some((4_530_000, 420_000)));
        assert_eq!(spent("time -f 'spent: %U %S' ox\r\n"), None);
    }
}
