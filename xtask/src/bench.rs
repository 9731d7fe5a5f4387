//! `cargo xtask bench`: path lengths, boot, image and memory, measured on an emulated machine and written to
//! `target/bench`; with `--peer`, beside another hypervisor's.

mod boot;
mod domain;
mod guest;
mod image;
mod io;
mod kept;
mod memory;
mod paths;
mod peer;
mod report;
mod shell;
mod stack;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::build;
use crate::iso::{self, Boot, IsoSpec, Module};
use crate::machine::{Choice, Kind, Machine, Outcome, choose};
use crate::progress::Step;
use crate::provision::{Suite, Xen};
use peer::Peer;
use report::{Report, Row};
use stack::Stack;

/// What every measured boot has on the hypervisor's command line: the serial line alone, so that the screen costs nothing.
const HYPERVISOR_OPTIONS: &str = "com1=115200,8n1 console=com1 noreboot";
/// A measured run is over long before; one that hangs is ended.
const LIMIT: Duration = Duration::from_secs(1800);

/// Measure path lengths, boot, image size, memory and guests; writes target/bench/report.md and report.json
///
/// With --peer xen, what both hypervisors can do is measured on both: same dom0 kernel, same guests, same machine, local APICs not
/// virtualized. Xen's figures are the report's baseline, and the rows of ours over half of them are listed below it. A whole run takes about
/// 20 minutes on either emulator.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Take only the measurement of this name, or else those whose names contain it
    pub filter: Option<String>,
    /// Measure another hypervisor too
    #[arg(long, value_enum)]
    pub peer: Option<Peer>,
    /// The Debian suite whose kernel dom0 and its guests have
    #[arg(long, value_enum, default_value_t)]
    pub suite: Suite,
    /// The machine to measure on: a tick is an instruction on bochs, a nanosecond of counted instructions on tcg
    #[arg(long, value_enum, default_value = "bochs")]
    pub machine: Choice,
    /// The QEMU binary
    #[arg(long, value_name = "FILE")]
    pub qemu: Option<PathBuf>,
    /// The Bochs binary
    #[arg(long, value_name = "FILE")]
    pub bochs: Option<PathBuf>,
}

/// A group of figures that are taken together.
struct Measurement {
    /// For the user.
    name: &'static str,
    take: fn(&Bench) -> Result<Vec<Row>>,
    /// Another hypervisor can be measured so too.
    compared: bool,
}

const fn ours(name: &'static str, take: fn(&Bench) -> Result<Vec<Row>>) -> Measurement {
    Measurement {
        name,
        take,
        compared: false,
    }
}

const fn compared(name: &'static str, take: fn(&Bench) -> Result<Vec<Row>>) -> Measurement {
    Measurement {
        compared: true,
        ..ours(name, take)
    }
}

const MEASUREMENTS: [Measurement; 12] = [
    compared("size of the image", image::measure),
    ours("path lengths, on one CPU", guest::measure_paths),
    ours(
        "interrupts between vCPUs, on two CPUs",
        guest::measure_between_vcpus,
    ),
    compared("guests' paths, on one CPU", paths::measure_on_one_cpu),
    compared(
        "interrupts between a guest's vCPUs, on two CPUs",
        paths::measure_between_vcpus,
    ),
    ours("memory that the hypervisor keeps", memory::measure),
    compared("boot of dom0, and of the same kernel bare", boot::measure),
    compared("domains made and ended by dom0's tools", domain::measure),
    ours("io: disks, our back end against Linux's", io::disks),
    ours(
        "io: disks, our back end against Linux's, dom0 on another CPU",
        io::disks_apart,
    ),
    ours("io: network cards, our back end against Linux's", io::cards),
    ours(
        "io: network cards, our back end against Linux's, dom0 on another CPU",
        io::cards_apart,
    ),
];

/// Takes all measurements; returns the table that was written.
///
/// # Errors
/// A machine does not start or end as it should, or prints no figures.
pub fn bench(args: &BenchArgs) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let kind = choose(args.machine)?.kind;
    let bench = Bench {
        kind,
        qemu: args.qemu.clone(),
        bochs: args.bochs.clone(),
        hypervisor: build::hypervisor()?,
        guest: build::guest("oxen-bench-guest")?,
        folder: build::target_folder().join("bench"),
        stack: Stack::Oxen,
        suite: args.suite,
        compares: args.peer.is_some(),
    };
    let xen = match args.peer {
        Some(Peer::Xen) => Some(Xen::provision()?),
        None => None,
    };
    let mut report = Report {
        suite: args.suite.name(),
        ..Report::default()
    };
    let filter = args.filter.as_deref().unwrap_or_default();
    let is_whole = MEASUREMENTS.iter().any(|one| one.name == filter);
    let wanted = |measurement: &&Measurement| {
        let is_named = measurement.name == filter || !is_whole && measurement.name.contains(filter);
        is_named && (measurement.compared || xen.is_none())
    };
    for measurement in MEASUREMENTS.iter().filter(wanted) {
        let mut rows = bench.take(measurement)?;
        if let Some(xen) = &xen {
            let peer = Bench {
                stack: Stack::Xen(xen.clone()),
                ..bench.clone()
            };
            peer::join(&mut rows, &peer.take(measurement)?);
        }
        report.rows.extend(rows);
    }
    if report.rows.is_empty() {
        let names = MEASUREMENTS.map(|measurement| measurement.name).join("; ");
        return Err(format!("no measurement is named {filter:?}; there are: {names}").into());
    }
    if let Some(xen) = &xen {
        report.verdict = peer::verdict(&report.rows, &format!("Debian's Xen {}", xen.version));
    }
    print!("{}{}", report.table(), report.verdict);
    Ok(report.write(&bench.folder)?)
}

/// What all measurements share.
#[derive(Clone)]
struct Bench {
    kind: Kind,
    qemu: Option<PathBuf>,
    bochs: Option<PathBuf>,
    hypervisor: PathBuf,
    guest: PathBuf,
    folder: PathBuf,
    /// What is measured.
    stack: Stack,
    suite: Suite,
    /// Two stacks are measured, so that what only one of them can have is left out.
    compares: bool,
}

impl Bench {
    fn take(&self, measurement: &Measurement) -> Result<Vec<Row>> {
        let (name, kind, stack) = (measurement.name, self.kind, self.stack.name());
        let step = Step::start(format!("{name} ({stack} on {kind})"));
        let rows = (measurement.take)(self)?;
        step.done();
        Ok(rows)
    }

    /// The machine with `cpus` CPUs and `memory` MiB; where instructions can be counted, they are the clock.
    fn machine(&self, cpus: u32, memory: u32) -> Machine {
        let mut machine = Machine::new(self.kind);
        machine.cpus = cpus;
        machine.memory = memory;
        machine.qemu.clone_from(&self.qemu);
        machine.bochs.clone_from(&self.bochs);
        machine.time_limit = Some(LIMIT);
        machine.cpu_model = self.compared_cpu();
        if self.kind == Kind::Tcg {
            machine.icount = Some(0);
        }
        machine
    }

    fn iso(&self, name: &str, boot: Boot) -> Result<PathBuf> {
        iso::build(&IsoSpec {
            output: self.folder.join(format!("{name}.iso")),
            boot,
        })
    }

    fn row(&self, name: impl Into<String>, unit: &'static str, median: u64, max: u64) -> Row {
        Row {
            name: name.into(),
            machine: self.kind.to_string(),
            unit,
            median,
            max,
            baseline: None,
        }
    }

    /// Boots the bench guest; returns all that was printed.
    fn run_guest(&self, name: &str, machine: &Machine, options: &str) -> Result<String> {
        let iso = self.iso(
            name,
            Boot::Hypervisor {
                image: self.hypervisor.clone(),
                arguments: format!("{HYPERVISOR_OPTIONS} {options}"),
                modules: vec![module(&self.guest, "")],
            },
        )?;
        let mut running = machine.start(name, &iso)?;
        let outcome = running.wait_exit(LIMIT);
        if outcome != Outcome::PowerOff {
            bail!(
                "{name}: {outcome}\n{}\nwhole console log: {}",
                running.console().tail(),
                running.log().display()
            );
        }
        std::fs::remove_file(&iso)?;
        Ok(running.console().text())
    }
}

fn module(path: &Path, arguments: &str) -> Module {
    Module {
        path: path.to_owned(),
        arguments: arguments.into(),
    }
}

/// The number that stands before `behind` in a line with `marker`.
fn number_before(text: &str, marker: &str, behind: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains(marker))?;
    let (before, _) = line.split_once(behind)?;
    before
        .trim_end()
        .rsplit(' ')
        .next()
        .and_then(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_what_stands_behind_them() {
        let text = "a\n(oxen) dom0 starts 42 ticks after the hypervisor\n";
        assert_eq!(number_before(text, "dom0 starts", " ticks"), Some(42));
        assert_eq!(number_before(text, "dom0 ends", " ticks"), None);
        assert_eq!(number_before(text, "dom0 starts", " miles"), None);
    }
}
