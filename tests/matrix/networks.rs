//! Network cards of guests: stock front ends on `oxnet`, over a bridge to dom0 and to each other.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{CONFIG, setup};
use crate::hostile::number;
use crate::lives::{FUNCTIONS, nothing_left, used};
use crate::{Case, checks, domains};

/// Two guests that keep what they have received.
const MEMORY: (u32, u32) = (1280, 512);
/// MiB that are sent to each guest and back: 16 by default, 4 on Bochs.
const SIZE_VARIABLE: &str = "OXEN_NETWORK_MIB";
/// How often the back end is killed under load: 6 times by default, 3 on Bochs.
const KILLS_VARIABLE: &str = "OXEN_NETWORK_KILLS";
/// How often a guest is given network cards until it has 16, which are then taken away again.
const ROUNDS_VARIABLE: &str = "OXEN_NETWORK_ROUNDS";
/// Cards that a guest has beside its first one then.
const MORE: u32 = 15;
/// MiB of that guest, and those that its Linux has less of after such a round: its front end (6.1) does not get the 256 pages back that it
/// has given for packets, be the card served by `oxnet` or by Linux.
const GUEST_MEMORY: u64 = 192;
const LOST: u64 = 16;

/// A neighbour that does not answer for three seconds is gone for Linux, and no connection can be made: on a busy host the back end
/// may take as long to start again. So it is asked for longer.
const PATIENT: &str = "for f in /proc/sys/net/ipv4/neigh/*/?cast_solicit; do echo 60 >$f; done;";

/// Each card of a guest answers for its own addresses only. Otherwise dom0, when it asks for that of the first card while there is a second,
/// may hear of the second, and is patient for a minute with one that has been taken away.
const OWN_ADDRESS: &str = "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore;";

/// Shell functions.
///
/// - `in_guest GUEST COMMAND` types a command on a guest's console and succeeds if it does.
/// - `there GUEST` has a guest fetch dom0's file; `back GUEST NUMBER` fetches it from the guest's address with that number, and compares.
/// - `or_tell COMMAND` shows how things stand, as `tell` does, if a command fails.
/// - `learned` lists the addresses that the bridge has learned.
/// - `killer COUNT` kills the back end so often, each time when both guests' cards are served again and a megabyte has passed, for TCP
///   waits longer and longer where nothing does: all its processes, those that serve, or the one that watches over them.
/// - `loader` fetches from guest two until it is told to stop.
/// - `took COMMAND` prints in how many hundredths of a second it ended.
const OWN_FUNCTIONS: &[&str] = &[
    r#"k=0; in_guest() { g=$1; shift; k=$((k+1)); type_in $g "$*; echo ma''rk$k \$?"; within 120 "grep -q 'mark$k [0-9]' $(log $g)" && grep -q "mark$k 0" $(log $g) || { echo "in $g: $*"; tail -n 15 $(log $g); tail -n 5 /var/log/xen/oxnet.log; false; }; }"#,
    r#"there() { in_guest $1 'wget -q -O /data http://192.168.77.1:5000/data'; }"#,
    r#"back() { timeout 120 wget -q -O /run/back http://192.168.77.$2/data && cmp /run/data /run/back && in_guest $1 'rm /data' && rm /run/back; }"#,
    r#"tell() { ps | grep oxnet; netstat -tn; cat /proc/net/arp /run/kille*; ip -s link; tail -n 30 /var/log/xen/oxnet.log; }"#,
    r#"or_tell() { "$@" || { tell; false; }; }"#,
    r#"vif() { echo vif$(ox domid $1).$2; }"#,
    r#"served() { grep -c 'taken up again' /var/log/xen/oxnet.log; }"#,
    r#"victims() { for p in $(pidof oxnet); do case $(($1 % 3)),$(grep -c serve /proc/$p/cmdline) in 1,0|2,1) ;; *) echo $p;; esac; done; }"#,
    r#"flows() { cat /sys/class/net/$1/statistics/[rt]x_bytes 2>/dev/null | awk '{ sum += $1 } END { exit !(sum > 1000000) }'; }"#,
    r#"killer() { i=0; v=$(vif one 0); while [ $i -lt $1 ]; do c=$(served); kill -9 $(victims $i); within 100 "[ \$(served) -ge $((c+2)) ] && flows $v" || break; i=$((i+1)); done >/run/killer 2>&1; echo $i >/run/killed; }"#,
    r#"loader() { while [ ! -e /run/stop ]; do timeout 60 wget -q -O /run/load http://192.168.77.12/bin/busybox && cmp -s /run/load /bin/busybox || { echo failed; tell; }; done >/run/loader 2>&1; }"#,
    r#"hundredths() { awk '{ print int($1 * 100) }' /proc/uptime; }"#,
    r#"took() { b=$(hundredths); "$@" && echo $(($(hundredths)-b)); }"#,
    r#"attach() { ox network-attach two mac=$1,type=$2 && within 60 "ox network-list two | grep -q '$1.*connected'" || { ox network-list two; tail -n 20 /var/log/xen/oxnet.log; false; }; }"#,
    r#"learned() { hexdump -v -e '16/1 "%02x" "\n"' /sys/class/net/xenbr0/brforward | cut -c 1-12; }"#,
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "networks::bridge", bridge))
        .collect()
}

fn bridge(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    // As long as its steps may take: there may be any number of them.
    setup.machine.time_limit = None;
    let mut dom0 = setup.boot()?;
    cards(&mut dom0, kind)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// How much is sent: on Bochs less, whose CPUs do a twentieth.
fn megabytes(kind: Kind) -> Result<u64, Failure> {
    let usual = if kind == Kind::Bochs { 4 } else { 16 };
    Ok(number(SIZE_VARIABLE)?.unwrap_or(usual))
}

fn rounds() -> Result<u64, Failure> {
    Ok(number(ROUNDS_VARIABLE)?.unwrap_or(1))
}

fn cards(dom0: &mut Dom0, kind: Kind) -> Result<(), Failure> {
    for function in FUNCTIONS.iter().chain(OWN_FUNCTIONS) {
        dom0.run(&function.replace("USERSPACE", domains::USERSPACE))?;
    }
    dom0.run("within 60 'grep -q supervising /var/log/xen/supervisor.log && grep -q connected /var/log/xen/xenconsoled.log && grep -q connected /var/log/xen/oxnet.log'")?;
    // What the first guests leave for all others is not counted.
    dom0.run(&format!(
        "modprobe xen-netback && ox create -p {CONFIG} \"vif=['type=kernel']\" && ox destroy demo"
    ))?;
    refused(dom0)?;
    dom0.run(PATIENT)?;
    let before = used(dom0)?;
    let links = dom0.run("ls /sys/class/net")?;

    // One has two queues and all offloads, two has neither.
    dom0.run(&format!(
        "ox create {CONFIG} name=one vcpus=2 \"vif=['mac=00:16:3e:00:00:01,queues=2']\" && ox create {CONFIG} name=two memory={} \"vif=['mac=00:16:3e:00:00:02,bridge=xenbr0,offload=0']\" && up one 1 && up two 1",
        GUEST_MEMORY + LOST * rounds()?
    ))?;
    for (guest, last) in [("one", 11), ("two", 12)] {
        dom0.run(&format!(
            "in_guest {guest} '{PATIENT} {OWN_ADDRESS} ip addr add 192.168.77.{last}/24 dev eth0 && ip link set eth0 up && httpd -h /' && ping -c 3 -w 60 192.168.77.{last}"
        ))?;
    }
    let queues = dom0.run("ls -d /sys/class/net/$(vif one 0)/queues/tx-* | wc -l")?;
    ensure!(queues == "2", "guest one has {queues} queues instead of 2");
    dom0.run("in_guest one 'ping -c 3 -w 60 192.168.77.12'")?;

    let size = megabytes(kind)?;
    dom0.run(&format!(
        "dd if=/dev/urandom of=/run/data bs=1M count={size} 2>/dev/null; httpd -p 5000 -h /run"
    ))?;
    back_and_forth(dom0, "two", 12)?;
    killed(dom0, kind)?;
    dom0.run("rm /run/data; kill $(pidof httpd)")?;
    spoofed(dom0)?;
    attached(dom0)?;
    sixteen(dom0)?;

    dom0.run("ox destroy one && ox destroy two")?;
    dom0.run("rm -f /var/log/xen/console/*")?;
    nothing_left(dom0, &before)?;
    let left = dom0.run("ls /sys/class/net")?;
    ensure!(left == links, "interfaces before: {links}\nafter: {left}");
    let processes = dom0.run("pidof oxnet | wc -w")?;
    ensure!(processes == "1", "{processes} processes of oxnet are left");
    let journals = dom0.run("within 20 '[ -z \"$(ls /run/oxen/oxnet)\" ]'; ls /run/oxen/oxnet")?;
    ensure!(journals.is_empty(), "journals are left: {journals}");
    Ok(())
}

/// A bridge that is not there is named, and nothing is left.
fn refused(dom0: &mut Dom0) -> Result<(), Failure> {
    let output = dom0.try_run(&format!("ox create {CONFIG} \"vif=['bridge=nowhere']\""))?;
    ensure!(
        output.status != 0 && output.text.contains("no bridge \"nowhere\""),
        "a bridge that is not there: {} {}",
        output.status,
        output.text
    );
    let left = dom0.run("ox list | grep -c demo || true")?;
    ensure!(left == "0", "a refused guest is left");
    Ok(())
}

/// A file goes to a guest and back, each way within the time that a command has.
fn back_and_forth(dom0: &mut Dom0, guest: &str, last: u32) -> Result<(), Failure> {
    dom0.run(&format!("or_tell there {guest}"))?;
    dom0.run(&format!("or_tell back {guest} {last}"))?;
    Ok(())
}

/// The back end is killed, in all its parts, while the guest receives and sends; no connection is lost.
fn killed(dom0: &mut Dom0, kind: Kind) -> Result<(), Failure> {
    let usual = if kind == Kind::Bochs { 3 } else { 6 };
    let kills = number(KILLS_VARIABLE)?.unwrap_or(usual);
    dom0.run(&format!("killer {kills} &"))?;
    loop {
        back_and_forth(dom0, "one", 11)?;
        if dom0.try_run("[ -e /run/killed ]")?.status == 0 {
            break;
        }
    }
    let done = dom0.run("cat /run/killed /run/killer")?;
    ensure!(
        done == kills.to_string(),
        "of {kills} kills the back end has got over {done}"
    );
    Ok(())
}

/// A guest that takes another address is heard no more, until it takes its own again.
fn spoofed(dom0: &mut Dom0) -> Result<(), Failure> {
    // Linux's front end takes another address only while it is down.
    let address = |address: &str| {
        format!(
            "in_guest one 'ip link set eth0 down && ip link set eth0 address {address} && ip link set eth0 up'"
        )
    };
    dom0.run(&address("02:00:00:00:00:66"))?;
    let output = dom0.try_run("ping -c 2 -w 3 192.168.77.11")?;
    ensure!(output.status != 0, "a guest is heard under a false address");
    let learned = dom0.run("learned")?;
    ensure!(
        !learned.contains("020000000066"),
        "the bridge has learned a false address: {learned}"
    );
    dom0.run("grep 'dropped .* 02:00:00:00:00:66' /var/log/xen/oxnet.log")?;
    dom0.run(&address("00:16:3e:00:00:01"))?;
    dom0.run("ping -c 1 -w 60 192.168.77.11")?;
    dom0.run("learned | grep 00163e000001")?;
    Ok(())
}

/// Cards come and go while the guest runs: ours with a limit, and one of the kernel's back end.
fn attached(dom0: &mut Dom0) -> Result<(), Failure> {
    dom0.run("ip addr add 192.168.78.1/24 dev xenbr0")?;
    dom0.run("in_guest two 'dd if=/dev/zero of=/limited bs=64k count=4'")?;
    for kind in ["ox,rate=32KB/s", "kernel"] {
        dom0.run(&format!("attach 00:16:3e:00:00:09 {kind}"))?;
        dom0.run("in_guest two 'ip addr add 192.168.78.12/24 dev eth1 && ip link set eth1 up' && ping -c 2 -w 60 192.168.78.12")?;
        if kind != "kernel" {
            limited(dom0)?;
        }
        dom0.run("ox network-detach two 1 && in_guest two '! ip link show eth1'")?;
        dom0.run("! ls -d /sys/class/net/$(vif two 1) 2>/dev/null")?;
    }
    dom0.run("ip addr del 192.168.78.1/24 dev xenbr0")?;
    Ok(())
}

/// What a guest sends is limited to the rate of the card, and to that of no other.
fn limited(dom0: &mut Dom0) -> Result<(), Failure> {
    /// Of 256 KiB, 128 KiB may go at once, and the last packet, of 64 KiB at most, is paid for later; hundredths of a second for the
    /// rest, less the last interval.
    const LEAST: u32 = (256 - 128 - 64) * 1024 * 100 / 32_000 - 5;
    let mut fetch = |last: &str| -> Result<u32, Failure> {
        let took = dom0.run(&format!(
            "took wget -q -O /dev/null http://192.168.{last}/limited"
        ))?;
        (took.parse()).map_err(|_| format!("a fetch took {took:?}").into())
    };
    let (limited, free) = (fetch("78.12")?, fetch("77.12")?);
    ensure!(
        limited >= LEAST && free < limited,
        "256 KiB took {limited} hundredths of a second with a limit, where {LEAST} are the least, and {free} without"
    );
    Ok(())
}

/// A guest with 16 cards, each of which works, given and taken while it sends; what it sends is not disturbed.
fn sixteen(dom0: &mut Dom0) -> Result<(), Failure> {
    let numbers: Vec<String> = (1..=MORE).map(|number| number.to_string()).collect();
    let numbers = numbers.join(" ");
    dom0.run("loader &")?;
    for round in 0..rounds()? {
        dom0.run(&format!(
            "for i in {numbers}; do kind=ox; [ $i != 7 ] || kind=kernel; ox network-attach two mac=00:16:3e:00:01:$(printf %02x $i),type=$kind || break; done"
        ))?;
        dom0.run(&format!(
            "within 60 '[ $(ox network-list two | grep -c connected) = {} ]' 2>/dev/null || {{ ox network-list two; tail -n 40 $(log two); false; }}",
            MORE + 1
        ))?;
        if round == 0 {
            each_works(dom0, &numbers)?;
        }
        dom0.run(&format!(
            "for i in {numbers}; do ox network-detach two $i || break; done"
        ))?;
        dom0.run("within 60 '[ $(ox network-list two | grep -c 00:16) = 1 ]' 2>/dev/null || { ox network-list two; tail -n 40 $(log two); false; }")?;
    }
    dom0.run("in_guest two '! ip link show eth1'")?;
    let disturbed = dom0.run("touch /run/stop; wait; cat /run/loader")?;
    ensure!(
        disturbed.is_empty(),
        "beside cards that came and went: {disturbed}"
    );
    dom0.run("rm /run/load /run/loader /run/stop")?;
    Ok(())
}

/// Each card answers for its own address only, and is heard.
fn each_works(dom0: &mut Dom0, numbers: &str) -> Result<(), Failure> {
    dom0.run(&format!(
        "in_guest two 'for i in {numbers}; do ip addr add 10.0.$i.2/24 dev eth$i && ip link set eth$i up || break; done'"
    ))?;
    dom0.run(&format!(
        "for i in {numbers}; do ip addr add 10.0.$i.1/24 dev xenbr0; ping -c 1 -w 60 10.0.$i.2 || break; done"
    ))?;
    let heard = dom0.run("grep -o '00:16:3e:00:01:..' /proc/net/arp | sort -u | wc -l")?;
    ensure!(
        heard == MORE.to_string(),
        "of {MORE} cards {heard} answered"
    );
    dom0.run(&format!(
        "for i in {numbers}; do ip addr del 10.0.$i.1/24 dev xenbr0; done"
    ))?;
    Ok(())
}
