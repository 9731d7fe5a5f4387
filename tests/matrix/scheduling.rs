//! How guests and dom0 share the CPUs: weights, caps, affinity, stolen time, and moves between CPUs.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks};

/// The guest that computes for ever.
pub const SPINNER: &str = "oxen-spin-guest";
/// Two of it.
const SPINNERS: [&str; 2] = ["spin-a", "spin-b"];
/// The guest with a kernel of its own.
const DEMO: &str = "/etc/oxen/demo.cfg";

/// Instructions in an emulated second, on Bochs.
pub const IPS: u64 = 40_000_000;
/// Seconds over which shares are measured.
const MEASURED: u32 = 4;
/// How far a share may be from the one that is due, in parts of a CPU: what dom0 needs meanwhile to measure it, and the
/// moments of the measurements.
const TOLERANCE: f64 = 0.06;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(kind, "scheduling::shares", shares));
        cases.push(Case::new(
            kind,
            "scheduling::stolen_time_and_moves",
            stolen_time_and_moves,
        ));
    }
    cases
}

/// Two CPUs, dom0 on the first one.
fn boot(name: &str, kind: Kind) -> Result<(Dom0, String), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let spinner = setup.add_guest(SPINNER)?;
    // Where an instruction takes one tick, guests that compute make the emulator do all of them: fewer in a second will do.
    setup.machine.ips = IPS;
    let mut dom0 = setup.boot()?;
    dom0.run("ox vcpu-pin 0 0 0")?;
    Ok((dom0, spinner))
}

/// Creates a guest that computes for ever, on the second CPU.
fn create_spinner(dom0: &mut Dom0, kernel: &str, name: &str) -> Result<(), Failure> {
    let spinner = ["memory=64", "vcpus=1", "cpus=\"1\""];
    checks::create_guest(dom0, name, kernel, &spinner)
}

fn shares(name: &str, kind: Kind) -> Result<(), Failure> {
    let (mut dom0, kernel) = boot(name, kind)?;
    let [a, b] = SPINNERS;
    for name in SPINNERS {
        create_spinner(&mut dom0, &kernel, name)?;
    }
    is_on(&mut dom0, a, 1)?;
    for (weights, due) in [((256, 256), (0.5, 0.5)), ((512, 256), (2. / 3., 1. / 3.))] {
        set(&mut dom0, a, &format!("-w {}", weights.0))?;
        set(&mut dom0, b, &format!("-w {}", weights.1))?;
        uses(&mut dom0, &format!("weights {weights:?}"), due)?;
    }
    // What the capped one leaves is the other's.
    set(&mut dom0, a, "-c 20")?;
    uses(&mut dom0, "a cap of 20", (0.2, 0.8))?;
    set(&mut dom0, b, "-c 30")?;
    uses(&mut dom0, "caps of 20 and 30", (0.2, 0.3))?;
    for name in SPINNERS {
        set(&mut dom0, name, "-w 256 -c 0")?;
    }
    // With both CPUs open to all, each has what it can use, and dom0 still answers.
    dom0.run(&format!(
        "ox vcpu-pin 0 0 all && ox vcpu-pin {a} 0 all && ox vcpu-pin {b} 0 all"
    ))?;
    uses(&mut dom0, "two CPUs for two", (1.0, 1.0))?;
    naps(&mut dom0, 1.5)?;
    dom0.run(&format!("ox vcpu-pin {a} 0 0"))?;
    dom0.run("sleep 1")?;
    is_on(&mut dom0, a, 0)?;
    let refused = dom0.try_run(&format!("ox vcpu-pin {a} 0 7"))?;
    ensure!(refused.status != 0, "a vCPU was pinned to CPU 7 of 2");
    dom0.run(&format!("ox destroy {a} && ox destroy {b}"))?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// Sets weight or cap, and looks whether it is set.
fn set(dom0: &mut Dom0, name: &str, share: &str) -> Result<(), Failure> {
    dom0.run(&format!("ox sched-credit2 -d {name} {share}"))?;
    let shown = dom0.run(&format!("ox sched-credit2 -d {name} | tail -n 1"))?;
    let words: Vec<&str> = shown.split_whitespace().collect();
    let number = share.split(' ').nth(1).unwrap_or_default();
    ensure!(
        words.contains(&number),
        "{share} was set for {name}, which now has: {shown}"
    );
    Ok(())
}

/// The vCPU runs on the given CPU and no other.
fn is_on(dom0: &mut Dom0, name: &str, cpu: u32) -> Result<(), Failure> {
    let shown = dom0.run(&format!("ox vcpu-list {name} | tail -n 1"))?;
    let words: Vec<&str> = shown.split_whitespace().collect();
    let cpu = cpu.to_string();
    // Name, ID, VCPU, CPU, state, time, hard, slash, soft.
    ensure!(
        words.get(3) == Some(&cpu.as_str()) && words.get(6) == Some(&cpu.as_str()),
        "{name} was pinned to CPU {cpu}: {shown}"
    );
    Ok(())
}

/// The two spinners get the given parts of a CPU.
fn uses(dom0: &mut Dom0, what: &str, due: (f64, f64)) -> Result<(), Failure> {
    let [a, b] = SPINNERS;
    let before = vcpu_times(dom0)?;
    dom0.run(&format!("sleep {MEASURED}"))?;
    let after = vcpu_times(dom0)?;
    let share = |name: &str| {
        let used = after.of(name)? - before.of(name)?;
        Some(used / (after.at - before.at))
    };
    for (name, due) in [(a, due.0), (b, due.1)] {
        let got = share(name).ok_or("a guest is not listed")?;
        // On both CPUs there is dom0 too.
        let least = if due == 1.0 { 0.85 } else { due - TOLERANCE };
        ensure!(
            (least..due + TOLERANCE).contains(&got),
            "{what}: {name} gets {got:.3} of a CPU, not {due:.3}"
        );
    }
    Ok(())
}

/// CPU time of all vCPUs.
pub struct Times {
    /// When that was: dom0's uptime, in seconds.
    pub at: f64,
    /// By domain and number, in nanoseconds.
    pub time: BTreeMap<(String, u32), u64>,
}

impl Times {
    /// All vCPUs of a domain, in seconds.
    fn of(&self, name: &str) -> Option<f64> {
        let own: Vec<u64> = self
            .time
            .iter()
            .filter(|((domain, _), _)| domain == name)
            .map(|(_, nanos)| *nanos)
            .collect();
        (!own.is_empty()).then(|| own.iter().sum::<u64>() as f64 / 1e9)
    }
}

/// What `ox vcpu-list` says.
pub fn vcpu_times(dom0: &mut Dom0) -> Result<Times, Failure> {
    let text = dom0.run("ox vcpu-list --json; echo uptime: $(cut -d' ' -f1 /proc/uptime)")?;
    let (mut name, mut vcpu) = (String::new(), 0);
    let mut time = BTreeMap::new();
    let mut at = f64::NAN;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim().trim_matches([',', '"']);
        match key.trim().trim_matches('"') {
            "name" => name = value.to_owned(),
            "vcpu" => vcpu = value.parse()?,
            "cpu_time_ns" => {
                time.insert((name.clone(), vcpu), value.parse()?);
            }
            "uptime" => at = value.parse()?,
            _ => {}
        }
    }
    Ok(Times { at, time })
}

/// dom0 gets a CPU soon whenever it wants one, though all CPUs are busy.
/// `limit` is in seconds: the 0.2 of the naps themselves, and as much for each as starting a process takes on a slow machine.
pub fn naps(dom0: &mut Dom0, limit: f64) -> Result<(), Failure> {
    const NAPS: u32 = 20;
    let times = dom0.run(&format!(
        "cut -d' ' -f1 /proc/uptime; n=0; while [ $n -lt {NAPS} ]; do usleep 10000; n=$((n+1)); done; cut -d' ' -f1 /proc/uptime"
    ))?;
    let times: Vec<f64> = times
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [before, after] = times[..] else {
        return Err(format!("dom0's uptime is {times:?}").into());
    };
    ensure!(
        after - before < limit,
        "{NAPS} naps of 10 ms took dom0 {:.2} s",
        after - before
    );
    Ok(())
}

/// The demo guest computes: first against a spinner on one CPU, from when it notices that on, looking at its own accounts;
/// then while it is moved to and fro, looking at what it computes.
const WORK: &str = r#"
look() { echo "$1 $(cut -d' ' -f1 /proc/uptime) $(head -n 1 /proc/stat)"; }
now() { read u _ </proc/uptime; u=${u%.*}; }
stolen() { read _ _ _ _ _ _ _ _ s _ </proc/stat; }
stolen; start=$s
echo work: ready
while [ $s -lt $((start + 20)) ]; do stolen; done
now; end=$((u + 5))
look first
while [ $u -lt $end ]; do now; done
look second
echo work: moving
sum=$(sha256sum /bin/busybox); right=0; wrong=0
now; end=$((u + 8))
while [ $u -lt $end ]; do
    if [ "$(sha256sum /bin/busybox)" = "$sum" ]; then right=$((right + 1)); else wrong=$((wrong + 1)); fi
    now
done
echo "work: $right right, $wrong wrong."
"#;

fn stolen_time_and_moves(name: &str, kind: Kind) -> Result<(), Failure> {
    let (mut dom0, kernel) = boot(name, kind)?;
    let script = STANDARD.encode(WORK);
    dom0.run(&format!(
        "ox create {DEMO} 'extra=console=hvc0 cryptomgr.notests oxen.run={script}' && ox vcpu-pin demo 0 1"
    ))?;
    printed(&mut dom0, "^work: ready")?;
    create_spinner(&mut dom0, &kernel, SPINNERS[0])?;
    let second = printed(&mut dom0, "^second")?;
    let first = printed(&mut dom0, "^first")?;
    accounts_agree(kind, &first, &second)?;
    dom0.run(&format!("ox destroy {}", SPINNERS[0]))?;
    printed(&mut dom0, "^work: moving")?;
    dom0.run("n=0; while [ $n -lt 20 ]; do ox vcpu-pin demo 0 $((n % 2)); usleep 50000; n=$((n+1)); done")?;
    let result = printed(&mut dom0, "^work: .*wrong")?;
    let numbers: Vec<u32> = result
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(
        matches!(numbers[..], [right, 0] if right > 0),
        "a guest that was moved 20 times says: {result}"
    );
    dom0.run("ox destroy demo")?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// Waits for a line of the demo guest's.
fn printed(dom0: &mut Dom0, pattern: &str) -> Result<String, Failure> {
    checks::guest_says(dom0, "demo", pattern, 120)
}

/// Of two looks at a guest's accounts, each `NAME UPTIME cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL …`: the rival has
/// stolen half of the time, and all kinds of time together are the time that went by. On a machine that goes by the host's clock
/// they may be less: a tick counts as one however late it comes when the host has others to run too.
fn accounts_agree(kind: Kind, first: &str, second: &str) -> Result<(), Failure> {
    const KINDS: usize = 8;
    /// Of `USER_HZ`, which `/proc/stat` counts in.
    const TICKS: f64 = 100.0;
    let parse = |line: &str| -> Result<Vec<f64>, Failure> {
        let words = line
            .split_whitespace()
            .filter(|word| *word != "cpu")
            .skip(1);
        let numbers: Vec<f64> = words.map(str::parse).collect::<Result<_, _>>()?;
        ensure!(numbers.len() > KINDS, "the guest's accounts are {line:?}");
        Ok(numbers)
    };
    let (first, second) = (parse(first)?, parse(second)?);
    let elapsed = second[0] - first[0];
    let spent: Vec<f64> = (1..=KINDS)
        .map(|kind| (second[kind] - first[kind]) / TICKS)
        .collect();
    let least = if kind == Kind::Bochs { 0.9 } else { 0.5 };
    let (sum, stolen) = (spent.iter().sum::<f64>(), spent[KINDS - 1]);
    ensure!(
        (least..1.03).contains(&(sum / elapsed)),
        "the guest accounts for {sum:.2} s of {elapsed:.2} s: {spent:?}"
    );
    ensure!(
        (0.5 - TOLERANCE..0.5 + TOLERANCE).contains(&(stolen / elapsed)),
        "{stolen:.2} s of {elapsed:.2} s were stolen by an equal rival"
    );
    Ok(())
}
