//! What `ox` is asked for and cannot do: an error that says where and what, an exit code that says of which kind, and nothing
//! left behind.

use oxen_tests::{Dom0, Failure, Setup, ensure, input};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks, ledger};

/// A configuration that works, whose lines the bad ones replace or follow; the kernel is a test guest's.
const GOOD: [(&str, &str); 4] = [
    ("name", "name = 'bad'"),
    ("type", "type = 'pvh'"),
    ("kernel", "kernel = '/boot/guest/oxen-visitor-guest'"),
    ("memory", "memory = 32"),
];
const FILE: &str = "/run/bad.cfg";

/// Exit codes (`ox --help`).
const REFUSED: i32 = 1;
const USAGE: i32 = 2;
const WRONG: i32 = 3;
const NOBODY: i32 = 4;
const TAKEN: i32 = 5;

/// A line, the exit code, and what the message holds. Line 5 is the one that follows the good ones.
const BAD_LINES: [(&str, i32, &str); 16] = [
    (
        "vcpu = 2",
        WRONG,
        "/run/bad.cfg:5:1: vcpu: unknown key; did you mean \"vcpus\"?",
    ),
    (
        "colour = 'green'",
        WRONG,
        "/run/bad.cfg:5:1: colour: unknown key",
    ),
    ("extra = 'unfinished", WRONG, "/run/bad.cfg:5:9: "),
    (
        "on_crash = 'preserv'",
        WRONG,
        "/run/bad.cfg:5:12: on_crash: cannot be \"preserv\"; did you mean \"preserve\"?",
    ),
    (
        "vcpus = 33",
        WRONG,
        "/run/bad.cfg:5:9: vcpus: 33 is not between 1 and 32",
    ),
    (
        "vcpus = 'many'",
        WRONG,
        "/run/bad.cfg:5:9: vcpus: must be a number",
    ),
    (
        "cpus = '7'",
        WRONG,
        "/run/bad.cfg:5:8: cpus: \"7\" leaves none of this machine's 2 CPUs",
    ),
    (
        "ramdisk = '/nowhere/initrd'",
        WRONG,
        "/run/bad.cfg:5:11: ramdisk: cannot read /nowhere/initrd",
    ),
    // A ramdisk that is larger than the guest.
    (
        "ramdisk = '/run/large'",
        WRONG,
        "/run/bad.cfg:4:10: memory: 32 MiB are too little for the kernel and the ramdisk: set memory to ",
    ),
    (
        "memory = 65536",
        REFUSED,
        "/run/bad.cfg:4:10: memory: not enough free memory for the guest's 65536 MiB",
    ),
    ("memory = 0", WRONG, "/run/bad.cfg:4:10: memory: 0 is not"),
    ("memory = 4", WRONG, "/run/bad.cfg:"),
    ("type = 'hvm'", WRONG, "/run/bad.cfg:2:8: type: hvm"),
    ("name = 'a/b'", WRONG, "/run/bad.cfg:1:8: name: "),
    (
        "kernel = '/nowhere/vmlinuz'",
        WRONG,
        "/run/bad.cfg:3:10: kernel: cannot read /nowhere/vmlinuz",
    ),
    (
        "kernel = '/etc'",
        WRONG,
        "/run/bad.cfg:3:10: kernel: cannot read /etc: not a file",
    ),
];

/// Files that are no kernels, how the shell makes them, and what is said of them.
const BAD_KERNELS: [(&str, &str, &str); 5] = [
    ("empty", ": > FILE", ""),
    ("text", "cp /etc/motd FILE", ""),
    (
        "half_elf",
        "head -c 3000 /boot/guest/oxen-visitor-guest > FILE",
        "",
    ),
    (
        "half_image",
        "head -c 2000000 /boot/guest/vmlinuz > FILE",
        "",
    ),
    ("no_pvh", "cp /boot/guest/no_pvh FILE", "PVH"),
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "domains::bad_requests", bad_requests))
        .collect()
}

fn bad_requests(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup: Setup = setup(name, kind, MEMORY)?;
    setup.add_guest("oxen-visitor-guest")?;
    let no_pvh = setup.write_file("no_pvh", &input::elf_without_pvh_note())?;
    setup.add_file("/boot/guest/no_pvh", &no_pvh)?;
    let mut dom0 = ledger::boot(setup)?;
    write_config(&mut dom0, None)?;
    // What a first guest leaves for those after it.
    dom0.run(&format!("ox create -p {FILE} && ox destroy bad"))?;
    dom0.run("head -c 40000000 /dev/zero > /run/large")?;
    let before = ledger::take(&mut dom0)?;
    for (line, code, wanted) in BAD_LINES {
        write_config(&mut dom0, Some(line))?;
        fails(&mut dom0, &format!("ox create {FILE}"), code, &[wanted])?;
    }
    for (kernel, make, wanted) in BAD_KERNELS {
        let path = format!("/run/{kernel}");
        dom0.run(&make.replace("FILE", &path))?;
        write_config(&mut dom0, Some(&format!("kernel = '{path}'")))?;
        let place = format!("{FILE}:3:10: kernel: {path}: ");
        fails(
            &mut dom0,
            &format!("ox create {FILE}"),
            WRONG,
            &[&place, wanted],
        )?;
    }
    ledger::balances(&mut dom0, &before)?;
    write_config(&mut dom0, None)?;
    of_whom(&mut dom0)?;
    twins(&mut dom0)?;
    ledger::balances(&mut dom0, &before)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// Verbs about domains that are not there, or must not end; words that make no sense.
fn of_whom(dom0: &mut Dom0) -> Result<(), Failure> {
    for (command, code, wanted) in [
        ("ox destroy nobody", NOBODY, "\"nobody\""),
        ("ox destroy 77", NOBODY, "\"77\""),
        ("ox destroy 99999", NOBODY, "\"99999\""),
        ("ox pause nobody", NOBODY, "\"nobody\""),
        ("ox destroy Domain-0", USAGE, "domain 0"),
        ("ox destory bad", USAGE, "destroy"),
        ("ox create", USAGE, "FILE"),
        ("ox create /nowhere.cfg", WRONG, "/nowhere.cfg"),
        ("ox create /etc", WRONG, "/etc"),
    ] {
        fails(dom0, command, code, &[wanted])?;
    }
    dom0.run(&format!("ox create -p {FILE}"))?;
    let domid = dom0.run("ox domid bad")?;
    let taken = format!("the name \"bad\" is taken by domain {domid}");
    fails(dom0, &format!("ox create {FILE}"), TAKEN, &[&taken])?;
    dom0.run("ox destroy bad")?;
    fails(dom0, "ox destroy bad", NOBODY, &["\"bad\""])
}

/// Of two at once with one name, one is made.
fn twins(dom0: &mut Dom0) -> Result<(), Failure> {
    for _ in 0..3 {
        let said = dom0.run(&format!(
            "for n in 1 2; do (ox create -p {FILE}; echo exit $?) > /tmp/twin.$n 2>&1 & done; wait; cat /tmp/twin.*"
        ))?;
        ensure!(
            said.contains("exit 0") && said.contains("exit 5") && said.contains("is taken by"),
            "two creates of one name: {said}"
        );
        dom0.run("[ $(ox list | grep -c bad) = 1 ] && ox destroy bad")?;
    }
    Ok(())
}

/// The good lines, one of them replaced by one of the same key, or with one more.
fn write_config(dom0: &mut Dom0, line: Option<&str>) -> Result<(), Failure> {
    let key = line.and_then(|line| line.split_whitespace().next());
    let mut lines: Vec<&str> = GOOD
        .iter()
        .map(|(name, good)| line.filter(|_| key == Some(*name)).unwrap_or(good))
        .collect();
    if GOOD.iter().all(|(name, _)| key != Some(*name)) {
        lines.extend(line);
    }
    // One line for the shell: the quotes inside are single ones.
    let words: String = lines.iter().map(|line| format!(" \"{line}\"")).collect();
    dom0.run(&format!("printf '%s\\n'{words} > {FILE}"))?;
    Ok(())
}

/// Runs what must fail in just this way.
fn fails(dom0: &mut Dom0, command: &str, code: i32, wanted: &[&str]) -> Result<(), Failure> {
    let config = dom0.run(&format!("cat {FILE}"))?;
    let output = dom0.try_run(command)?;
    ensure!(
        output.status == code && wanted.iter().all(|wanted| output.text.contains(wanted)),
        "`{command}` exits with {}, not {code}, and says {:?}, not {wanted:?}, of:\n{config}",
        output.status,
        output.text
    );
    Ok(())
}
