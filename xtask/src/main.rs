//! `cargo xtask`: provisions, builds, runs and tests Oxen.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use xtask::{build, doctor, iso, provision, run, test};

/// Provision, build, run and test Oxen
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Install and build everything that the other commands need; safe to repeat
    Setup,
    /// Build the hypervisor for the bare machine
    Build,
    /// Write a bootable ISO (BIOS and UEFI), for a CD, a virtual machine or, with dd, a USB stick
    Iso(IsoArgs),
    Run(run::RunArgs),
    Test(test::TestArgs),
    /// Tell what this host can do and what is missing
    Doctor,
    /// Remove what was built; with --cache also what was provisioned
    Clean {
        /// Also remove kernels, the initial RAM disks, Bochs and the toolchain's source
        #[arg(long)]
        cache: bool,
    },
}

#[derive(clap::Args)]
struct IsoArgs {
    /// Options for the hypervisor
    #[arg(long, value_name = "OPTIONS", default_value = "console=com1,vga")]
    cmdline: String,
    /// Options for dom0's kernel
    #[arg(long, value_name = "OPTIONS", default_value = "console=hvc0 pci=nomsi")]
    dom0_cmdline: String,
    /// dom0's kernel, in place of the provisioned one
    #[arg(long, value_name = "FILE")]
    dom0_kernel: Option<PathBuf>,
    /// dom0's initial RAM disk, in place of the provisioned one
    #[arg(long, value_name = "FILE")]
    dom0_initrd: Option<PathBuf>,
    /// Where the ISO goes
    #[arg(short, long, value_name = "FILE", default_value = "target/oxen.iso")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match dispatch(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    match command {
        Command::Setup => provision::everything()?,
        Command::Build => println!("{}", build::hypervisor()?.display()),
        Command::Iso(args) => println!("{}", write_iso(args)?.display()),
        Command::Run(args) => return run::run(&args),
        Command::Test(args) => return test::test(&args),
        Command::Doctor => doctor::report(),
        Command::Clean { cache } => provision::clean(cache)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_iso(args: IsoArgs) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let (kernel, initrd) = match (args.dom0_kernel, args.dom0_initrd) {
        (Some(kernel), Some(initrd)) => (kernel, initrd),
        (kernel, initrd) => {
            let dom0 = provision::dom0(provision::Suite::Bookworm)?;
            (kernel.unwrap_or(dom0.kernel), initrd.unwrap_or(dom0.initrd))
        }
    };
    let module = |path, arguments| iso::Module { path, arguments };
    let spec = iso::IsoSpec {
        output: args.output,
        boot: iso::Boot::Hypervisor {
            image: build::hypervisor()?,
            arguments: args.cmdline,
            modules: vec![
                module(kernel, args.dom0_cmdline),
                module(initrd, String::new()),
            ],
        },
    };
    Ok(iso::build(&spec)?)
}
