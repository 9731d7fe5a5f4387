//! Path lengths, measured by a small guest that dom0's tools make: of an operation, of an interrupt between two of its vCPUs, of a
//! turn and of an event between two such guests.

use anyhow::{Context, Result, bail};

use super::shell::Shell;
use super::{Bench, Row, guest};

/// Memory of the machine and of dom0, in MiB.
const MEMORY: u32 = 1024;
const DOM0_MEMORY: u32 = 512;
/// The guest's kernel in dom0's image.
const KERNEL: &str = "/boot/guest/bench";
/// Its memory in MiB: it uses frames at 60 and 64 MiB, and there must be none where it maps others'.
const GUEST_MEMORY: u32 = 128;
/// Its last line.
const MEASURED: &str = "measured";
/// Of the guest's rows, those that need two vCPUs.
const BETWEEN_VCPUS: &str = "event IPI";

/// One guest alone, then two with each other, all on one CPU.
pub(super) fn measure_on_one_cpu(bench: &Bench) -> Result<Vec<Row>> {
    let mut shell = start(bench, "paths", 1)?;
    let mut rows = alone(bench, &mut shell, "paths", "")?;
    rows.extend(two(bench, &mut shell)?);
    shell.finish()?;
    Ok(rows)
}

/// What one vCPU does to another, each on a CPU of its own.
pub(super) fn measure_between_vcpus(bench: &Bench) -> Result<Vec<Row>> {
    let mut shell = start(bench, "vcpus", 2)?;
    let mut rows = alone(bench, &mut shell, "vcpus", "vcpus=2 cpus=['0','1']")?;
    rows.retain(|row| row.name.contains(BETWEEN_VCPUS));
    if rows.is_empty() {
        bail!("the bench guest did not start its second vCPU");
    }
    shell.finish()?;
    Ok(rows)
}

fn start(bench: &Bench, name: &str, cpus: u32) -> Result<Shell> {
    let kernel = std::fs::read(&bench.guest)?;
    let name = bench.run_name(name);
    let dom0 = bench.dom0(&name, vec![(KERNEL, kernel)])?;
    let boot = bench.boot(&dom0, DOM0_MEMORY);
    let shell = Shell::start(bench, &name, boot, cpus, MEMORY)?;
    std::fs::remove_file(&dom0.initrd)?;
    Ok(shell)
}

/// Makes a guest of that name; `settings` and `options` go to its configuration and its command line.
fn create(
    bench: &Bench,
    shell: &mut Shell,
    name: &str,
    settings: &str,
    options: &str,
) -> Result<()> {
    let settings = format!("kernel='{KERNEL}' memory={GUEST_MEMORY} {settings}");
    shell.configure(name, &settings, options)?;
    let tool = bench.stack.tool();
    shell.succeed(&format!("{tool} create /tmp/{name}.cfg"))?;
    Ok(())
}

/// The figures that a guest prints, once it has.
fn figures(bench: &Bench, shell: &mut Shell, name: &str) -> Result<Vec<Row>> {
    let log = Shell::guest_log(name);
    // Seldom: on its CPU a look costs what it measures.
    shell.wait_for(&format!("grep -qE '^{MEASURED}|guest panic' {log}"), 2)?;
    let text = shell.command(&format!("cat {log}"))?;
    let mut rows = guest::rows(bench, &text)
        .with_context(|| format!("guest {name} has measured nothing: {text}"))?;
    for row in &mut rows {
        row.name = format!("guest: {}", row.name);
    }
    Ok(rows)
}

fn alone(bench: &Bench, shell: &mut Shell, name: &str, settings: &str) -> Result<Vec<Row>> {
    create(bench, shell, name, settings, "role=guest")?;
    figures(bench, shell, name)
}

/// Two guests: each must know the other's number before that is there.
fn two(bench: &Bench, shell: &mut Shell) -> Result<Vec<Row>> {
    let tool = bench.stack.tool();
    create(bench, shell, "last", "", "role=answer partner=0")?;
    let last = shell.number(&format!("{tool} domid last"))?;
    shell.succeed(&format!("{tool} destroy last"))?;
    let (answer, ask) = (last + 1, last + 2);
    create(
        bench,
        shell,
        "answer",
        "",
        &format!("role=answer partner={ask}"),
    )?;
    create(
        bench,
        shell,
        "ask",
        "",
        &format!("role=ask partner={answer}"),
    )?;
    let found = shell.number(&format!("{tool} domid answer"))?;
    if found != answer {
        bail!("the guest after number {last} is number {found}: something else makes guests");
    }
    let rows = figures(bench, shell, "ask")?;
    shell.succeed(&format!("{tool} destroy answer"))?;
    Ok(rows)
}
