//! `cargo xtask`: the command line of the library beside it.

use std::process::ExitCode;

use clap::Parser;
use xtask::cli::Cli;
use xtask::with_causes;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}
