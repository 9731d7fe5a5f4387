//! Guests with stock kernels: their lives and ends, and what can be changed while they run.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;
use xtask::provision::Suite;

use crate::domains::{CONFIG, setup};
use crate::{Case, checks, lives};

/// MiB of the machine, and of it dom0's: the largest guest has 2048.
const MEMORY: (u32, u32) = (3072, 512);

/// A guest with a stock kernel.
#[derive(Clone, Copy)]
struct Linux {
    name: &'static str,
    suite: Suite,
    /// First number of its kernel's version, at least.
    major: u32,
    vcpus: u32,
    memory_mib: u64,
    /// What is done with it when it is there.
    test: fn(&mut Dom0) -> Result<(), Failure>,
}

const LINUX: [Linux; 3] = [
    Linux {
        name: "guests::debian_12_with_4_vcpus",
        suite: Suite::Bookworm,
        major: 6,
        vcpus: 4,
        memory_mib: LARGE_MIB,
        test: changed_while_it_runs,
    },
    Linux {
        name: "guests::debian_13_with_2_vcpus",
        suite: Suite::Trixie,
        major: 6,
        vcpus: 2,
        memory_mib: 256,
        test: |dom0| four_lives(dom0, "ox reboot -ww demo"),
    },
    Linux {
        name: "guests::debian_sid",
        suite: Suite::Sid,
        major: 7,
        vcpus: 1,
        memory_mib: 256,
        test: |dom0| four_lives(dom0, "type_in demo 'reboot -f'"),
    },
];

/// MiB of the largest guest, and of what its balloon leaves.
const LARGE_MIB: u64 = 2048;
const DEFLATED_MIB: u64 = 1792;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        for guest in LINUX {
            cases.push(Case::new(kind, guest.name, move |name, kind| {
                stock_kernel(name, kind, guest)
            }));
        }
    }
    cases
}

/// The kernel comes to userspace with all of its vCPUs and its memory, and its shell answers on the console.
fn stock_kernel(name: &str, kind: Kind, guest: Linux) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest_kernel(guest.suite)?;
    // As many vCPUs as CPUs, so that there is something to be pinned.
    setup.hypervisor_options = format!("dom0_mem={}M dom0_vcpus_pin", MEMORY.1);
    let mut dom0 = setup.boot()?;
    lives::define_functions(&mut dom0)?;
    let Linux {
        vcpus, memory_mib, ..
    } = guest;
    let config =
        format!("{CONFIG} kernel={kernel} vcpus={vcpus} memory={memory_mib} on_crash=restart");
    dom0.run(&format!("guest='{config}'; ox create $guest && up demo 1"))?;
    let userspace = format!("userspace, xen PVH, {vcpus} vCPUs");
    checks::guest_says(&mut dom0, "demo", &userspace, 1)?;
    let said = checks::guest_answers(
        &mut dom0,
        "demo",
        "uname -r; grep MemTotal /proc/meminfo; echo $((6*7)) answers",
        "42 answers",
    )?;
    let version = said
        .lines()
        .find_map(|line| line.split_once('.')?.0.parse::<u32>().ok());
    ensure!(
        version.is_some_and(|version| version >= guest.major),
        "the guest's kernel is not that of {:?}:\n{said}",
        guest.suite
    );
    has_memory(&said, memory_mib * 3 / 4, memory_mib)?;
    (guest.test)(&mut dom0)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// The guest's kernel has so many MiB, by its line of `/proc/meminfo`.
fn has_memory(said: &str, least: u64, most: u64) -> Result<(), Failure> {
    let total = said
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    ensure!(
        total.is_some_and(|kib| kib > least * 1024 && kib < most * 1024),
        "the guest was to have {least} to {most} MiB:\n{said}"
    );
    Ok(())
}

/// It panics and is made again, reboots, is told to power off; then another one powers itself off.
fn four_lives(dom0: &mut Dom0, reboot: &str) -> Result<(), Failure> {
    let domid = dom0.run("ox domid demo")?;
    dom0.run("type_in demo 'echo c > /proc/sysrq-trigger'; up demo 2")?;
    dom0.run(r#"grep '"reason":"crash","action":"restart"' /var/log/xen/supervisor.log"#)?;
    kernel_registers(dom0, &domid)?;
    dom0.run(&format!("{reboot}; up demo 3"))?;
    let lives = dom0.run("ox config show demo | grep restarts")?;
    ensure!(lives.contains("\"restarts\": 2"), "after two: {lives}");
    dom0.run("ox shutdown -ww demo && gone demo")?;
    dom0.run("ox create $guest && up demo 4")?;
    dom0.run("type_in demo 'poweroff -f'; gone demo")?;
    Ok(())
}

/// The log tells where the kernel of a domain was when it called for its end: at an address of its own, with a stack of its own.
fn kernel_registers(dom0: &mut Dom0, domid: &str) -> Result<(), Failure> {
    let registers = checks::registers_in_the_log(dom0, domid, "crashed")?;
    for (name, least) in [
        ("rip", 0xFFFF_FFFF_8000_0000),
        ("rsp", 0xFFFF_8000_0000_0000),
    ] {
        ensure!(
            registers.get(name).is_some_and(|value| *value >= least),
            "{name} of a kernel that panicked: {registers:x?}"
        );
    }
    Ok(())
}

/// vCPUs and memory taken and given back; a system request; an NMI to one vCPU. dom0's own vCPUs are pinned.
fn changed_while_it_runs(dom0: &mut Dom0) -> Result<(), Failure> {
    pinned(dom0)?;
    dom0.run("online() { ox vcpu-list demo | awk '$2 ~ /^[0-9]+$/ && $4 != \"-\"' | wc -l; }")?;
    dom0.run("ox vcpu-set demo 2 && within 60 '[ $(online) = 2 ]'")?;
    let counted = |count: u32| {
        format!("echo $(grep -c ^processor /proc/cpuinfo) of $((2+2)) are left # {count}")
    };
    answers(dom0, &counted(2), "2 of 4 are left")?;
    dom0.run("ox vcpu-set demo 3")?;
    // The kernel adds it; to bring it up is udev's part, and there is none here.
    let cpu = "/sys/devices/system/cpu/cpu2/online";
    let bring_up = format!("until [ -e {cpu} ]; do usleep 100000; done; echo 1 > {cpu}");
    answers(
        dom0,
        &format!("{bring_up}; {}", counted(3)),
        "3 of 4 are left",
    )?;
    dom0.run("within 10 '[ $(online) = 3 ]'")?;

    dom0.run("memory() { ox list demo | awk 'NR == 2 { print $3 }'; }")?;
    // A page or two more or less are tables and rings.
    for (mib, reached, least) in [
        (
            DEFLATED_MIB,
            format!("-le {}", DEFLATED_MIB + 1),
            DEFLATED_MIB / 2,
        ),
        (LARGE_MIB, format!("-ge {}", LARGE_MIB - 1), DEFLATED_MIB),
    ] {
        dom0.run(&format!(
            "ox mem-set demo {mib}m && within 120 '[ $(memory) {reached} ]'"
        ))?;
        let typed = format!("grep MemTotal /proc/meminfo; echo $((6*7)) for {mib}");
        let said = answers(dom0, &typed, &format!("42 for {mib}"))?;
        let last = said.rfind("MemTotal:").map_or("", |at| &said[at..]);
        has_memory(last, least, mib)?;
    }

    dom0.run("ox sysrq demo s && ox trigger demo nmi 1")?;
    let look = "until dmesg | grep -q Emergency.Sync; do usleep 100000; done; grep NMI: /proc/interrupts; echo $((6*7)) requests";
    let said = answers(dom0, look, "42 requests")?;
    let counts: Vec<&str> = said
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("NMI:"))
        .map(|line| line.split_whitespace().skip(1).collect())
        .unwrap_or_default();
    ensure!(
        matches!(counts[..], ["0", "1", "0", ..]),
        "vCPU 1 of 3 was sent an NMI: {counts:?}"
    );
    dom0.run("ox shutdown -ww demo && gone demo")?;
    Ok(())
}

/// `dom0_vcpus_pin`: each of dom0's vCPUs has a CPU of its own, until it is given others.
fn pinned(dom0: &mut Dom0) -> Result<(), Failure> {
    let affinity = |dom0: &mut Dom0| {
        let shown = dom0.run("ox vcpu-list 0 | awk '$2 == 0 { print $3, $4, $7 }'")?;
        Ok::<_, Failure>(shown.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let shown = affinity(dom0)?;
    ensure!(
        shown == ["0 0 0", "1 1 1"],
        "dom0's vCPUs were to be pinned: {shown:?}"
    );
    dom0.run("ox vcpu-pin 0 1 all")?;
    let shown = affinity(dom0)?;
    ensure!(
        shown[1].ends_with("all"),
        "dom0's second vCPU was to be free: {shown:?}"
    );
    Ok(())
}

fn answers(dom0: &mut Dom0, typed: &str, wanted: &str) -> Result<String, Failure> {
    checks::guest_answers(dom0, "demo", typed, wanted)
}
