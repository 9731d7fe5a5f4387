//! `cargo xtask test`: the host tests, then the integration matrix on emulated machines.

mod miri;

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use clap::ValueEnum;

use crate::build;
use crate::machine::{self, Choice};

/// Names the machines that the matrix runs on, for the test binary: `auto`, or one machine.
pub const MACHINE_VARIABLE: &str = "OXEN_TEST_MACHINE";
/// The QEMU binary, for the test binary.
pub const QEMU_VARIABLE: &str = "OXEN_QEMU";
/// The Bochs binary, for the test binary.
pub const BOCHS_VARIABLE: &str = "OXEN_BOCHS";

/// When the matrix stops beginning tests, in seconds since the epoch, for the test binary.
pub const UNTIL_VARIABLE: &str = "OXEN_TEST_UNTIL";

/// Run the host tests, then the integration matrix on emulated machines
#[derive(Clone, Debug, clap::Args)]
pub struct TestArgs {
    /// Run only tests whose name contains this
    pub filter: Option<String>,
    /// The machine for the matrix; auto is every machine that works here
    #[arg(long, value_enum, default_value_t)]
    pub machine: Choice,
    /// Emulators at a time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Only the host tests
    #[arg(long, conflicts_with = "matrix")]
    pub host: bool,
    /// Only the integration matrix
    #[arg(long)]
    pub matrix: bool,
    /// Only tests of what shares memory with a peer, under Miri, which finds undefined behaviour (toolchain nightly)
    #[arg(long, conflicts_with_all = ["host", "matrix"])]
    pub miri: bool,
    /// Also run the tests that are listed as pending
    #[arg(long)]
    pub include_pending: bool,
    /// Begin no test of the matrix later than so many minutes from now; those that are left out are named
    #[arg(long, value_name = "MINUTES")]
    pub within: Option<u64>,
    /// The QEMU binary
    #[arg(long, value_name = "FILE")]
    pub qemu: Option<PathBuf>,
    /// The Bochs binary
    #[arg(long, value_name = "FILE")]
    pub bochs: Option<PathBuf>,
}

impl TestArgs {
    /// Whether machines are to be emulated.
    pub const fn uses_machines(&self) -> bool {
        !self.host && !self.miri
    }
}

/// Runs both parts, whichever was not left out; the second also when the first failed, so that one run tells everything.
///
/// # Errors
/// When cargo cannot be started, or a machine, or Miri, was asked for that does not work here.
pub fn test(args: &TestArgs) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    if args.miri {
        return Ok(exit_code(miri::test(args.filter.as_deref())?));
    }
    let until = args.within.map(|minutes| now() + minutes * 60);
    let mut passed = true;
    if !args.matrix {
        eprintln!("host tests");
        for part in host_arguments(args) {
            passed &= cargo(&part).status()?.success();
        }
        if let Some(part) = all_orders_arguments(args) {
            passed &= cargo(&part).status()?.success();
        }
    }
    if !args.host {
        if args.machine != Choice::Auto {
            machine::choose(args.machine)?;
        }
        eprintln!(
            "integration matrix (console logs in {})",
            machine::log_dir().display()
        );
        let name = args
            .machine
            .to_possible_value()
            .map(|value| value.get_name().to_owned());
        let mut command = cargo(&matrix_arguments(args));
        command.env(MACHINE_VARIABLE, name.unwrap_or_default());
        for (variable, path) in [(QEMU_VARIABLE, &args.qemu), (BOCHS_VARIABLE, &args.bochs)] {
            if let Some(path) = path {
                command.env(variable, path);
            }
        }
        if let Some(until) = until {
            command.env(UNTIL_VARIABLE, until.to_string());
        }
        passed &= command.status()?.success();
    }
    Ok(exit_code(passed))
}

const fn exit_code(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_secs())
}

fn cargo(arguments: &[OsString]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// All that is built for the host: every package but those for the bare machine, and of the integration tests their framework.
fn host_arguments(args: &TestArgs) -> [Vec<OsString>; 2] {
    let mut packages = vec!["--workspace", "--exclude", "oxen-tests"];
    for package in build::PACKAGES {
        packages.extend(["--exclude", package]);
    }
    let framework = ["--package", "oxen-tests", "--lib"];
    [&packages[..], &framework[..]].map(|selection| {
        let words = ["test", "--quiet"].iter().chain(selection).map(Into::into);
        words.chain(args.filter.as_ref().map(Into::into)).collect()
    })
}

/// Nothing but the tests that try all orders of what threads do, in a build of their own: with loom's atomics others cannot
/// run. They are named after the module that they are in.
fn all_orders_arguments(args: &TestArgs) -> Option<Vec<OsString>> {
    const MODULE: &str = "all_orders";
    let filter = args.filter.as_deref().unwrap_or(MODULE);
    let words = ["test", "--quiet"].iter().chain(&build::ALL_ORDERS);
    let words = words.map(Into::into);
    filter
        .contains(MODULE)
        .then(|| words.chain([filter.into()]).collect())
}

fn matrix_arguments(args: &TestArgs) -> Vec<OsString> {
    let mut list: Vec<OsString> = [
        "test",
        "--quiet",
        "--package",
        "oxen-tests",
        "--test",
        "matrix",
        "--",
    ]
    .map(Into::into)
    .to_vec();
    list.extend(args.filter.as_ref().map(Into::into));
    list.push(format!("--test-threads={}", args.jobs).into());
    if args.include_pending {
        list.push("--include-ignored".into());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> TestArgs {
        TestArgs {
            filter: Some("boot".into()),
            machine: Choice::Auto,
            jobs: 1,
            host: false,
            matrix: false,
            miri: false,
            include_pending: true,
            within: None,
            qemu: None,
            bochs: None,
        }
    }

    #[test]
    fn a_filter_reaches_both_parts() {
        let args = arguments();
        assert!(
            host_arguments(&args)
                .iter()
                .all(|part| part.contains(&"boot".into()))
        );
        let matrix = matrix_arguments(&args);
        assert!(matrix.contains(&"boot".into()) && matrix.contains(&"--test-threads=1".into()));
        assert!(matrix.contains(&"--include-ignored".into()));
        assert_eq!(all_orders_arguments(&args), None);
    }

    #[test]
    fn tests_of_all_orders_run_alone() {
        let last = |filter: Option<&str>| {
            let args = TestArgs {
                filter: filter.map(Into::into),
                ..arguments()
            };
            all_orders_arguments(&args).and_then(|words| words.last().cloned())
        };
        assert_eq!(last(None), Some("all_orders".into()));
        assert_eq!(
            last(Some("ring::all_orders")),
            Some("ring::all_orders".into())
        );
        assert_eq!(last(Some("ring::tests")), None);
    }
}
