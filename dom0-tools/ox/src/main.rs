//! `ox`, the command line of Oxen: domains with xl's verbs and xl's configuration syntax.
//!
//! [`cli`] says what can be typed, [`commands`] does it, [`host`] is the way to hypervisor and xenstore. The commands know these
//! only as traits, so that tests run them against a host that is not there.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod console;
mod devices;
mod disks;
mod dump;
mod ending;
mod failure;
mod host;
mod make;
mod names;
mod output;
mod records;
mod settings;
mod supervise;
#[cfg(test)]
mod tests;
mod top;
mod tree;
mod vifs;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let level = if cli.verbose { "debug" } else { "info" };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("OX_LOG", level))
        .format(|out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "{level}: {}", record.args())
        })
        .init();
    let mut host = host::Machine::default();
    let mut out = std::io::stdout().lock();
    let result = commands::run(cli.command, &mut host, &mut out)
        .and_then(|()| out.flush().map_err(failure::Failure::from));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough, as in `ox dmesg | head`.
        Err(failure::Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
