//! `oxblk`: the back end of PV disks in Oxen's dom0.
#![forbid(unsafe_code)]

use std::env::current_exe;
use std::fs::create_dir_all;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use oxen_backend::{Journals, Manager, worker};
use oxen_blkback::driver::Disks;
use oxen_blkback::worker::{FOLDER, Serve, serve};
use oxen_daemon::confine::{CapabilitySet, Needs, confine};
use oxen_xenstore::client::Client;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Serves the disks of guests: files, raw or qcow2, and block devices of this domain.
///
/// It may be killed at any time, and so may each of the processes that serve a disk: what guests had asked for is done when it starts
/// again, and they notice a pause.
#[derive(Debug, Parser)]
#[command(
    name = "oxblk",
    version,
    after_help = oxen_daemon::LOG_HELP
)]
struct Options {
    /// Socket of xenstored
    #[arg(long, default_value = oxen_xenstore::client::SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve one disk; this is how it starts itself
    #[command(hide = true)]
    Serve(Serve),
}

fn main() -> ExitCode {
    oxen_daemon::run(start)
}

fn start(options: Options) -> Result<ExitCode> {
    if let Some(Role::Serve(arguments)) = options.role {
        return Ok(match serve(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                worker::say_failure(&failure);
                ExitCode::FAILURE
            }
        });
    }
    give_up()?;
    worker::allow_many();
    let connect = || Client::connect(&options.socket).map_err(io::Error::other);
    Manager::new(Disks::default(), Journals::new(FOLDER), connect).run()?;
    Ok(ExitCode::SUCCESS)
}

/// Gives up what neither the manager nor its workers need. Images may be anywhere and anybody's.
fn give_up() -> Result<()> {
    create_dir_all(FOLDER).context(FOLDER)?;
    // Workers have memory that the kernel keeps for their I/O, and all of them count as one user's.
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        log::warn!("the limit of locked memory stays: {error}");
    }
    let program = current_exe().context("the own program's path")?;
    confine(&Needs {
        writes: &[Path::new(FOLDER)],
        uses: &[Path::new("/")],
        programs: &[&program],
        capabilities: worker::CAPABILITIES | CapabilitySet::DAC_OVERRIDE,
        calls: &[libc::SYS_io_uring_setup],
        ..Needs::default()
    });
    Ok(())
}
