//! The integration matrix: one test per point (machine, CPUs, kernel, device, bad input). Run it with `cargo xtask test`, which builds what it
//! needs; names read `machine::topic::case` and can be filtered by any part.

mod bad_input;
mod bad_requests;
mod boot;
mod checks;
mod control;
mod crowd;
mod daemons;
mod debian;
mod devices;
mod disks;
mod domains;
mod grants;
mod guests;
mod hostile;
mod isolation;
mod kernels;
mod kills;
mod ledger;
mod lives;
mod many;
mod network_attacks;
mod networks;
mod pairings;
mod pending;
mod power_cut;
mod registers;
mod scheduling;
mod small;
mod stock;
mod time;

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use oxen_tests::Failure;
use xtask::machine::{Kind, kvm_usable, log_dir};
use xtask::test::{MACHINE_VARIABLE, UNTIL_VARIABLE, now};
use xtask::with_causes;

/// How much of the console a failure shows.
const TAIL_LINES: usize = 30;
/// Emulators at a time, where the command line does not say.
const DEFAULT_JOBS: usize = 2;

/// What each test that has ended took.
static TOOK: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// What a test does, given its name and its machine.
type Run = Box<dyn FnOnce(&str, Kind) -> Result<(), Failure> + Send>;

/// One test. It is given its own name, which names its files, and its machine.
struct Case {
    kind: Kind,
    name: String,
    run: Run,
}

impl Case {
    fn new(
        kind: Kind,
        name: impl Into<String>,
        run: impl FnOnce(&str, Kind) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        Self {
            kind,
            name: format!("{kind}::{}", name.into()),
            run: Box::new(run),
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(DEFAULT_JOBS);
    let machines = match machines() {
        Ok(machines) => machines,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::FAILURE;
        }
    };
    let until = match hostile::number(UNTIL_VARIABLE) {
        Ok(until) => until.unwrap_or(u64::MAX),
        Err(failure) => {
            eprintln!("{failure}");
            return ExitCode::FAILURE;
        }
    };
    let cases: Vec<Case> = [
        boot::cases,
        kernels::cases,
        devices::cases,
        time::cases,
        bad_input::cases,
        isolation::cases,
        registers::cases,
        power_cut::cases,
        domains::cases,
        hostile::cases,
        grants::cases,
        scheduling::cases,
        crowd::cases,
        stock::cases,
        control::cases,
        lives::cases,
        many::cases,
        daemons::cases,
        bad_requests::cases,
        kills::cases,
        // Those that take longest: what is short has been run where time runs out.
        disks::cases,
        disks::fio::cases,
        debian::cases,
        guests::cases,
        small::cases,
        networks::cases,
        network_attacks::cases,
        pairings::cases,
    ]
    .into_iter()
    .flat_map(|cases| cases())
    .collect();
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    if let Some(stale) = pending::stale(&names) {
        eprintln!("tests/matrix/pending.rs: no test matches {stale:?}: take it out");
        return ExitCode::FAILURE;
    }
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| machines.contains(&case.kind))
        .collect();
    let filter = arguments.filter.as_deref();
    if !arguments.list {
        for case in &cases {
            let asked_for = filter.is_none_or(|filter| case.name.contains(filter));
            if let Some(reason) = pending::reason(&case.name, filter).filter(|_| asked_for) {
                println!("skipped: {}: {reason}", case.name);
            }
        }
    }
    let trials = (cases.into_iter())
        .map(|case| trial(case, filter, until))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    tell_what_took_longest();
    conclusion.exit_code()
}

/// The tests that a reader who wants a faster run looks at first.
fn tell_what_took_longest() {
    const SHOWN: usize = 12;
    let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    for (name, time) in took.iter().take(SHOWN) {
        println!("{:6.0} s {name}", time.as_secs_f64());
    }
}

/// Machines to test on: the one that was asked for, or all that work here.
fn machines() -> Result<Vec<Kind>, String> {
    match env::var(MACHINE_VARIABLE).as_deref() {
        Err(_) | Ok("" | "auto") => Ok([Kind::Tcg, Kind::Bochs]
            .into_iter()
            .chain(kvm_usable().is_ok().then_some(Kind::Kvm))
            .collect()),
        Ok("tcg") => Ok(vec![Kind::Tcg]),
        Ok("bochs") => Ok(vec![Kind::Bochs]),
        Ok("kvm") => kvm_usable().map(|()| vec![Kind::Kvm]),
        Ok(other) => Err(format!(
            "{MACHINE_VARIABLE}={other}: use auto, kvm, bochs or tcg"
        )),
    }
}

/// A test for the library that runs them, which is not begun after `until`.
fn trial(case: Case, filter: Option<&str>, until: u64) -> Trial {
    let skipped = pending::reason(&case.name, filter).is_some();
    let Case { kind, name, run } = case;
    let own_name = name.clone();
    Trial::ignorable_test(name, move || {
        if now() > until {
            return Ok(Completion::ignored_with("its time is over (--within)"));
        }
        // A panic is a failure of this test only, and its console is as worth showing as any other's.
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(&own_name, kind)));
        TOOK.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((own_name.clone(), start.elapsed()));
        let text = match result {
            Ok(Ok(())) => return Ok(Completion::Completed),
            Ok(Err(failure)) => with_causes(&*failure),
            Err(_) => "the test panicked".to_owned(),
        };
        // A run that is cut off would never get to the list of failures at its end.
        eprintln!("{own_name}: {text}");
        Err(Failed::from(format!("{text}\n{}", console_tail(&own_name))))
    })
    .with_ignored_flag(skipped)
}

fn console_tail(name: &str) -> String {
    let path = log_dir().join(format!("{}.log", name.replace("::", "-")));
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        // Encoded output of the shell's commands tells a reader nothing.
        .filter(|line| !line.is_empty() && !line.starts_with("@@"))
        .collect();
    let shown = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  | ");
    format!("  | {shown}\nwhole console log: {}", path.display())
}
