//! `xenconsoled`: the console daemon of Oxen's dom0.
#![forbid(unsafe_code)]

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use oxen_daemon::confine::{Needs, confine};

use oxen_xenconsoled::daemon::{Daemon, Logs, XenHost};
use oxen_xenconsoled::store::XenStore;

/// Puts the consoles of guests on ptys, for `ox console`, and into log files.
///
/// It may be killed at any time: when it starts again it takes up the consoles of all guests that run, and what they wrote
/// meanwhile is in their rings. Each log file is followed by one with the suffix `.1` that has what was before.
#[derive(Debug, Parser)]
#[command(
    name = "xenconsoled",
    version,
    after_help = oxen_daemon::LOG_HELP
)]
struct Options {
    /// Directory of the log files, guest-NAME.log.
    #[arg(long, default_value = "/var/log/xen/console")]
    log_directory: PathBuf,
    /// Largest size of a log file, in KiB; a guest has two.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(4..))]
    log_size: u32,
    /// Socket of xenstored.
    #[arg(long, default_value = oxen_xenstore::client::SOCKET)]
    socket: PathBuf,
}

fn main() -> ExitCode {
    oxen_daemon::run(serve)
}

fn serve(options: Options) -> Result<ExitCode> {
    let host = XenHost::open()?;
    // Consoles may show secrets: only root reads their logs.
    let directory = options.log_directory.as_path();
    (DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory))
    .with_context(|| format!("{}: cannot be created", directory.display()))?;
    // The ptys are opened as guests come.
    let own = [directory, Path::new("/dev/ptmx"), Path::new("/dev/pts")];
    confine(&Needs {
        writes: &own,
        ..Needs::default()
    });
    let logs = Logs {
        directory: directory.to_owned(),
        limit: u64::from(options.log_size) << 10,
    };
    let socket = options.socket;
    Daemon::new(host, logs, || XenStore::connect(&socket)).run()?;
    Ok(ExitCode::SUCCESS)
}
