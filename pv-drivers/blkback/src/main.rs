//! `oxblk`: the back end of PV disks in Oxen's dom0.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use oxen_backend::{Manager, worker};
use oxen_blkback::driver::Disks;
use oxen_blkback::worker::{Serve, serve};
use oxen_xenstore::client::Client;

/// Serves the disks of guests: files and block devices of this domain.
///
/// It may be killed at any time, and so may each of the processes that serve a disk: what guests had asked for is done when it starts
/// again, and they notice a pause.
#[derive(Debug, Parser)]
#[command(
    name = "oxblk",
    version,
    after_help = "RUST_LOG=debug makes it say more on standard error."
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

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    if let Some(Role::Serve(arguments)) = options.role {
        return Ok(match serve(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                worker::say_failure(&failure);
                ExitCode::FAILURE
            }
        });
    }
    let connect = || Client::connect(&options.socket).map_err(io::Error::other);
    Manager::new(Disks::default(), connect).run()?;
    Ok(ExitCode::SUCCESS)
}
