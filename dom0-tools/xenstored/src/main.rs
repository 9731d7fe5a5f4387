//! `xenstored`: the xenstore daemon of Oxen's dom0.

#![deny(unsafe_code)]

mod daemon;
mod devices;
mod journal;
mod position;
mod rings;
mod sockets;
#[cfg(test)]
mod tests;
#[allow(unsafe_code)]
mod xen;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use oxen_daemon::confine::{Needs, confine};

use daemon::Daemon;
use devices::{Devices, NoDevices};
use journal::Journal;
use sockets::Sockets;
use xen::Xen;

/// Keeps the database through which dom0's tools and the guests find each other.
///
/// It may be killed at any time: what it must know is in the state file, and guests notice nothing when it starts
/// again. Programs on the socket connect anew.
#[derive(Debug, Parser)]
#[command(
    name = "xenstored",
    version,
    after_help = oxen_daemon::LOG_HELP
)]
struct Options {
    /// Socket that programs of dom0 connect to.
    #[arg(long, default_value = oxen_xenstore::client::SOCKET)]
    socket: PathBuf,
    /// File that the state is kept in; on a tmpfs, because a new start of the machine begins with nothing.
    #[arg(long, default_value = "/run/xenstored/state")]
    state: PathBuf,
    /// Serve the socket only and use no Xen device: for tests on a host without a hypervisor.
    #[arg(long)]
    no_domains: bool,
}

fn main() -> ExitCode {
    oxen_daemon::run(|options: Options| {
        if options.no_domains {
            serve(&options, NoDevices::default())?;
        } else {
            let hint = "cannot use the hypervisor; --no-domains serves the socket without one";
            serve(&options, Xen::open().context(hint)?)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn serve(options: &Options, devices: impl Devices) -> Result<()> {
    let (journal, records) = Journal::open(&options.state)?;
    let sockets = Sockets::open(&options.socket)?;
    let mut daemon = Daemon::start(devices, sockets, journal, records)?;
    let own = [&options.socket, &options.state].map(|path| path.parent());
    let own: Vec<&Path> = own.into_iter().flatten().collect();
    confine(&Needs {
        writes: &own,
        ..Needs::default()
    });
    log::info!("serving {}", options.socket.display());
    daemon.run()
}
