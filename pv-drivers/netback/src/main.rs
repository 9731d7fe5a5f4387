//! `oxnet`: the back end of guests' network cards in Oxen's dom0.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use oxen_backend::{Manager, worker::say_failure};
use oxen_netback::driver::Network;
use oxen_netback::{hotplug, worker};
use oxen_xenstore::client::Client;

/// Serves the network cards of guests: each is a TAP interface that joins a bridge.
///
/// It may be killed at any time: when it starts again it takes up all network cards, and guests notice a pause.
#[derive(Debug, Parser)]
#[command(
    name = "oxnet",
    version,
    after_help = "RUST_LOG=debug makes it say more on standard error."
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

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    if let Some(Verb::Serve { job }) = options.verb {
        let job = serde_json::from_str(&job).context("the task")?;
        say_failure(&worker::run(&job));
        return Ok(ExitCode::FAILURE);
    }
    let socket = options.socket;
    hotplug::start(socket.clone());
    let connect = || Client::connect(&socket).map_err(std::io::Error::other);
    Manager::new(Network::new(), connect).run()?;
    Ok(ExitCode::SUCCESS)
}
