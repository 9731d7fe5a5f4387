//! `oxnet`: the back end of guests' network cards in Oxen's dom0.
#![forbid(unsafe_code)]

use std::env::current_exe;
use std::fs::create_dir_all;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use oxen_backend::worker::{CAPABILITIES, allow_many, say_failure};
use oxen_backend::{Journals, Manager};
use oxen_daemon::confine::{CapabilitySet, Needs, confine};
use oxen_netback::driver::Network;
use oxen_netback::worker::JOURNALS;
use oxen_netback::{hotplug, tap, worker};
use oxen_xenstore::client::Client;

/// Serves the network cards of guests: each is a TAP interface that joins a bridge.
///
/// It may be killed at any time: when it starts again it takes up all network cards, and guests notice a pause.
#[derive(Debug, Parser)]
#[command(
    name = "oxnet",
    version,
    after_help = oxen_daemon::LOG_HELP
)]
struct Options {
    /// Socket of xenstored.
    #[arg(long, default_value = oxen_xenstore::client::SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serves one network card: this program calls itself.
    #[command(hide = true)]
    Serve {
        /// What is to be served.
        job: String,
    },
}

fn main() -> ExitCode {
    oxen_daemon::run(start)
}

fn start(options: Options) -> Result<ExitCode> {
    if let Some(Verb::Serve { job }) = options.verb {
        let job = serde_json::from_str(&job).context("the task")?;
        say_failure(&worker::run(&job));
        return Ok(ExitCode::FAILURE);
    }
    give_up()?;
    let socket = options.socket;
    allow_many();
    hotplug::start(socket.clone());
    let connect = || Client::connect(&socket).map_err(std::io::Error::other);
    Manager::new(Network::new(), Journals::new(JOURNALS), connect).run()?;
    Ok(ExitCode::SUCCESS)
}

/// Gives up what neither the manager nor its workers need: they make interfaces and put them where they belong.
fn give_up() -> Result<()> {
    if !Path::new(tap::DEVICE).exists() {
        log::warn!(
            "there is no {}: load the module tun and start oxnet anew",
            tap::DEVICE
        );
    }
    create_dir_all(JOURNALS).context(JOURNALS)?;
    let program = current_exe().context("the own program's path")?;
    confine(&Needs {
        writes: &[Path::new(JOURNALS)],
        uses: &[tap::DEVICE, tap::SETTINGS, "/dev/xen"].map(Path::new),
        programs: &[&program],
        capabilities: CAPABILITIES | CapabilitySet::NET_ADMIN,
        families: &[libc::AF_INET],
        ..Needs::default()
    });
    Ok(())
}
