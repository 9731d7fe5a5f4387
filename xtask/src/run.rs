//! `cargo xtask run`: boots Oxen on an emulated machine, with dom0's console on the terminal or on pipes.

mod interactive;
mod scripted;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::iso::{self, Boot, IsoSpec, Module};
use crate::machine::{self, Choice, Disk, DiskBus, Kind, Machine, Nic, Outcome};
use crate::{build, provision};

/// dom0's console and kernel log, as far as they are needed for a shell.
const DOM0_OPTIONS: &str = "console=hvc0";
/// The hypervisor's console, and a halt rather than a reset after a failure, so that the run ends with its cause.
const HYPERVISOR_OPTIONS: &str = "com1=115200,8n1 console=com1,vga noreboot";

/// Boot Oxen with dom0's console on the terminal, or run the lines of standard input in dom0's shell
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The machine to boot on
    #[arg(long, value_enum, default_value_t)]
    pub machine: Choice,
    /// Physical CPUs
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048)]
    pub memory: u32,
    /// Boot by UEFI in place of BIOS (not on bochs)
    #[arg(long)]
    pub uefi: bool,
    /// Options for the hypervisor, added to its command line
    #[arg(long, value_name = "OPTIONS", default_value = "")]
    pub cmdline: String,
    /// Options for dom0's kernel, added to its command line
    #[arg(long, value_name = "OPTIONS", default_value = "")]
    pub dom0_cmdline: String,
    /// Stop before the first instruction and wait for a debugger (not on bochs)
    #[arg(long)]
    pub gdb: bool,
    /// Open no window for the emulated screen
    #[arg(long)]
    pub headless: bool,
    /// Stop the machine after so many seconds; 0 is never [default: never on a terminal, else 300, and 1200 on bochs]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Give dom0 a disk with a Debian root, for a guest: /etc/oxen/debian.cfg starts it. What it writes is thrown away in the end
    #[arg(long)]
    pub debian: bool,
    /// dom0's kernel, in place of the provisioned one
    #[arg(long, value_name = "FILE")]
    pub dom0_kernel: Option<PathBuf>,
    /// dom0's initial RAM disk, in place of the provisioned one
    #[arg(long, value_name = "FILE")]
    pub dom0_initrd: Option<PathBuf>,
    /// The QEMU binary
    #[arg(long, value_name = "FILE")]
    pub qemu: Option<PathBuf>,
    /// The Bochs binary
    #[arg(long, value_name = "FILE")]
    pub bochs: Option<PathBuf>,
}

/// Builds the ISO, boots it and stays until the machine stops. The exit code is success after a clean power-off or reboot.
///
/// # Errors
/// When no machine could be started: a tool is missing, or the build failed.
pub fn run(args: &RunArgs) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let chosen = machine::choose(args.machine)?;
    eprintln!("machine {}: {}", chosen.kind, chosen.why);
    let iso = build_iso(args)?;
    let on_terminal = io::stdin().is_terminal();
    let mut machine = describe(args, chosen.kind, on_terminal);
    if args.debian {
        machine.disks.push(Disk {
            bus: DiskBus::first(chosen.kind),
            image: provision::debian::root()?,
            keep: false,
        });
    }
    let mut running = machine.start(&format!("run-{}", chosen.kind), &iso)?;
    if args.gdb {
        eprintln!(
            "waiting for a debugger: gdb -ex 'target remote :1234' and the hypervisor's ELF file"
        );
    }
    let copy = running.console().copy_to(io::stdout())?;
    let ended = if on_terminal {
        interactive::drive(&mut running)?
    } else {
        scripted::drive(&mut running, io::BufReader::new(io::stdin()))
    };
    let log = running.log().to_owned();
    // The emulator goes first: its end closes the console, which lets the copy finish.
    drop(running);
    let _ = copy.join();
    Ok(match ended {
        None => {
            eprintln!("\nstopped on request");
            ExitCode::SUCCESS
        }
        Some(outcome) => report(&outcome, &log),
    })
}

fn report(outcome: &Outcome, log: &std::path::Path) -> ExitCode {
    eprintln!("\n{outcome} (console log: {})", log.display());
    if outcome.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn build_iso(args: &RunArgs) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let (kernel, initrd) = match (&args.dom0_kernel, &args.dom0_initrd) {
        (Some(kernel), Some(initrd)) => (kernel.clone(), initrd.clone()),
        (kernel, initrd) => {
            let mut dom0 = provision::dom0(provision::Suite::Bookworm)?;
            if initrd.is_none() {
                dom0.initrd = provision::with_tools(&dom0.initrd, &dom0.kernel)?;
            }
            (
                kernel.clone().unwrap_or(dom0.kernel),
                initrd.clone().unwrap_or(dom0.initrd),
            )
        }
    };
    let spec = IsoSpec {
        output: machine::log_dir().with_file_name("oxen-run.iso"),
        boot: Boot::Hypervisor {
            image: build::hypervisor()?,
            arguments: join(HYPERVISOR_OPTIONS, &args.cmdline),
            modules: vec![
                Module {
                    path: kernel,
                    arguments: join(DOM0_OPTIONS, &args.dom0_cmdline),
                },
                Module {
                    path: initrd,
                    arguments: String::new(),
                },
            ],
        },
    };
    Ok(iso::build(&spec)?)
}

fn describe(args: &RunArgs, kind: Kind, on_terminal: bool) -> Machine {
    let limit = match args.timeout {
        Some(seconds) => seconds,
        None if on_terminal => 0,
        None if kind == Kind::Bochs => 1200,
        None => 300,
    };
    Machine {
        cpus: args.cpus,
        memory: args.memory,
        uefi: args.uefi,
        gdb: args.gdb,
        window: !args.headless && on_terminal,
        nic: Some(if kind == Kind::Bochs {
            Nic::E1000
        } else {
            Nic::E1000e
        }),
        time_limit: (limit > 0).then(|| Duration::from_secs(limit)),
        qemu: args.qemu.clone(),
        bochs: args.bochs.clone(),
        ..Machine::new(kind)
    }
}

fn join(ours: &str, theirs: &str) -> String {
    format!("{ours} {theirs}").trim_end().to_owned()
}
