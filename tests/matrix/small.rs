//! Guests of 64 MiB and less, and all the ways in which one may end.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;
use xtask::provision::Suite;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks, lives};

/// The guest that ends as it is told.
const SPINNER: &str = "oxen-spin-guest";
/// What its registers hold when it faults, but for the last digit, which is a register's place in a domain's context.
const FAULT: u64 = 0x5111_0000_0000_0000;
/// General registers in that order; the one that is missing is the stack pointer.
const GENERAL: [(&str, u64); 15] = [
    ("rax", 0),
    ("rcx", 1),
    ("rdx", 2),
    ("rbx", 3),
    ("rbp", 5),
    ("rsi", 6),
    ("rdi", 7),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .map(|kind| Case::new(kind, "guests::small", small))
        .into()
}

fn small(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let grub_image = setup.add_guest_grub()?;
    let cloud_files = setup.add_guest_cloud_kernel(Suite::Bookworm)?;
    let spinner = setup.add_guest(SPINNER)?;
    let mut dom0 = setup.boot()?;
    lives::define_functions(&mut dom0)?;
    grub(&mut dom0, grub_image)?;
    ends(&mut dom0, &spinner)?;
    cloud(&mut dom0, &cloud_files)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// GRUB comes to its prompt and takes a command.
fn grub(dom0: &mut Dom0, image: &str) -> Result<(), Failure> {
    checks::create_guest(dom0, "grub", image, &["memory=64"])?;
    checks::guest_says(dom0, "grub", "grub>", checks::GUEST_BOOTS)?;
    let said = checks::guest_answers(dom0, "grub", "nothing_like_it", "find command")?;
    ensure!(
        said.contains("nothing_like_it"),
        "GRUB names another command:\n{said}"
    );
    dom0.run("ox destroy grub")?;
    Ok(())
}

/// Debian's smallest kernel. The full ones need some 70 MiB to come up. This one comes up with 64 if it leaves out the files of
/// its tracer, which take several MiB.
fn cloud(dom0: &mut Dom0, [kernel, ramdisk]: &[String; 2]) -> Result<(), Failure> {
    dom0.run(&format!(
        "ox create /etc/oxen/demo.cfg name=cloud kernel={kernel} ramdisk={ramdisk} memory=64 'extra=console=hvc0 initcall_blacklist=tracer_init_tracefs' && up cloud 1"
    ))?;
    let typed = "uname -r; echo $((6*7)) answers";
    let said = checks::guest_answers(dom0, "cloud", typed, "42 answers")?;
    ensure!(said.contains("-cloud-"), "another kernel says:\n{said}");
    dom0.run("ox shutdown -ww cloud && gone cloud")?;
    Ok(())
}

/// A guest faults, crashes, reboots and powers itself off. What is due then is done, and the log has its registers.
fn ends(dom0: &mut Dom0, kernel: &str) -> Result<(), Failure> {
    let lines = [
        "memory=32",
        "extra=\"obey=1\"",
        "on_crash=\"coredump-restart\"",
    ];
    checks::create_guest(dom0, "end", kernel, &lines)?;
    dom0.run(
        "ready() { within 120 \"[ \\$(grep -c 'spin: ready' $(log end)) = $1 ]\" || { ox list; cat /var/log/xen/supervisor.log; false; }; }; ready 1",
    )?;
    let dumped =
        "d=$(echo /var/lib/xen/dump/end-*) && [ $(head -c 4 $d | tail -c 3) = ELF ] && rm $d";
    let kept = "d=$(ox list | awk '/^end-/ { print $1 }') && ox list -l $d | grep crash";

    let faulted = dom0.run("ox domid end")?;
    dom0.run(&format!("type_in end t; ready 2 && {dumped}"))?;
    fault_registers(dom0, &faulted)?;

    dom0.run("type_in end r; ready 3 && ox destroy end")?;

    dom0.run("ox create /run/end.cfg 'on_crash=\"rename-restart\"' && ready 4")?;
    let crashed = dom0.run("ox domid end")?;
    dom0.run(&format!("type_in end c; ready 5 && {kept}"))?;
    call_registers(dom0, &crashed)?;
    let both = dom0.run(&format!("{kept}; ox domid $d; ox domid end"))?;
    let numbers: Vec<&str> = both.lines().rev().take(2).collect();
    ensure!(
        numbers.len() == 2 && numbers[1] == crashed && numbers[0] != crashed,
        "domain {crashed} was to be renamed, and another to have its name: {both}"
    );

    dom0.run("type_in end p; gone end && ox destroy $d")?;
    for (action, then) in [
        ("coredump-destroy", dumped),
        ("destroy", "! ls /var/lib/xen/dump/end-*"),
    ] {
        dom0.run(&format!(
            "rm $(log end); ox create /run/end.cfg 'on_crash=\"{action}\"' && ready 1 && type_in end t && gone end && {then}"
        ))?;
    }
    Ok(())
}

/// Each general register is what the guest had put there, and the instruction pointer is where it said that it would fault.
fn fault_registers(dom0: &mut Dom0, domid: &str) -> Result<(), Failure> {
    let registers = checks::registers_in_the_log(dom0, domid, "had a triple fault")?;
    for (name, place) in GENERAL {
        ensure!(
            registers.get(name) == Some(&(FAULT + place)),
            "{name} of a guest that faulted: {registers:x?}"
        );
    }
    let said = checks::guest_says(dom0, "end", "spin: ready, faults at", 1)?;
    let address = said
        .lines()
        .next()
        .and_then(|line| line.trim_end().rsplit("0x").next());
    let address = u64::from_str_radix(address.unwrap_or_default(), 16).ok();
    ensure!(
        address.is_some() && registers.get("rip").copied() == address,
        "the guest faulted at {address:x?}: {registers:x?}"
    );
    Ok(())
}

/// The registers of a guest that called for its end: `sched_op`, and its command.
fn call_registers(dom0: &mut Dom0, domid: &str) -> Result<(), Failure> {
    const SCHED_OP: u64 = 29;
    const SHUTDOWN: u64 = 2;
    let registers = checks::registers_in_the_log(dom0, domid, "crashed")?;
    ensure!(
        registers.get("rax") == Some(&SCHED_OP) && registers.get("rdi") == Some(&SHUTDOWN),
        "a guest that called for its end: {registers:x?}"
    );
    Ok(())
}
