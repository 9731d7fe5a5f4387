//! Eight guests of three vCPUs that compute, on two CPUs: shares, caps, their own accounts, and dom0 beside them.

use std::collections::BTreeMap;

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::scheduling::{IPS, SPINNER, naps, vcpu_times};
use crate::{Case, checks};

const GUESTS: usize = 8;
/// The guests' weights; each is named `crowd-` and its place, from 1.
const WEIGHTS: [u32; GUESTS] = [256, 256, 256, 256, 512, 512, 768, 1024];
const VCPUS: u32 = 3;
const CPUS: f64 = 2.0;
/// Caps that are set later, by the guests' places, in percent of a CPU: both less than the guest would get.
const CAPS: [(usize, u32); 2] = [(1, 10), (7, 25)];
/// How far a share may be from the one that is due.
const TOLERANCE: f64 = 0.05;
/// Parts of a cap that a guest may get. A cap is a limit: of what it could not use, as others had the CPUs just then, a guest
/// keeps no more than a period's part.
const CAPPED: std::ops::Range<f64> = 0.9..1.02;
/// Accounts that may be under way to a guest's log.
const UNDER_WAY: u64 = 3;
/// How far a guest's sum of times may be from the time that passed, in nanoseconds: CPUs' clocks that differ.
const CLOCKS: u64 = 20_000;

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .map(|kind| Case::new(kind, "scheduling::crowd", crowd))
        .into()
}

fn crowd(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest(SPINNER)?;
    setup.machine.ips = IPS;
    let mut dom0 = setup.boot()?;
    // Where time is the host's, others that run there take parts of it: over a longer time they count for less. dom0's shell
    // answers within some seconds then; it would take minutes if it were one of many.
    let (seconds, patience) = match kind {
        Kind::Bochs => (8, 4.0),
        Kind::Tcg | Kind::Kvm => (20, 20.0),
    };
    dom0.run(&format!(
        "printf '%s\\n' 'name=\"crowd\"' 'type=\"pvh\"' 'kernel=\"{kernel}\"' 'memory=32' 'vcpus={VCPUS}' 'extra=\"vcpus={VCPUS} accounts=500\"' >/run/crowd.cfg"
    ))?;
    // A line of accounts has its round as its third word, and for each vCPU a bar and five numbers.
    let words = 3 + 6 * VCPUS;
    dom0.run(&format!(
        "told() {{ echo guest; awk -v from=$2 '/spin: accounts/ && NF == {words} {{ if ($3 >= from && !seen) {{ print; seen = 1 }} last = $0 }} END {{ print last }}' /var/log/xen/console/guest-crowd-$1.log; }}"
    ))?;
    let free = checks::free_memory(&mut dom0)?;
    for (index, weight) in WEIGHTS.iter().enumerate() {
        dom0.run(&format!(
            "ox create -p /run/crowd.cfg name={} cpu_weight={weight}",
            guest(index)
        ))?;
    }
    let alone = a_list(&mut dom0)?;
    dom0.run("for n in 1 2 3 4 5 6 7 8; do ox unpause crowd-$n; done")?;
    for index in 0..WEIGHTS.len() {
        checks::guest_says(&mut dom0, &guest(index), "spin: accounts 0 ", 60)?;
    }
    at_last(name, kind, || by_weight(&mut dom0, seconds))?;
    // dom0's shell goes before those that only compute.
    naps(&mut dom0, patience)?;
    let beside = a_list(&mut dom0)?;
    ensure!(
        beside < patience / 4.0 + 6.0 * alone,
        "`ox list` takes dom0 {beside:.2} s beside the guests, and {alone:.2} s alone"
    );
    at_last(name, kind, || by_cap(&mut dom0, seconds))?;
    dom0.run("for n in 1 2 3 4 5 6 7 8; do ox destroy crowd-$n || break; done; sleep 2; ox list | grep crowd; true")?;
    let after = checks::free_memory(&mut dom0)?;
    // Tables and heaps may have grown by less than that for good.
    ensure!(
        after + 1 >= free,
        "{free} MiB were free before the guests, {after} MiB are after them"
    );
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// Whether it is so, at the third time at last where time is the host's: one that stops the emulator for a tenth of a second takes that from
/// the guest that runs just then, and not from the same guest again.
fn at_last(
    name: &str,
    kind: Kind,
    mut look: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let repeats = match kind {
        Kind::Bochs => 0,
        Kind::Tcg | Kind::Kvm => 2,
    };
    for _ in 0..repeats {
        match look() {
            Ok(()) => return Ok(()),
            Err(failure) => eprintln!("{name}: looking again: {failure}"),
        }
    }
    look()
}

fn guest(index: usize) -> String {
    format!("crowd-{}", index + 1)
}

/// Seconds that `ox list` takes.
fn a_list(dom0: &mut Dom0) -> Result<f64, Failure> {
    let times =
        dom0.run("cut -d' ' -f1 /proc/uptime; ox list >/dev/null; cut -d' ' -f1 /proc/uptime")?;
    let times: Vec<f64> = times
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match times[..] {
        [before, after] => Ok(after - before),
        _ => Err(format!("dom0's uptime is {times:?}").into()),
    }
}

/// Shares follow the weights, and nothing idles.
fn by_weight(dom0: &mut Dom0, seconds: u32) -> Result<(), Failure> {
    let shares = measure(dom0, seconds)?;
    let total: f64 = shares.iter().sum();
    let weights: u32 = WEIGHTS.iter().sum();
    for (index, (share, weight)) in shares.iter().zip(WEIGHTS).enumerate() {
        let due = total * f64::from(weight) / f64::from(weights);
        is_about(&guest(index), *share, due, &shares)?;
    }
    Ok(())
}

/// Caps hold, and the others share what is left by their weights.
fn by_cap(dom0: &mut Dom0, seconds: u32) -> Result<(), Failure> {
    for (index, cap) in CAPS {
        dom0.run(&format!("ox sched-credit2 -d {} -c {cap}", guest(index)))?;
    }
    // What they had saved up is spent.
    dom0.run("sleep 2")?;
    let shares = measure(dom0, seconds)?;
    let cap = |index: usize| CAPS.iter().find(|(capped, _)| *capped == index);
    let free = || (0..WEIGHTS.len()).filter(|index| cap(*index).is_none());
    let total: f64 = free().map(|index| shares[index]).sum();
    let weights: u32 = free().map(|index| WEIGHTS[index]).sum();
    for (index, share) in shares.iter().enumerate() {
        let name = guest(index);
        let Some((_, cap)) = cap(index) else {
            let due = total * f64::from(WEIGHTS[index]) / f64::from(weights);
            is_about(&name, *share, due, &shares)?;
            continue;
        };
        let part = share * 100.0 / f64::from(*cap);
        ensure!(
            CAPPED.contains(&part),
            "{name} gets {share:.4} of a CPU with a cap of {cap} percent: {shares:.4?}"
        );
    }
    Ok(())
}

fn is_about(name: &str, share: f64, due: f64, all: &[f64]) -> Result<(), Failure> {
    ensure!(
        (share / due - 1.0).abs() <= TOLERANCE,
        "{name} gets {share:.4} of a CPU, not {due:.4}: {all:.4?}"
    );
    Ok(())
}

/// What each guest had of a CPU for some seconds, by its own accounts; these are right, and agree with dom0's.
fn measure(dom0: &mut Dom0, seconds: u32) -> Result<Vec<f64>, Failure> {
    let before = vcpu_times(dom0)?;
    let newest = read_all(dom0, [u64::MAX; GUESTS])?;
    // Those are from after dom0's first look.
    let from = newest.map(|told| told.last().map_or(0, |accounts| accounts.round) + UNDER_WAY);
    dom0.run(&format!("sleep {}", seconds + 2))?;
    let told = read_all(dom0, from)?;
    let after = vcpu_times(dom0)?;
    let ran = |times: &BTreeMap<(String, u32), u64>| times.values().sum::<u64>() as f64 / 1e9;
    let used = (ran(&after.time) - ran(&before.time)) / (after.at - before.at);
    ensure!(
        (used / CPUS - 1.0).abs() <= TOLERANCE,
        "with {} vCPUs that compute, {used:.3} of {CPUS} CPUs are used",
        WEIGHTS.len() as u32 * VCPUS
    );
    let mut shares = Vec::new();
    for (index, told) in told.iter().enumerate() {
        let name = guest(index);
        let [begin, .., end] = &told[..] else {
            return Err(format!("{name} has not told its accounts for {seconds} s").into());
        };
        ensure!(
            end.round > begin.round + u64::from(seconds) / 2,
            "{name} has told its accounts too seldom: {} to {}",
            begin.round,
            end.round
        );
        let mut share = 0.0;
        for vcpu in 0..VCPUS {
            let (from, to) = (&begin.vcpus[vcpu as usize], &end.vcpus[vcpu as usize]);
            let key = (name.clone(), vcpu);
            let bounds = (before.time.get(&key), after.time.get(&key));
            share += agree(&key, from, to, bounds)?;
        }
        shares.push(share);
    }
    Ok(shares)
}

/// A vCPU's own accounts add up to the time that passed, and what they say of running is between what dom0 saw before and
/// after. Returns which part of a CPU it had.
fn agree(
    vcpu: &(String, u32),
    from: &Vcpu,
    to: &Vcpu,
    bounds: (Option<&u64>, Option<&u64>),
) -> Result<f64, Failure> {
    let passed = to.at - from.at;
    let [running, runnable, blocked, offline] =
        [0, 1, 2, 3].map(|state: usize| to.times[state] - from.times[state]);
    let sum = running + runnable + blocked + offline;
    ensure!(
        sum.abs_diff(passed) <= CLOCKS,
        "{vcpu:?} accounts for {sum} of {passed} ns: {from:?}, {to:?}"
    );
    ensure!(
        blocked + offline == 0,
        "{vcpu:?} computes for ever and was not runnable: {from:?}, {to:?}"
    );
    let (Some(&before), Some(&after)) = bounds else {
        return Err(format!("ox vcpu-list does not have {vcpu:?}").into());
    };
    ensure!(
        before <= from.times[0] && to.times[0] <= after,
        "{vcpu:?} had run for {before} ns and then for {after} ns, and says {from:?}, {to:?}"
    );
    Ok(running as f64 / passed as f64)
}

/// One line of a guest's accounts.
struct Accounts {
    round: u64,
    vcpus: Vec<Vcpu>,
}

/// A vCPU's times in all states up to a moment of system time, in nanoseconds.
#[derive(Debug)]
struct Vcpu {
    at: u64,
    times: [u64; 4],
}

/// Of the accounts that each guest has told, the first ones from a round on, one for each guest, and the newest.
fn read_all(dom0: &mut Dom0, from: [u64; GUESTS]) -> Result<[Vec<Accounts>; GUESTS], Failure> {
    let looks = (1..)
        .zip(from)
        .map(|(number, from)| format!("told {number} {from}; "));
    let text = dom0.run(&looks.collect::<String>())?;
    let mut guests = text
        .split("guest\n")
        .skip(1)
        .map(|lines| lines.lines().filter_map(parse).collect());
    Ok(std::array::from_fn(|_| guests.next().unwrap_or_default()))
}

/// `ROUND | AT RUNNING RUNNABLE BLOCKED OFFLINE | …`; nothing of a line that is not whole.
fn parse(line: &str) -> Option<Accounts> {
    let (_, line) = line.trim_end().split_once("accounts ")?;
    let mut parts = line.split(" | ");
    let round = parts.next()?.trim().parse().ok()?;
    let vcpus = parts.map(|part| {
        let numbers: Vec<u64> = part
            .split_whitespace()
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()?;
        let [at, times @ ..] = <[u64; 5]>::try_from(numbers).ok()?;
        Some(Vcpu { at, times })
    });
    let vcpus: Vec<Vcpu> = vcpus.collect::<Option<_>>()?;
    (vcpus.len() == VCPUS as usize).then_some(Accounts { round, vcpus })
}
