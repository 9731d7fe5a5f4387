//! An unprivileged guest that makes random hypercalls from several vCPUs: the host stays up, its neighbour and dom0 are
//! not disturbed, and what it took comes back.

use std::env;

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks};

/// A seed to start from in place of the usual one; a failure names the one that it had.
const SEED_VARIABLE: &str = "OXEN_HOSTILE_SEED";
const CALLS_VARIABLE: &str = "OXEN_HOSTILE_CALLS";
const SEED: u64 = 1;
/// Pauses between two looks at the guests' consoles, in seconds, and how many looks a test is patient for.
const PAUSE: u32 = 1;
const LOOKS: u32 = 300;

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "hostile::random_hypercalls", random_hypercalls))
        .collect()
}

/// Calls in all.
const CALLS: u64 = 1_000_000;

fn random_hypercalls(name: &str, kind: Kind) -> Result<(), Failure> {
    let seed = number(SEED_VARIABLE)?.unwrap_or(SEED);
    let calls = number(CALLS_VARIABLE)?.unwrap_or(CALLS);
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest("oxen-hostile-guest")?;
    setup.machine.time_limit = None;
    let mut dom0 = setup.boot()?;
    let result = run(&mut dom0, &kernel, seed, calls);
    result.map_err(|failure| {
        Failure::from(format!(
            "with {SEED_VARIABLE}={seed} {CALLS_VARIABLE}={calls}: {failure}"
        ))
    })?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

fn run(dom0: &mut Dom0, kernel: &str, seed: u64, calls: u64) -> Result<(), Failure> {
    let free = checks::free_memory(dom0)?;
    let witness = ["memory=64", "vcpus=1", "extra=\"role=witness\""];
    checks::create_guest(dom0, "witness", kernel, &witness)?;
    wait_for(dom0, "witness", "witness: 25 rounds")?;
    let before = rounds(dom0)?;
    let arguments = format!("extra=\"seed={seed} calls={calls} vcpus=3\"");
    let hostile = ["memory=64", "vcpus=4", &arguments];
    checks::create_guest(dom0, "hostile", kernel, &hostile)?;
    wait_for(dom0, "hostile", "hostile: finished")?;
    let list = dom0.run("ox list")?;
    for guest in ["witness", "hostile"] {
        ensure!(list.contains(guest), "{guest} is not there:\n{list}");
    }
    ensure!(
        rounds(dom0)? > before,
        "the neighbour has not gone on meanwhile"
    );
    dom0.run("ox destroy hostile && ox destroy witness")?;
    let now = checks::free_memory(dom0)?;
    ensure!(
        now == free,
        "{free} MiB were free before the guests, {now} MiB are now"
    );
    Ok(())
}

/// Waits until the guest has said so, and fails as soon as one of the two has said that something failed.
fn wait_for(dom0: &mut Dom0, guest: &str, text: &str) -> Result<(), Failure> {
    let logs = "/var/log/xen/console/guest-*.log";
    let mut last = String::new();
    for _ in 0..LOOKS {
        let said = dom0
            .try_run(&format!(
                "sleep {PAUSE}; grep -h -e FAILED -e panic {logs}; ox list; tail -n 3 /var/log/xen/console/guest-{guest}.log; grep -q '{text}' /var/log/xen/console/guest-{guest}.log"
            ))?;
        ensure!(
            !said.text.contains("FAILED") && !said.text.contains("panic"),
            "{}",
            said.text
        );
        if said.status == 0 {
            return Ok(());
        }
        last = said.text;
    }
    Err(format!("{guest} has not said {text:?} in time:\n{last}").into())
}

/// Rounds that the witness has told of.
fn rounds(dom0: &mut Dom0) -> Result<u64, Failure> {
    let text = dom0.run("grep rounds /var/log/xen/console/guest-witness.log | tail -n 1")?;
    text.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("the witness says {text:?}").into())
}

/// A number from the environment, if it is set.
pub fn number(variable: &str) -> Result<Option<u64>, Failure> {
    let Ok(text) = env::var(variable) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(format!("{variable}={text}: a number is wanted").into()),
    }
}
