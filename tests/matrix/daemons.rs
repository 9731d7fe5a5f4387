//! What dom0's daemons may do, and that no guest's console keeps another's waiting.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks, ledger};

/// Tries what a confined process cannot do (`dom0-tools/daemon/examples/confined.rs`).
const PROBE: &str = "usr/sbin/confined";

/// A daemon, the shell's way to its process, its capabilities (bit 2 is `CAP_DAC_READ_SEARCH`), and the devices that it has open
/// beside its standard files.
const DAEMONS: [(&str, &str, u64, &[&str]); 3] = [
    (
        "xenstored",
        "pidof xenstored",
        0,
        &["/dev/xen/evtchn", "/dev/xen/hypercall", "/dev/xen/privcmd"],
    ),
    (
        "xenconsoled",
        "pidof xenconsoled",
        0,
        &["/dev/xen/evtchn", "/dev/xen/gntdev"],
    ),
    (
        "supervisor",
        "supervisor",
        1 << 2,
        &["/dev/xen/hypercall", "/dev/xen/privcmd"],
    ),
];

/// Seconds for which two guests write.
const SECONDS: u64 = 6;
/// Bytes that a guest's console takes in a second and at once (`xenconsoled/src/budget.rs`), and a log file holds.
const RATE: u64 = 1 << 20;
const BURST: u64 = 1 << 20;
const LOG: u64 = 1 << 20;

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "daemons::confined_and_fair", confined_and_fair))
        .collect()
}

fn confined_and_fair(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest("oxen-visitor-guest")?;
    let probe = xtask::build::dom0_example("oxen-daemon", "confined")?;
    setup.add_file(PROBE, &probe)?;
    ledger::add_to(&mut setup)?;
    let mut dom0 = setup.boot()?;
    ledger::prepare(&mut dom0)?;
    confinement_works(&mut dom0)?;
    dom0.run(&format!(
        "printf '%s\\n' 'type=\"pvh\"' 'kernel=\"{kernel}\"' 'memory=32' 'name=\"quiet\"' >/run/visitor.cfg"
    ))?;
    dom0.run("ox create -p /run/visitor.cfg && ox destroy quiet")?;
    let before = ledger::take(&mut dom0)?;
    // As they were started, and as they start again.
    daemons_are_confined(&mut dom0)?;
    dom0.run("kill -9 $(pidof xenconsoled) $(pidof xenstored) $(supervisor); n=0; until [ \"$(pidof xenconsoled)\" ] && [ \"$(supervisor)\" ] && ox store stats; do sleep 0.5; n=$((n+1)); [ $n -lt 60 ] || break; done; sleep 3")?;
    daemons_are_confined(&mut dom0)?;
    floods_disturb_nobody(&mut dom0)?;
    ledger::balances(&mut dom0, &before)?;
    logs_are_lines_of_json(&mut dom0)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// On dom0's own kernel, with all that it can refuse.
fn confinement_works(dom0: &mut Dom0) -> Result<(), Failure> {
    let said = dom0.run(&format!(
        "chmod +x /{PROBE}; mkdir /run/own; confined /run/own; rm -r /run/own"
    ))?;
    for wanted in [
        "own file: done",
        "own file again: done",
        "local socket: done",
        "other file: PermissionDenied",
        "other directory: PermissionDenied",
        "program: PermissionDenied",
        "network: PermissionDenied",
        "thread: PermissionDenied",
        "opened before: true; of itself: Some(PermissionDenied)",
    ] {
        ensure!(said.contains(wanted), "not {wanted:?} but:\n{said}");
    }
    Ok(())
}

fn daemons_are_confined(dom0: &mut Dom0) -> Result<(), Failure> {
    for (name, process, capabilities, devices) in DAEMONS {
        let status = dom0.run(&format!("cat /proc/$({process})/status"))?;
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        for (key, wanted) in [
            ("CapEff:", capabilities),
            ("CapPrm:", capabilities),
            ("CapBnd:", capabilities),
            ("CapInh:", 0),
            ("CapAmb:", 0),
        ] {
            let has = field(key);
            ensure!(
                u64::from_str_radix(&has, 16) == Ok(wanted),
                "{name} has {key} {has}, not {wanted:#x}"
            );
        }
        for (key, wanted) in [("NoNewPrivs:", "1"), ("Seccomp:", "2")] {
            let has = field(key);
            ensure!(has == wanted, "{name} has {key} {has}, not {wanted}");
        }
        let open = dom0.run(&format!(
            "ls -l /proc/$({process})/fd | sed -n 's/.* -> \\(.dev.xen.*\\)/\\1/p' | sort -u"
        ))?;
        let open: Vec<&str> = open.lines().collect();
        ensure!(open == devices, "{name} has {open:?} open, not {devices:?}");
    }
    Ok(())
}

/// A guest that writes without pause is held to its rate and its log's size; another's lines come in as ever, and what is typed is
/// not asked for by either.
fn floods_disturb_nobody(dom0: &mut Dom0) -> Result<(), Failure> {
    const BEATS_A_SECOND: u64 = 10;
    dom0.run("ox create /run/visitor.cfg")?;
    dom0.run("ox create /run/visitor.cfg name=flood extra=then=flood")?;
    dom0.run("cd /var/log/xen/console; n=0; until grep -q beat guest-quiet.log && grep -q 'flood [1-9]' guest-flood.log || [ $n = 300 ]; do sleep 1; n=$((n+1)); done; cd; [ $n -lt 300 ]")?;
    // The newest line is not whole yet, and the one before it may be in the file before.
    dom0.run("newest() { cat /var/log/xen/console/guest-flood.log.1 /var/log/xen/console/guest-flood.log 2>/dev/null | tail -n 2 | head -n 1; }")?;
    let look = "grep -c beat /var/log/xen/console/guest-quiet.log; newest | grep -o 'flood [0-9]* ' | grep -o '[0-9]*'; cut -d. -f1 /proc/uptime";
    let first = numbers(&dom0.run(look)?)?;
    dom0.run(&format!("sleep {SECONDS}"))?;
    let then = numbers(&dom0.run(look)?)?;
    let [beats, lines, seconds] = [0, 1, 2].map(|at| then[at] - first[at]);
    ensure!(
        beats >= seconds * BEATS_A_SECOND / 2,
        "{beats} signs of life in {seconds} s beside a flood"
    );
    let line = dom0.run("newest | wc -c")?;
    let bytes = lines * numbers(&line)?[0];
    // The clock shows whole seconds, and is read apart from the log.
    let most = BURST + RATE * (seconds + 2);
    ensure!(
        lines > 0 && bytes <= most,
        "a flood of {bytes} bytes in {seconds} s: at most {most}"
    );
    let sizes = numbers(
        &dom0
            .run("wc -c /var/log/xen/console/guest-flood.log* | grep guest | awk '{ print $1 }'")?,
    )?;
    ensure!(
        sizes.iter().all(|size| *size <= LOG),
        "the logs of a flood have {sizes:?} bytes"
    );
    dom0.run("ox destroy flood && ox destroy quiet && rm -f /var/log/xen/console/*")?;
    Ok(())
}

/// But for the word of the shell that starts them again.
fn logs_are_lines_of_json(dom0: &mut Dom0) -> Result<(), Failure> {
    let others = dom0.run("cd /var/log/xen; cat xenstored.log xenconsoled.log supervisor.log | grep -v -e '^{\".*}$' -e '^Killed$'; cd")?;
    ensure!(others.is_empty(), "the daemons' logs hold:\n{others}");
    let restarts = dom0.run(
        "cd /var/log/xen; cat xenstored.log xenconsoled.log ox.log | grep -c 'it starts again'; cd",
    )?;
    ensure!(restarts == "3", "{restarts} daemons were started again");
    Ok(())
}

fn numbers(text: &str) -> Result<Vec<u64>, Failure> {
    text.lines()
        .map(|line| line.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|_| format!("these are no numbers: {text:?}").into())
}
