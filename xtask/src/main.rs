//! `cargo xtask`: the command line of the library beside it.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use xtask::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error with what led to it: what failed at last tells least about why.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    std::iter::once(error)
        .chain(causes)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told() {
        let error = anyhow::anyhow!("no network")
            .context("no lists")
            .context("no kernel");
        let error: Box<dyn Error + Send + Sync> = error.into();
        assert_eq!(with_causes(&*error), "no kernel: no lists: no network");
    }
}
