//! PV disks: Linux's front end in a guest, `oxblk` in dom0.

pub mod fio;
mod many;
mod qcow2;

use oxen_tests::{Dom0, Failure, Setup, ensure};
use xtask::machine::Kind;

use crate::domains::{USERSPACE, setup};
use crate::hostile::number;
use crate::{Case, checks};

const GUEST: &str = "demo";
const KERNEL: &str = "/boot/guest/vmlinuz";
/// MiB of the machine, and of it dom0's: it has images in its memory.
const MEMORY: (u32, u32) = (1024, 576);
/// A guest with a disk leaves what stays for all others: dom0's own tables, the folder of back ends in xenstore.
const FIRST_GUEST: &str = "head -c 512 /dev/zero >/root/first && ox create -p /etc/oxen/demo.cfg 'disk=[\"/root/first,raw,xvda,w\"]' && ox destroy demo && sleep 2";
/// Ways in which the hostile guest breaks the protocol.
const ATTACKS: usize = 18;
/// How often the back end is killed while the guest writes: 6 times by default, twice on Bochs.
const KILLS_VARIABLE: &str = "OXEN_DISK_KILLS";

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(
            kind,
            "disks::files_and_devices",
            files_and_devices,
        ));
        cases.push(Case::new(kind, "disks::hostile_guest", hostile_guest));
        cases.push(Case::new(kind, "disks::thirty_two", many::thirty_two));
    }
    cases
}

/// A guest that is asked for values on its console.
struct Guest<'a> {
    dom0: &'a mut Dom0,
    asked: u32,
}

impl Guest<'_> {
    /// Makes a function known to the guest's shell.
    fn defines(&mut self, function: &str) -> Result<(), Failure> {
        self.dom0.run(&format!(
            "t=$(ox store read /local/domain/$(ox domid {GUEST})/console/tty); printf '%s\\n' '{function}' >$t"
        ))?;
        Ok(())
    }

    /// What a command prints in the guest, on one line.
    fn run(&mut self, command: &str) -> Result<String, Failure> {
        self.begin(command)?;
        self.end()
    }

    /// Types a command. Its output comes with a mark that is not in what was typed.
    fn begin(&mut self, command: &str) -> Result<(), Failure> {
        self.asked += 1;
        let before = self.asked - 1;
        self.dom0.run(&format!(
            "t=$(ox store read /local/domain/$(ox domid {GUEST})/console/tty); printf '%s\\n' 'v=$( {command} 2>&1); echo \"@$(({before}+1)): \"$v' >$t"
        ))?;
        Ok(())
    }

    fn end(&mut self) -> Result<String, Failure> {
        let mark = format!("@{}: ", self.asked);
        let line = checks::says(self.dom0, GUEST, &mark)?;
        let said = line.rsplit(&mark).next().unwrap_or_default();
        Ok(said.trim().to_owned())
    }

    /// Both sides see the same on a disk.
    fn sees_the_same(&mut self, disk: &str, image: &str) -> Result<(), Failure> {
        let here = self.dom0.run(&format!("sha256sum <{image}"))?;
        let there = self.run(&format!(
            "echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/{disk}"
        ))?;
        ensure!(
            here.split(' ').next() == there.split(' ').next(),
            "{disk}: the guest has {there}, dom0 has {here}"
        );
        Ok(())
    }
}

/// What a guest with disks uses up in dom0.
fn used(dom0: &mut Dom0) -> Result<String, Failure> {
    let rest = dom0.run("grep -c evtchn /proc/interrupts; ps | grep -c '[o]xblk serve'; ls /run/oxen/oxblk | grep -c journal; ox store ls / | grep -vc '0/backend/vbd'; ox store stats | grep watches; ox block-list; true")?;
    Ok(format!("{rest}\n{} pages of guests", mapped(dom0)?))
}

/// Pages of guests that dom0 has mapped by grants, as the hypervisor counts them.
fn mapped(dom0: &mut Dom0) -> Result<u32, Failure> {
    // The key that lists grants tells of so many here that the log does not hold all.
    let said =
        dom0.run("ox debug-keys x && ox dmesg | grep 'domain 0: .*grants: mapped' | tail -n 1")?;
    let after = |word: &str| -> Option<u32> {
        let rest = said.split(word).nth(1)?;
        rest.split(',').next()?.trim().parse().ok()
    };
    let number = (after(" mapped ").zip(after(" unmapped ")))
        .and_then(|(mapped, unmapped)| mapped.checked_sub(unmapped));
    number.ok_or_else(|| format!("the hypervisor says {said:?} of dom0's grants").into())
}

/// A boot for one of these tests, which takes as long as its steps may.
fn patient(name: &str, kind: Kind) -> Result<Setup, Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    setup.machine.time_limit = None;
    Ok(setup)
}

fn files_and_devices(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = patient(name, kind)?;
    let image = qcow2::Image::add(&mut setup)?;
    let mut dom0 = setup.boot()?;
    used_by_linux(&mut dom0, kind, &image)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

fn used_by_linux(dom0: &mut Dom0, kind: Kind, image: &qcow2::Image) -> Result<(), Failure> {
    dom0.run("modprobe brd rd_nr=2 rd_size=4096 && modprobe null_blk memory_backed=1 discard=1 gb=1 && cd /root && head -c 4194304 /dev/urandom >raw && head -c 1048576 /dev/urandom >more && cp more fixed && cat raw >/dev/ram0")?;
    dom0.run("n=0; until grep -q connected /var/log/xen/oxblk.log; do sleep 1; n=$((n+1)); [ $n = 60 ] && break; done")?;
    let disks = "disk=[\"vdev=xvda,no-persistent,target=/root/raw\", \"/dev/ram0,raw,xvdb,w\", \"format=raw,vdev=xvdc,access=ro,no-persistent,target=/root/fixed\", \"/dev/nullb0,raw,xvdk,w\"]";
    let config = [
        "memory=192",
        "ramdisk=\"/boot/guest/initrd\"",
        "extra=\"console=hvc0\"",
        disks,
    ];
    dom0.run(FIRST_GUEST)?;
    let before = used(dom0)?;
    checks::create_guest(dom0, GUEST, KERNEL, &config)?;
    checks::guest_says(dom0, GUEST, USERSPACE, checks::GUEST_BOOTS)?;
    let mut guest = Guest { dom0, asked: 0 };
    reads_and_writes(&mut guest)?;
    keeps_grants(&mut guest)?;
    comes_and_goes(&mut guest)?;
    image.is_used(&mut guest)?;
    killed(&mut guest, kind)?;
    by_the_kernel(&mut guest)?;
    dom0.run(&format!("ox destroy {GUEST}; sleep 3"))?;
    let after = used(dom0)?;
    ensure!(before == after, "before: {before}\nafter: {after}");
    let log = dom0.run("cat /var/log/xen/oxblk.log")?;
    ensure!(
        !log.contains("to blame"),
        "an honest guest is blamed:\n{log}"
    );
    Ok(())
}

fn reads_and_writes(guest: &mut Guest<'_>) -> Result<(), Failure> {
    let all = [
        ("xvda", "/root/raw"),
        ("xvdb", "/dev/ram0"),
        ("xvdc", "/root/fixed"),
    ];
    for (disk, image) in all {
        guest.sees_the_same(disk, image)?;
    }
    for (disk, image) in &all[..2] {
        // Large requests, small ones, and one sector in the middle of a page.
        let said = guest.run(&format!(
            "set -e; d=/dev/{disk}; dd if=/dev/urandom of=$d bs=1M count=2 conv=fsync; dd if=/dev/urandom of=$d bs=512 count=9 seek=5001 oflag=direct; dd if=/dev/urandom of=$d bs=4k count=20 seek=900 conv=fsync; echo fine"
        ))?;
        ensure!(said.ends_with("fine"), "{disk}: {said}");
        guest.sees_the_same(disk, image)?;
    }
    // Linux gives flushing up where a flush fails, and tells it here only.
    let said = guest.run("dmesg | grep op.failed; cat /sys/block/xvda/queue/write_cache")?;
    ensure!(said == "write back", "flushes: {said}");
    // What was thrown away reads as nothing.
    let said = guest.run("blkdiscard -o 1048576 -l 1048576 /dev/xvda && echo fine")?;
    ensure!(said.ends_with("fine"), "discard: {said}");
    guest.sees_the_same("xvda", "/root/raw")?;
    let zeroes = guest
        .dom0
        .run("dd if=/root/raw bs=1M skip=1 count=1 2>/dev/null | tr -d '\\0' | wc -c")?;
    ensure!(
        zeroes == "0",
        "{zeroes} bytes are left of what was discarded"
    );
    // This device discards, and cannot write zeroes without being sent them.
    let zeroes = (guest.dom0).run("cat /sys/block/nullb0/queue/write_zeroes_max_bytes")?;
    ensure!(zeroes == "0", "the device writes zeroes: {zeroes}");
    let said = guest.run("d=/dev/xvdk; set -e; dd if=/dev/urandom of=$d bs=1M count=3 conv=fsync; blkdiscard -o 1048576 -l 1048576 $d; echo fine")?;
    ensure!(said.ends_with("fine"), "discard: {said}");
    let left = guest.dom0.run("for n in 0 1 2; do dd if=/dev/nullb0 bs=1M skip=$n count=1 2>/dev/null | tr -d '\\0' | wc -c; done")?;
    let left: Vec<&str> = left.split_whitespace().collect();
    ensure!(
        left.len() == 3 && left[1] == "0" && left[0] != "0" && left[2] != "0",
        "{left:?} bytes are left where the second MiB was discarded"
    );
    let said = guest.run("cat /sys/block/xvdc/ro; dd if=/dev/zero of=/dev/xvdc bs=4k count=1 conv=fsync; echo status $?")?;
    ensure!(
        said.starts_with('1') && !said.ends_with("status 0"),
        "a read-only disk can be written: {said}"
    );
    guest.dom0.run("cmp /root/fixed /root/more")?;
    Ok(())
}

/// Of a disk whose grants the guest keeps, pages stay mapped; without its worker none is, and the next worker maps them again.
fn keeps_grants(guest: &mut Guest<'_>) -> Result<(), Failure> {
    /// Pages that the guest has used for the disk, at least.
    const USED: u32 = 32;
    const WORKER: &str = "p=$(grep -l -e --keep-[g]rants /proc/[0-9]*/cmdline | cut -d / -f 3)";
    let kept = mapped(guest.dom0)?;
    // The manager is kept from starting another.
    guest.dom0.run(&format!(
        "m=$(ps | grep '[/]usr/sbin/oxblk$' | awk '{{ print $1 }}'); {WORKER}; kill -STOP $m && kill -9 $p; n=0; while ls /proc/$p/fd/0 >/dev/null 2>&1 && [ $n != 30 ]; do sleep 1; n=$((n+1)); done"
    ))?;
    let left = mapped(guest.dom0)?;
    guest.dom0.run("kill -CONT $m")?;
    ensure!(
        kept >= left + USED,
        "{kept} pages of guests were mapped, {left} are without a worker"
    );
    guest.sees_the_same("xvdb", "/dev/ram0")?;
    let again = mapped(guest.dom0)?;
    ensure!(
        again >= left + USED,
        "{again} pages of guests are mapped by the next worker, {left} were without one"
    );
    Ok(())
}

/// Attached and detached while the guest runs.
fn comes_and_goes(guest: &mut Guest<'_>) -> Result<(), Failure> {
    for _ in 0..2 {
        guest
            .dom0
            .run(&format!("ox block-attach {GUEST} /root/more,raw,xvdd,rw"))?;
        let said = guest.run("n=0; until [ -b /dev/xvdd ] || [ $n = 60 ]; do sleep 1; n=$((n+1)); done; dd if=/dev/urandom of=/dev/xvdd bs=64k count=4 conv=fsync; echo there")?;
        ensure!(said.ends_with("there"), "{said}");
        guest.sees_the_same("xvdd", "/root/more")?;
        let list = guest.dom0.run(&format!("ox block-list {GUEST}"))?;
        ensure!(
            list.matches("connected").count() == 5,
            "not all disks are connected:\n{list}"
        );
        guest.dom0.run(&format!("ox block-detach {GUEST} xvdd"))?;
        let said = guest.run("n=0; while [ -b /dev/xvdd ] && [ $n != 60 ]; do sleep 1; n=$((n+1)); done; ls /sys/block")?;
        ensure!(!said.contains("xvdd"), "it is still there: {said}");
    }
    let missing = guest
        .dom0
        .try_run(&format!("ox block-attach {GUEST} /root/nothing,,xvdd"))?;
    ensure!(
        missing.status == 3 && missing.text.contains("/root/nothing"),
        "{missing:?}"
    );
    Ok(())
}

/// Linux's own back end serves a disk beside ours.
fn by_the_kernel(guest: &mut Guest<'_>) -> Result<(), Failure> {
    let attach = format!("ox block-attach {GUEST} vdev=xvde backendtype=kernel target=/dev/ram1");
    let missing = guest.dom0.try_run(&attach)?;
    ensure!(
        missing.status == 3 && missing.text.contains("modprobe xen-blkback"),
        "{missing:?}"
    );
    guest
        .dom0
        .run(&format!("modprobe xen-blkback && {attach}"))?;
    let said = guest.run("n=0; until [ -b /dev/xvde ] || [ $n = 60 ]; do sleep 1; n=$((n+1)); done; dd if=/dev/urandom of=/dev/xvde bs=64k count=20 conv=fsync; echo there")?;
    ensure!(said.ends_with("there"), "{said}");
    guest.sees_the_same("xvde", "/dev/ram1")?;
    let list = guest.dom0.run("ox block-list | grep xvde")?;
    ensure!(
        list.contains("kernel") && list.contains("connected"),
        "{list}"
    );
    guest
        .dom0
        .run(&format!("ox block-detach {GUEST} xvde"))
        .map(drop)
}

/// The back end's processes are killed again and again while the guest writes and reads back.
fn killed(guest: &mut Guest<'_>, kind: Kind) -> Result<(), Failure> {
    let usual = if kind == Kind::Bochs { 2 } else { 6 };
    guest.run("head -c 1048576 /dev/urandom >/data")?;
    let load = "b=0; n=0; until [ -e /stop ]; do n=$((n+1)); for o in 0 1 2 3; do dd if=/data of=/dev/xvda bs=64k seek=$((o*16)) oflag=direct conv=fsync || b=$((b+1)); dd if=/dev/xvda bs=64k skip=$((o*16)) count=16 iflag=direct | cmp - /data || b=$((b+1)); done; done; echo rounds $n, bad $b >/result";
    guest.run(&format!("({load}) >/dev/null 2>&1 & echo begun"))?;
    for round in 0..number(KILLS_VARIABLE)?.unwrap_or(usual) {
        // The workers, one of which the guest waits for; or the manager, with which they go.
        let victims = if round % 2 == 0 {
            "ps | grep '[o]xblk serve'"
        } else {
            "ps | grep '[/]usr/sbin/oxblk$'"
        };
        guest.dom0.run(&format!(
            "sleep 3; p=$({victims} | awk '{{ print $1 }}'); [ -n \"$p\" ] && kill -9 $p"
        ))?;
    }
    let said = guest.run("touch /stop; n=0; until [ -s /result ] || [ $n = 200 ]; do sleep 1; n=$((n+1)); done; cat /result")?;
    ensure!(
        said.starts_with("rounds") && said.ends_with("bad 0") && said != "rounds 0, bad 0",
        "the guest has other data than it wrote: {said}"
    );
    guest.sees_the_same("xvda", "/root/raw")?;
    guest.sees_the_same("xvdb", "/dev/ram0")?;
    let workers = guest.dom0.run("ps | grep -c '[o]xblk serve'")?;
    ensure!(workers == "4", "{workers} processes serve 4 disks");
    Ok(())
}

/// Each way to break the protocol closes the disk of who did it, with a reason in the log; a neighbour's goes on.
fn hostile_guest(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = patient(name, kind)?;
    let kernel = setup.add_guest("oxen-disk-guest")?;
    let mut dom0 = setup.boot()?;
    attacked(&mut dom0, &kernel)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

fn attacked(dom0: &mut Dom0, kernel: &str) -> Result<(), Failure> {
    dom0.run("cd /root && for n in honest hostile; do head -c 1048576 /dev/zero >$n; done; n=0; until grep -q connected /var/log/xen/oxblk.log; do sleep 1; n=$((n+1)); [ $n = 60 ] && break; done")?;
    dom0.run(FIRST_GUEST)?;
    let before = used(dom0)?;
    for guest in ["honest", "hostile"] {
        let grants = if guest == "honest" { "grants=kept" } else { "" };
        let extra = format!("extra=\"role={guest} {grants}\"");
        let disk = format!("disk=[\"vdev=xvda,target=/root/{guest}\"]");
        checks::create_guest(dom0, guest, kernel, &["memory=64", &extra, &disk])?;
    }
    checks::says(dom0, "hostile", "attacks are over")?;
    let said = dom0.run("cat /var/log/xen/console/guest-hostile.log")?;
    ensure!(
        said.matches(": closed").count() == ATTACKS && said.contains("refused, still served"),
        "not each attack ended as it should:\n{said}"
    );
    let log = dom0.run("grep 'guest is to blame' /var/log/xen/oxblk.log")?;
    ensure!(
        log.lines().count() == ATTACKS && log.matches("(guest hostile): closed").count() == ATTACKS,
        "not each attack is in the log:\n{log}"
    );
    for reason in [
        "is 1000 ahead of",
        "sectors 0 to 8 are not in a page",
        "with 200 segments",
        "operation 3 cannot be indirect",
        "grant 400 cannot be copied",
        r#"protocol: \"arm-abi\""#,
        "ring-page-order: 30",
    ] {
        ensure!(log.contains(reason), "nobody says {reason:?}:\n{log}");
    }
    // The neighbour goes on, with what it wrote.
    let rounds = |dom0: &mut Dom0| -> Result<u32, Failure> {
        let count = dom0.run("grep -c rounds /var/log/xen/console/guest-honest.log; true")?;
        Ok(count.parse()?)
    };
    let now = rounds(dom0)?;
    dom0.run("sleep 5")?;
    let later = rounds(dom0)?;
    let honest = dom0.run("tail -n 3 /var/log/xen/console/guest-honest.log")?;
    ensure!(
        now > 0 && later > now && !honest.contains("FAILED"),
        "{now} reports of the neighbour, then {later}:\n{honest}"
    );
    // It writes until its end, for which it is not blamed.
    dom0.run("ox destroy honest && ox destroy hostile; sleep 3")?;
    let after = used(dom0)?;
    ensure!(before == after, "before: {before}\nafter: {after}");
    let blamed = dom0.try_run("grep 'guest honest.*to blame' /var/log/xen/oxblk.log")?;
    ensure!(blamed.status == 1, "{}", blamed.text);
    Ok(())
}
