//! How a daemon begins, and what it says when it cannot go on.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::logging;

/// What a daemon's help says of its log.
pub const LOG_HELP: &str = "It logs a line of JSON for each thing that happens, on standard error; RUST_LOG=debug makes it say more.";

/// Reads the command line, starts the log, and does what the daemon is for. What makes that fail is logged, as all else is.
pub fn run<O: Parser>(serve: impl FnOnce(O) -> Result<ExitCode>) -> ExitCode {
    let options = O::parse();
    logging::start();
    serve(options).unwrap_or_else(|error| {
        log::error!("{error:#}");
        ExitCode::FAILURE
    })
}
