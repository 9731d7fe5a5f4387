//! The command line: which verbs there are, what each needs provisioned, and who carries it out.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::iso::{self, Boot, IsoSpec, Module};
use crate::machine::{Choice, Kind, choose};
use crate::provision::{self, Dom0, Suite, bochs};
use crate::{bench, build, clean, doctor, lint, run, test};

/// Any failure: its text is what the user reads.
type Failure = Box<dyn Error + Send + Sync>;

/// Provision, build, run and test Oxen
#[derive(Debug, clap::Parser)]
#[command(bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Install, fetch and build everything that the other verbs need; safe to repeat
    Setup,
    /// Build the hypervisor for the bare machine
    Build,
    /// Write a bootable ISO (BIOS and UEFI) for a CD, an emulator or, with dd, a USB stick
    Iso(IsoArgs),
    Run(run::RunArgs),
    Test(test::TestArgs),
    Bench(bench::BenchArgs),
    /// Check the format, and run clippy with warnings denied on every crate, the hypervisor for its own target
    Lint,
    /// Tell what this host can do and what is missing
    Doctor,
    /// Remove what was built; with --cache also what was provisioned
    Clean {
        /// Also remove the kernels, the initial RAM disks, Bochs and the target's source
        #[arg(long)]
        cache: bool,
    },
}

#[derive(Debug, clap::Args)]
struct IsoArgs {
    /// Options for the hypervisor
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "com1=115200,8n1 console=com1,vga"
    )]
    cmdline: String,
    /// Options for dom0's kernel
    #[arg(long, value_name = "OPTIONS", default_value = "console=hvc0")]
    dom0_cmdline: String,
    /// dom0's kernel, in place of the provisioned one
    #[arg(long, value_name = "FILE")]
    dom0_kernel: Option<PathBuf>,
    /// dom0's initial RAM disk, in place of the provisioned one
    #[arg(long, value_name = "FILE")]
    dom0_initrd: Option<PathBuf>,
    /// The Debian suite whose kernel is dom0's
    #[arg(long, value_enum, default_value_t)]
    suite: Suite,
    /// Boot dom0's kernel with no hypervisor under it, to compare with
    #[arg(long, conflicts_with = "cmdline")]
    bare: bool,
    /// Where the ISO goes
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// What went wrong, in words for the user.
    pub fn execute(self) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Setup => provision::everything()?,
            Verb::Build => println!("{}", build::hypervisor()?.display()),
            Verb::Iso(args) => println!("{}", write_iso(args)?.display()),
            Verb::Run(args) => return run::run(&with_emulator(args)?),
            Verb::Test(args) => return test::test(&with_emulators(args)?),
            Verb::Bench(args) => {
                println!("{}", bench::bench(&with_benched_emulator(args)?)?.display());
            }
            Verb::Lint => lint::lint()?,
            Verb::Doctor => doctor::report(),
            Verb::Clean { cache } => clean::clean(cache)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes sure of the emulator that the run needs.
fn with_emulator(mut args: run::RunArgs) -> Result<run::RunArgs, Failure> {
    match choose(args.machine)?.kind {
        Kind::Bochs if args.bochs.is_none() => args.bochs = Some(bochs::binary()?),
        Kind::Kvm | Kind::Tcg if args.qemu.is_none() => provision::packages()?,
        _ => {}
    }
    Ok(args)
}

/// Makes sure of the emulator to measure on.
fn with_benched_emulator(mut args: bench::BenchArgs) -> Result<bench::BenchArgs, Failure> {
    match choose(args.machine)?.kind {
        Kind::Bochs if args.bochs.is_none() => args.bochs = Some(bochs::binary()?),
        Kind::Kvm | Kind::Tcg if args.qemu.is_none() => provision::packages()?,
        _ => {}
    }
    Ok(args)
}

/// Makes sure of all emulators that the matrix will use.
fn with_emulators(mut args: test::TestArgs) -> Result<test::TestArgs, Failure> {
    if !args.uses_machines() {
        return Ok(args);
    }
    if args.qemu.is_none() {
        provision::packages()?;
    }
    if args.bochs.is_none() && matches!(args.machine, Choice::Auto | Choice::Bochs) {
        args.bochs = Some(bochs::binary()?);
    }
    Ok(args)
}

fn write_iso(args: IsoArgs) -> Result<PathBuf, Failure> {
    let Dom0 { kernel, initrd } = match (args.dom0_kernel, args.dom0_initrd) {
        (Some(kernel), Some(initrd)) => Dom0 { kernel, initrd },
        (kernel, initrd) => {
            let mut provisioned = provision::dom0(args.suite)?;
            if initrd.is_none() && !args.bare {
                provisioned.initrd =
                    provision::with_tools(&provisioned.initrd, &provisioned.kernel)?;
            }
            Dom0 {
                kernel: kernel.unwrap_or(provisioned.kernel),
                initrd: initrd.unwrap_or(provisioned.initrd),
            }
        }
    };
    let boot = if args.bare {
        Boot::Linux {
            kernel,
            arguments: args.dom0_cmdline.replace("hvc0", "ttyS0"),
            initrd,
        }
    } else {
        Boot::Hypervisor {
            image: build::hypervisor()?,
            arguments: args.cmdline,
            modules: vec![
                Module {
                    path: kernel,
                    arguments: args.dom0_cmdline,
                },
                Module {
                    path: initrd,
                    arguments: String::new(),
                },
            ],
        }
    };
    let output = args
        .output
        .unwrap_or_else(|| build::target_folder().join("oxen.iso"));
    Ok(iso::build(&IsoSpec { output, boot })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }
}
