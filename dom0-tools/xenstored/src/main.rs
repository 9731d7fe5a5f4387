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

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

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
    after_help = "RUST_LOG=debug makes it say more on standard error."
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

fn main() -> Result<()> {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    if options.no_domains {
        serve(&options, NoDevices::default())
    } else {
        let hint = "cannot use the hypervisor; --no-domains serves the socket without one";
        serve(&options, Xen::open().context(hint)?)
    }
}

fn serve(options: &Options, devices: impl Devices) -> Result<()> {
    let (journal, records) = Journal::open(&options.state)?;
    let sockets = Sockets::open(&options.socket)?;
    let mut daemon = Daemon::start(devices, sockets, journal, records)?;
    log::info!("serving {}", options.socket.display());
    daemon.run()
}
