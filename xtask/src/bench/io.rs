//! What a guest's reads, writes and packets cost with our back ends, against Linux's own, in the same run: the same guests have a
//! disk and a card of each.
//!
//! All ticks between two looks are somebody's: the guests', dom0's, the hypervisor's, or nobody's. A load is run with two sizes, and
//! the difference is divided by that of the sizes: starting the program, typing and looking cost nothing then. Where guests and dom0
//! share the only CPU its ticks are the speed; where guests have another CPU than dom0 it is the time that passes.

mod cost;

use anyhow::{Context, Result};

use super::shell::Shell;
use super::{Bench, Row, boot};
use crate::build;
use crate::provision::newc::Newc;
use crate::provision::{self, fio, initrd};
use cost::Cost;

/// Memory of the machine and of dom0, in MiB.
const MEMORY: u32 = 1536;
const DOM0_MEMORY: u32 = 640;
/// Guests' initial RAM disk in dom0, with the programs that are the load, and shell functions of dom0's.
const INITRD: &str = "/boot/guest/load";
const FUNCTIONS: &str = "/boot/guest/functions";
const NETLOAD: &str = "/usr/sbin/netload";
const GUEST: &str = "kernel='/boot/guest/vmlinuz' ramdisk='/boot/guest/load' vcpus=1";
const OPTIONS: &str = "console=hvc0 cryptomgr.notests";
/// Where the load serves.
const PORT: u32 = 5000;

/// What a guest's shell does with a disk: the device, fio's kind of access, bytes of a piece, how many at a time, and bytes. It asks
/// for half as many at once, as programs that have many under way do.
const DISK: &str = "#!/bin/sh
fio --name=load --filename=/dev/$1 --rw=$2 --bs=$3 --iodepth=$4 --iodepth_batch=$((($4 + 1) / 2)) --iodepth_batch_complete_max=$4 --io_size=$5 --direct=1 --ioengine=io_uring --thread \
--gtod_reduce=1 --randrepeat=1 --norandommap >/run.log 2>&1 || cat /run.log
grep -q 'err= 0' /run.log
echo \"done: $?\"
";
/// What it does with a card.
const CARD: &str = "#!/bin/sh
netload \"$@\"
echo \"done: $?\"
";

/// dom0's part. Guests' consoles are read until they say that a command is done, which wakes nobody in between.
const DOM0: &str = r#"
console() {
    eval "exec $1<>$(ox store read /local/domain/$(ox domid $2)/console/tty)" && stty raw -echo <&$1
}
in_guest() {
    echo "$2" >&$1
    while read -r line <&$1; do
        case $line in "done: 0"*) return 0;; "done: "*) echo "in a guest: $2"; return 1;; *) echo "$line";; esac
    done
}
load() {
    small=$1 big=$2; shift 2
    in_guest 3 "$* $small" >/tmp/said && ox debug-keys x && in_guest 3 "$* $small" >/tmp/said && ox debug-keys x &&
        in_guest 3 "$* $big" >/tmp/said && ox debug-keys x || { cat /tmp/said; false; }
}
"#;

/// Where guests and dom0 run.
struct Place {
    /// Of the machine. dom0 is on the first and guests are on the last.
    cpus: u32,
    /// For the reader of the report, behind a load's name.
    name: &'static str,
}

const TOGETHER: Place = Place { cpus: 1, name: "" };
const APART: Place = Place {
    cpus: 2,
    name: ", dom0 on another CPU",
};

/// A load.
struct Load {
    /// For the reader of the report.
    name: &'static str,
    command: Command,
    unit: Unit,
}

/// What the first guest does, but for how much.
enum Command {
    /// fio's kind of access, bytes of a piece, and how many at a time.
    Disk(&'static str, u32, u32),
    /// A verb of the load program's, and who answers: an index of [`Device::addresses`].
    Card(&'static str, usize),
}

/// What is counted.
enum Unit {
    /// This many bytes to the load program, and what they are called.
    One(u64, &'static str),
    Mebibyte,
}

impl Unit {
    const fn bytes(&self) -> u64 {
        match self {
            Self::One(bytes, _) => *bytes,
            Self::Mebibyte => MIB,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::One(_, name) => name,
            Self::Mebibyte => "MiB",
        }
    }

    /// How many there are in the small run and in the big one.
    const fn sizes(&self) -> (u64, u64) {
        match self {
            Self::One(..) => (200, 1200),
            Self::Mebibyte => (8, 40),
        }
    }
}

/// A back end, by what the guests have of it.
struct Device {
    disk: &'static str,
    /// dom0's address and guest two's.
    addresses: [&'static str; 2],
}

const OURS: Device = Device {
    disk: "xvdb",
    addresses: ["192.168.77.1", "192.168.77.12"],
};
const LINUX: Device = Device {
    disk: "xvdc",
    addresses: ["192.168.78.1", "192.168.78.12"],
};
const DISKS: &str = "disk=['/dev/nullb0,raw,xvdb,rw','/dev/nullb1,raw,xvdc,rw,backendtype=kernel']";

const MIB: u64 = 1 << 20;
const BLOCK: u32 = 4 << 10;
const LARGE: u32 = 128 << 10;

const fn random(name: &'static str, access: &'static str, depth: u32) -> Load {
    Load {
        name,
        command: Command::Disk(access, BLOCK, depth),
        unit: Unit::One(BLOCK as u64, "I/O"),
    }
}

const fn sequential(name: &'static str, access: &'static str) -> Load {
    Load {
        name,
        command: Command::Disk(access, LARGE, 8),
        unit: Unit::Mebibyte,
    }
}

const DISK_LOADS: [Load; 6] = [
    random("disk, random reads of 4 KiB, depth 1", "randread", 1),
    random("disk, random reads of 4 KiB, depth 32", "randread", 32),
    random("disk, random writes of 4 KiB, depth 1", "randwrite", 1),
    random("disk, random writes of 4 KiB, depth 32", "randwrite", 32),
    sequential("disk, reads of 128 KiB in sequence, depth 8", "read"),
    sequential("disk, writes of 128 KiB in sequence, depth 8", "write"),
];

/// Indices of [`Device::addresses`].
const WITH_DOM0: usize = 0;
const WITH_GUEST: usize = 1;

const fn stream(name: &'static str, verb: &'static str, peer: usize) -> Load {
    Load {
        name,
        command: Command::Card(verb, peer),
        unit: Unit::Mebibyte,
    }
}

const fn requests(name: &'static str, peer: usize) -> Load {
    Load {
        name,
        command: Command::Card("ask", peer),
        unit: Unit::One(1, "request"),
    }
}

const CARD_LOADS: [Load; 5] = [
    stream("card, TCP from a guest to dom0", "send", WITH_DOM0),
    stream("card, TCP from dom0 to a guest", "fetch", WITH_DOM0),
    requests("card, requests to dom0 and answers", WITH_DOM0),
    stream("card, TCP from guest to guest", "send", WITH_GUEST),
    requests("card, requests to a guest and answers", WITH_GUEST),
];

pub(super) fn disks(bench: &Bench) -> Result<Vec<Row>> {
    disks_at(bench, "disks", &TOGETHER)
}

pub(super) fn disks_apart(bench: &Bench) -> Result<Vec<Row>> {
    disks_at(bench, "disks-apart", &APART)
}

fn disks_at(bench: &Bench, name: &str, place: &Place) -> Result<Vec<Row>> {
    let mut shell = start(bench, name, place)?;
    // Like most disks, and unlike what it is by default, it takes 128 KiB at once.
    shell
        .succeed("modprobe null_blk nr_devices=2 gb=1 max_sectors=2560 && modprobe xen-blkback")?;
    guest(&mut shell, place, "one", 3, 256, DISKS)?;
    measure(bench, shell, place, &DISK_LOADS)
}

pub(super) fn cards(bench: &Bench) -> Result<Vec<Row>> {
    cards_at(bench, "cards", &TOGETHER)
}

pub(super) fn cards_apart(bench: &Bench) -> Result<Vec<Row>> {
    cards_at(bench, "cards-apart", &APART)
}

fn cards_at(bench: &Bench, name: &str, place: &Place) -> Result<Vec<Row>> {
    let mut shell = start(bench, name, place)?;
    shell.succeed(
        "modprobe xen-netback && ip link add xenbr1 type bridge && ip addr add 192.168.78.1/24 dev xenbr1 && ip link set xenbr1 up",
    )?;
    shell.succeed(&format!("{{ {NETLOAD} serve {PORT} & }}"))?;
    for (name, console, last) in [("one", 3, 11), ("two", 4, 12)] {
        let cards = format!(
            "vif=['mac=00:16:3e:00:00:{last},bridge=xenbr0','mac=00:16:3e:00:01:{last},bridge=xenbr1,type=kernel']"
        );
        guest(&mut shell, place, name, console, 192, &cards)?;
        shell.succeed(&format!("in_guest {console} 'set-up {last}'"))?;
    }
    measure(bench, shell, place, &CARD_LOADS)
}

fn start(bench: &Bench, name: &str, place: &Place) -> Result<Shell> {
    let name = bench.run_name(name);
    let netload = std::fs::read(build::program("oxen-netload-program")?)?;
    let files = vec![
        (INITRD, guests_initrd(bench, &netload)?),
        (FUNCTIONS, DOM0.into()),
    ];
    let dom0 = bench.dom0_with(&name, files, vec![(NETLOAD, netload)])?;
    let boot = bench.boot(&dom0, DOM0_MEMORY);
    let mut shell = Shell::start(bench, &name, boot, place.cpus, MEMORY)?;
    std::fs::remove_file(&dom0.initrd)?;
    shell.succeed(&format!(
        ". {FUNCTIONS} && ox vcpu-pin Domain-0 all 0 0 >/dev/null"
    ))?;
    Ok(shell)
}

/// The demo guest's with the loads.
fn guests_initrd(bench: &Bench, netload: &[u8]) -> Result<Vec<u8>> {
    let fio = fio::binary()?;
    let fio = std::fs::read(&fio).with_context(|| format!("{} cannot be read", fio.display()))?;
    let set_up = format!(
        "#!/bin/sh
ip addr add 192.168.77.$1/24 dev eth0 && ip link set eth0 up &&
    ip addr add 192.168.78.$1/24 dev eth1 && ip link set eth1 up
ready=$?
netload serve {PORT} >/dev/null 2>&1 &
echo \"done: $ready\"
"
    );
    let mut archive = Newc::new();
    for (name, content) in [
        ("fio", fio),
        ("netload", netload.to_vec()),
        ("disk", DISK.into()),
        ("card", CARD.into()),
        ("set-up", set_up.into_bytes()),
    ] {
        archive.file(&format!("bin/{name}"), content, true);
    }
    let mut bytes = initrd::guest(&provision::dom0(bench.suite)?.kernel)?;
    archive.write_to(&mut bytes)?;
    Ok(bytes)
}

/// A guest that has booted; its console is dom0's shell's file `console`.
fn guest(
    shell: &mut Shell,
    place: &Place,
    name: &str,
    console: u32,
    memory: u32,
    devices: &str,
) -> Result<()> {
    let cpu = place.cpus - 1;
    shell.configure(
        name,
        &format!("{GUEST} cpus='{cpu}' memory={memory} {devices}"),
        &format!("{OPTIONS} {}", boot::BY_WORDS),
    )?;
    shell.succeed(&format!("ox create /tmp/{name}.cfg"))?;
    let log = Shell::guest_log(name);
    shell.wait_for(&format!("grep -q userspace {log}"), 1)?;
    shell.succeed(&format!("console {console} {name}"))?;
    Ok(())
}

/// A figure of a cost: what it is, its unit, and how it is had.
type Part = (&'static str, &'static str, fn(&Cost) -> f64);

const PARTS: [Part; 7] = [
    ("all, for each UNIT", "ticks", |cost| cost.all),
    ("guests' part of it", "ticks", |cost| cost.guests),
    ("dom0's part of it", "ticks", |cost| cost.dom0),
    ("hypervisor's part of it", "ticks", |cost| cost.hypervisor),
    ("idle, for each UNIT", "ticks", |cost| cost.idle),
    ("exits, for 100 of them", "exits", |cost| cost.exits * 100.0),
    (
        "grants mapped, unmapped, copied, for 100 of them",
        "grants",
        |cost| cost.grants * 100.0,
    ),
];

fn measure(bench: &Bench, mut shell: Shell, place: &Place, loads: &[Load]) -> Result<Vec<Row>> {
    let khz = cost::kilohertz(&shell.succeed("ox debug-keys t")?)?;
    let mut rows = Vec::new();
    for load in loads {
        let ours = one(&mut shell, place, load, &OURS)?;
        let linux = one(&mut shell, place, load, &LINUX)?;
        rows.extend(compared(bench, place, load, khz, &ours, &linux));
    }
    shell.finish()?;
    Ok(rows)
}

/// What an operation of a load costs.
fn one(shell: &mut Shell, place: &Place, load: &Load, device: &Device) -> Result<Cost> {
    let (small, big) = load.unit.sizes();
    let words = match load.command {
        Command::Disk(access, size, depth) => {
            format!("disk {} {access} {size} {depth}", device.disk)
        }
        Command::Card(verb, peer) => format!("card {verb} {}:{PORT}", device.addresses[peer]),
    };
    let bytes = load.unit.bytes();
    let text = shell.succeed(&format!("load {} {} {words}", small * bytes, big * bytes))?;
    Cost::of(&text, big - small, place.cpus).with_context(|| format!("{}: {text}", load.name))
}

/// Ours, with Linux's as the baseline.
fn compared(
    bench: &Bench,
    place: &Place,
    load: &Load,
    khz: u64,
    ours: &Cost,
    linux: &Cost,
) -> Vec<Row> {
    let row = |what: &str, unit, value: &dyn Fn(&Cost) -> f64| {
        let what = what.replace("UNIT", load.unit.name());
        let name = format!("{}{}: {what}", load.name, place.name);
        let [ours, linux] = [ours, linux].map(|cost| value(cost).round() as u64);
        Row {
            baseline: Some(linux),
            ..bench.row(name, unit, ours, ours)
        }
    };
    let (per_second, scale) = match load.unit {
        Unit::One(..) => ("a second", 1.0),
        Unit::Mebibyte => ("MB/s", MIB as f64 / 1e6),
    };
    let speed = |cost: &Cost| khz as f64 * 1000.0 * scale / cost.time;
    let mut rows = vec![row("speed (more is better)", per_second, &speed)];
    rows.extend(PARTS.map(|(what, unit, value)| row(what, unit, &value)));
    rows
}
