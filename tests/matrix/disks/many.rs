//! 32 disks in one guest, by our back end and by Linux's, given and taken while the guest works on one of them: what they need is there again
//! afterwards.

use std::ops::Range;

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use super::{GUEST, Guest, KERNEL, patient};
use crate::domains::USERSPACE;
use crate::hostile::number;
use crate::{checks, ledger};

/// How often the guest is given all disks but its first, and has them taken away: each time 31 of each.
const ROUNDS_VARIABLE: &str = "OXEN_DISK_ROUNDS";
const ROUNDS: u64 = 1;
const DISKS: usize = 32;
/// KiB of each.
const SIZE: u32 = 256;

/// Disks that are given or taken by one command: it may not take long on the clock of this side.
const AT_A_TIME: usize = 8;

/// Shell functions, for disks by their names, what they are in dom0 and who serves them, as `xvdb:/dev/ram1:kernel`.
///
/// - `give DISKS ROUND` writes on each what it is, and attaches it; `take DISKS` detaches them; `told DISKS` prints what is on each.
/// - `present COUNT` waits until so many disks are connected.
/// - `served` lists who serves disks: processes of `oxblk` and threads of the kernel, what the first of these has open, and all disks.
const FUNCTIONS: &[&str] = &[
    "target() { t=${1#*:}; echo ${t%:*}; }",
    "give() { for d in $1; do v=${d%%:*} t=$(target $d); echo this is $v of $2 | dd of=$t conv=notrunc,fsync 2>/dev/null && ox block-attach GUEST format=raw,vdev=$v,backendtype=${d##*:},target=$t || return 1; done; }",
    "take() { for d in $1; do ox block-detach GUEST ${d%%:*} || return 1; done; }",
    r"told() { for d in $1; do dd if=$(target $d) count=2 2>/dev/null | tr -d '\0'; done; }",
    r#"present() { n=0; until [ $(ox block-list | grep -c connected) = $1 ]; do sleep 1; n=$((n+1)); [ $n -lt 120 ] || { ox block-list; tail -n 5 /var/log/xen/oxblk.log; return 1; }; done; }"#,
    "manager() { ps | grep '[/]usr/sbin/oxblk$' | awk '{ print $1 }'; }",
    "served() { ps | grep -c -e '[o]xblk serve' -e '[.]xvd'; ls /proc/$(manager)/fd | wc -l; ox block-list; ls /run/oxen/oxblk 2>/dev/null; }",
];

pub fn thirty_two(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut dom0 = ledger::boot(patient(name, kind)?)?;
    for function in FUNCTIONS {
        dom0.run(&function.replace("GUEST", GUEST))?;
    }
    come_and_go(&mut dom0)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// The name of a disk, by its number: after `xvdz` comes `xvdaa`.
fn vdev(nth: usize) -> String {
    let letter = |nth: usize| char::from(b'a' + (nth % 26) as u8);
    match nth / 26 {
        0 => format!("xvd{}", letter(nth)),
        tens => format!("xvd{}{}", letter(tens - 1), letter(nth)),
    }
}

/// A disk as the shell functions have it: files and RAM disks by our back end, RAM disks by Linux's.
fn described(nth: usize) -> String {
    let vdev = vdev(nth);
    match nth % 4 {
        1 => format!("{vdev}:/dev/ram{nth}:kernel"),
        3 => format!("{vdev}:/dev/ram{nth}:ox"),
        _ => format!("{vdev}:/root/disk{nth}:ox"),
    }
}

/// What a shell function prints for all disks but the first.
fn for_all(dom0: &mut Dom0, function: &str, argument: &str) -> Result<String, Failure> {
    let all: Vec<String> = (1..DISKS).map(described).collect();
    let mut said = String::new();
    for some in all.chunks(AT_A_TIME) {
        said += &dom0.run(&format!("{function} '{}' {argument}", some.join(" ")))?;
        said.push('\n');
    }
    Ok(said)
}

fn come_and_go(dom0: &mut Dom0) -> Result<(), Failure> {
    let rounds = number(ROUNDS_VARIABLE)?.unwrap_or(ROUNDS);
    dom0.run(&format!(
        "modprobe xen-blkback && modprobe brd rd_nr={DISKS} rd_size={SIZE} && for i in $(seq 0 {}); do head -c $(({SIZE}*1024)) /dev/zero >/root/disk$i; done",
        DISKS - 1
    ))?;
    let config = [
        // Its front end has pages at hand for all that a ring can hold, 4 MiB a disk, where it may keep its grants.
        "memory=384",
        "ramdisk=\"/boot/guest/initrd\"",
        "extra=\"console=hvc0 cryptomgr.notests\"",
        "disk=[\"/root/disk0,raw,xvda,w\"]",
    ];
    checks::create_guest(dom0, GUEST, KERNEL, &config)?;
    checks::guest_says(dom0, GUEST, USERSPACE, checks::GUEST_BOOTS)?;
    let mut guest = Guest { dom0, asked: 0 };
    guest.run("head -c 131072 /dev/urandom >/data")?;
    // What so many leave for all that come after them: tables and heaps of dom0's, of the guest's and of the hypervisor's.
    under_load(&mut guest, 0..1)?;
    let before = ledger::take(guest.dom0)?;
    let served = guest.dom0.run("served")?;
    under_load(&mut guest, 1..rounds + 1)?;
    ledger::balances(guest.dom0, &before)?;
    let now = guest.dom0.run("served")?;
    ensure!(served == now, "before: {served}\nafter: {now}");
    guest.dom0.run(&format!("ox destroy {GUEST}"))?;
    let blamed = guest
        .dom0
        .run("grep 'to blame' /var/log/xen/oxblk.log; true")?;
    ensure!(blamed.is_empty(), "an honest guest is blamed:\n{blamed}");
    Ok(())
}

/// Rounds while the guest writes its first disk and reads it back.
fn under_load(guest: &mut Guest<'_>, rounds: Range<u64>) -> Result<(), Failure> {
    let load = "b=0; n=0; until [ -e /stop ]; do n=$((n+1)); dd if=/data of=/dev/xvda bs=32k oflag=direct conv=fsync || b=$((b+1)); dd if=/dev/xvda bs=32k count=4 iflag=direct | cmp - /data || b=$((b+1)); sleep 0.1; done; echo rounds $n, bad $b >/result";
    guest.run(&format!("({load}) >/dev/null 2>&1 & echo begun"))?;
    for nth in rounds {
        round(guest, nth)?;
    }
    let said = guest.run("touch /stop; n=0; until [ -s /result ] || [ $n = 200 ]; do sleep 1; n=$((n+1)); done; cat /result; rm /result /stop")?;
    ensure!(
        said.starts_with("rounds") && said.ends_with("bad 0") && said != "rounds 0, bad 0",
        "beside disks that come and go the guest has other data than it wrote: {said}"
    );
    Ok(())
}

/// All disks but the first are given and taken. The guest finds on each what dom0 has put there, and dom0 what the guest has answered.
fn round(guest: &mut Guest<'_>, round: u64) -> Result<(), Failure> {
    for_all(guest.dom0, "give", &round.to_string())?;
    guest.dom0.run(&format!("present {DISKS}"))?;
    let last = vdev(DISKS - 1);
    let said = guest.run(&format!(
        "n=0; until [ $(ls /sys/block | grep -c xvd) = {DISKS} ] && [ -b /dev/{last} ] || [ $n = 60 ]; do sleep 1; n=$((n+1)); done; for d in $(ls /sys/block | grep xvd | grep -v xvda$); do read t </dev/$d; echo \"$d: $t\" | dd of=/dev/$d seek=1 conv=fsync || echo $d is not written; done 2>/dev/null; ls /sys/block | grep -c xvd"
    ))?;
    ensure!(
        said == DISKS.to_string(),
        "the guest has not {DISKS} disks: {said}"
    );
    for_all(guest.dom0, "take", "")?;
    guest.dom0.run("present 1")?;
    let told = for_all(guest.dom0, "told", "")?;
    let expected: Vec<String> = (1..DISKS)
        .map(vdev)
        .flat_map(|vdev| {
            let own = format!("this is {vdev} of {round}");
            [own.clone(), format!("{vdev}: {own}")]
        })
        .collect();
    ensure!(told.lines().eq(&expected), "dom0 has on the disks:\n{told}");
    let said = guest.run("n=0; until [ $(ls /sys/block | grep -c xvd) = 1 ] || [ $n = 60 ]; do sleep 1; n=$((n+1)); done; ls /sys/block | grep xvd")?;
    ensure!(said == "xvda", "the guest has still {said}");
    Ok(())
}
