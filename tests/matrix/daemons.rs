//! What dom0's daemons may do, and that no guest's console keeps another's waiting.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks, ledger};

/// Tries what a confined process cannot do (`dom0-tools/daemon/examples/confined.rs`).
const PROBE: &str = "usr/sbin/confined";

/// What a daemon may do.
struct Daemon {
    name: &'static str,
    /// The shell's way to its process.
    process: &'static str,
    user: u32,
    /// Capabilities that it has, by their numbers, and those that it could get from a program that it starts.
    has: &'static [u32],
    could_get: &'static [u32],
    /// Xen's devices that it has open.
    devices: &'static [&'static str],
}

// Numbers of capabilities.
const DAC_OVERRIDE: u32 = 1;
const DAC_READ_SEARCH: u32 = 2;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_ADMIN: u32 = 12;

const ROOT: u32 = 0;
const NOBODY: u32 = 65534;
const EVENTS_AND_GRANTS: &[&str] = &["/dev/xen/evtchn", "/dev/xen/gntdev"];
const OF_OXBLK: &[u32] = &[DAC_OVERRIDE, KILL, SETGID, SETUID];
const OF_OXNET: &[u32] = &[KILL, SETGID, SETUID, NET_ADMIN];

const DAEMONS: [Daemon; 5] = [
    Daemon {
        name: "xenstored",
        process: "pidof xenstored",
        user: ROOT,
        has: &[],
        could_get: &[],
        devices: &["/dev/xen/evtchn", "/dev/xen/hypercall", "/dev/xen/privcmd"],
    },
    Daemon {
        name: "xenconsoled",
        process: "pidof xenconsoled",
        user: ROOT,
        has: &[],
        could_get: &[],
        devices: EVENTS_AND_GRANTS,
    },
    Daemon {
        name: "supervisor",
        process: "supervisor",
        user: ROOT,
        has: &[DAC_READ_SEARCH],
        could_get: &[DAC_READ_SEARCH],
        devices: &["/dev/xen/hypercall", "/dev/xen/privcmd"],
    },
    Daemon {
        name: "oxblk",
        process: "ps | awk '/[o]xblk$/ { print $1 }'",
        user: ROOT,
        has: OF_OXBLK,
        could_get: OF_OXBLK,
        devices: &[],
    },
    Daemon {
        name: "oxnet",
        process: "ps | awk '/[o]xnet$/ { print $1 }'",
        user: ROOT,
        has: OF_OXNET,
        could_get: OF_OXNET,
        devices: &[],
    },
];

/// Those that serve a guest's disk and its network card.
const WORKERS: [Daemon; 2] = [
    Daemon {
        name: "oxblk's worker",
        process: "ps | awk '/[o]xblk serve/ { print $1 }'",
        user: NOBODY,
        has: &[],
        could_get: OF_OXBLK,
        devices: EVENTS_AND_GRANTS,
    },
    Daemon {
        name: "oxnet's worker",
        process: "ps | awk '/[o]xnet serve/ { print $1 }'",
        user: NOBODY,
        has: &[],
        could_get: OF_OXNET,
        devices: EVENTS_AND_GRANTS,
    },
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
    setup.add_program(PROBE, &probe)?;
    let mut dom0 = ledger::boot(setup)?;
    confinement_works(&mut dom0)?;
    dom0.run(&format!(
        "printf '%s\\n' 'type=\"pvh\"' 'kernel=\"{kernel}\"' 'memory=32' 'name=\"quiet\"' >/run/visitor.cfg"
    ))?;
    dom0.run("ox create -p /run/visitor.cfg && ox destroy quiet")?;
    workers_are_confined(&mut dom0)?;
    let before = ledger::take(&mut dom0)?;
    // As they were started, and as they start again.
    are_confined(&mut dom0, &DAEMONS)?;
    dom0.run("kill -9 $(pidof xenconsoled) $(pidof xenstored) $(supervisor); n=0; until [ \"$(pidof xenconsoled)\" ] && [ \"$(supervisor)\" ] && ox store stats; do sleep 0.5; n=$((n+1)); [ $n -lt 60 ] || break; done; sleep 3")?;
    are_confined(&mut dom0, &DAEMONS)?;
    floods_disturb_nobody(&mut dom0)?;
    ledger::balances(&mut dom0, &before)?;
    logs_are_lines_of_json(&mut dom0)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// On dom0's own kernel, with all that it can refuse.
fn confinement_works(dom0: &mut Dom0) -> Result<(), Failure> {
    let said = dom0.run("mkdir /run/own; confined /run/own; rm -r /run/own /run/own.used")?;
    for wanted in [
        "own file: done",
        "own file again: done",
        "local socket: done",
        "used file: done",
        "used file gone: PermissionDenied",
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

/// They serve a guest that has no drivers: it only says where the rings are.
fn workers_are_confined(dom0: &mut Dom0) -> Result<(), Failure> {
    dom0.run("head -c 1048576 /dev/zero >/run/image && ox create /run/visitor.cfg name=served extra=then=devices \"disk=['/run/image,raw,xvda,w']\" \"vif=['bridge=xenbr0']\"")?;
    dom0.run("connected() { ox block-list served | grep -q connected && ox network-list served | grep -q connected; }; n=0; until connected || [ $n = 60 ]; do sleep 0.5; n=$((n+1)); done; connected || { ox block-list; ox network-list; cat /var/log/xen/oxblk.log /var/log/xen/oxnet.log; false; }")?;
    // They confine themselves before they serve, a moment after they are started.
    dom0.run("sleep 1")?;
    are_confined(dom0, &WORKERS)?;
    dom0.run("ox destroy served && rm /run/image")?;
    Ok(())
}

fn are_confined(dom0: &mut Dom0, daemons: &[Daemon]) -> Result<(), Failure> {
    for daemon in daemons {
        let (name, process) = (daemon.name, daemon.process);
        let status = dom0.run(&format!("cat /proc/$({process})/status"))?;
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        let mask = |numbers: &[u32]| numbers.iter().fold(0_u64, |mask, bit| mask | 1 << bit);
        for (key, wanted) in [
            ("CapEff:", daemon.has),
            ("CapPrm:", daemon.has),
            ("CapBnd:", daemon.could_get),
            ("CapInh:", &[]),
            ("CapAmb:", &[]),
        ] {
            let (has, wanted) = (field(key), mask(wanted));
            ensure!(
                u64::from_str_radix(&has, 16) == Ok(wanted),
                "{name} has {key} {has}, not {wanted:#x}"
            );
        }
        let user = daemon.user.to_string();
        for key in ["Uid:", "Gid:"] {
            let has = field(key);
            ensure!(
                has.split_whitespace().eq([user.as_str(); 4]),
                "{name} has {key} {has}, not {user}"
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
        ensure!(
            open == daemon.devices,
            "{name} has {open:?} open, not {:?}",
            daemon.devices
        );
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
    let others = dom0.run("cd /var/log/xen; cat xenstored.log xenconsoled.log supervisor.log oxblk.log oxnet.log | grep -v -e '^{\".*}$' -e '^Killed$'; cd")?;
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
