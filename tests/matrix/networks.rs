//! Network cards of guests: stock front ends on `oxnet`, over a bridge to dom0 and to each other.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{CONFIG, with_tools};
use crate::lives::{FUNCTIONS, nothing_left, used};
use crate::{Case, domains};

/// Two guests that keep what they have received.
const MEMORY: (u32, u32) = (1280, 512);
/// MiB that are sent to each guest and back: 32 by default, 8 on Bochs.
const SIZE_VARIABLE: &str = "OXEN_NETWORK_MIB";

/// Shell functions: `in_guest GUEST COMMAND` types a command on a guest's console and succeeds if it does; `back_and_forth GUEST NUMBER` has a
/// guest fetch dom0's file, fetches it back from the guest's address with that number, and compares.
const OWN_FUNCTIONS: &[&str] = &[
    r#"k=0; in_guest() { g=$1; shift; k=$((k+1)); type_in $g "$*; echo ma''rk$k \$?"; within 600 "grep -q 'mark$k [0-9]' $(log $g)" && grep -q "mark$k 0" $(log $g) || { echo "in $g: $*"; tail -n 15 $(log $g); tail -n 5 /var/log/xen/oxnet.log; false; }; }"#,
    r#"back_and_forth() { in_guest $1 'wget -q -O /data http://192.168.77.1:5000/data' && wget -q -O /run/back http://192.168.77.$2/data && cmp /run/data /run/back && in_guest $1 'rm /data' && rm /run/back; }"#,
    r#"vif() { echo vif$(ox domid $1).$2; }"#,
    r#"learned() { hexdump -v -e '16/1 "%02x" "\n"' /sys/class/net/xenbr0/brforward | cut -c 1-12; }"#,
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(kind, "networks::bridge", move |name, kind| {
            with_tools(name, kind, MEMORY, |dom0| bridge(dom0, kind))
        }));
    }
    cases
}

/// How much is sent: on Bochs less, whose CPUs do a twentieth.
fn megabytes(kind: Kind) -> Result<u32, Failure> {
    match std::env::var(SIZE_VARIABLE) {
        Ok(text) => (text.parse()).map_err(|_| format!("{SIZE_VARIABLE}={text}: no number").into()),
        Err(_) if kind == Kind::Bochs => Ok(8),
        Err(_) => Ok(32),
    }
}

fn bridge(dom0: &mut Dom0, kind: Kind) -> Result<(), Failure> {
    for function in FUNCTIONS.iter().chain(OWN_FUNCTIONS) {
        dom0.run(&function.replace("USERSPACE", domains::USERSPACE))?;
    }
    dom0.run("within 60 'grep -q supervising /var/log/xen/supervisor.log && grep -q connected /var/log/xen/xenconsoled.log && grep -q connected /var/log/xen/oxnet.log'")?;
    // What the first guests leave for all others is not counted.
    dom0.run(&format!(
        "modprobe xen-netback && ox create -p {CONFIG} \"vif=['type=kernel']\" && ox destroy demo"
    ))?;
    refused(dom0)?;
    let before = used(dom0)?;
    let links = dom0.run("ls /sys/class/net")?;

    // One has two queues and all offloads, two has neither.
    dom0.run(&format!(
        "ox create {CONFIG} name=one vcpus=2 \"vif=['mac=00:16:3e:00:00:01,queues=2']\" && ox create {CONFIG} name=two \"vif=['mac=00:16:3e:00:00:02,bridge=xenbr0,offload=0']\" && up one 1 && up two 1"
    ))?;
    for (guest, last) in [("one", 11), ("two", 12)] {
        dom0.run(&format!(
            "in_guest {guest} 'ip addr add 192.168.77.{last}/24 dev eth0 && ip link set eth0 up && httpd -h /' && ping -c 3 -w 60 192.168.77.{last}"
        ))?;
    }
    let queues = dom0.run("ls -d /sys/class/net/$(vif one 0)/queues/tx-* | wc -l")?;
    ensure!(queues == "2", "guest one has {queues} queues instead of 2");
    dom0.run("in_guest one 'ping -c 3 -w 60 192.168.77.12'")?;

    let size = megabytes(kind)?;
    dom0.run(&format!(
        "dd if=/dev/urandom of=/run/data bs=1M count={size} 2>/dev/null; httpd -p 5000 -h /run"
    ))?;
    dom0.run("back_and_forth two 12")?;
    killed(dom0)?;
    dom0.run("rm /run/data; kill $(pidof httpd)")?;
    spoofed(dom0)?;
    attached(dom0)?;

    dom0.run("ox destroy one && ox destroy two")?;
    dom0.run("rm -f /var/log/xen/console/*")?;
    nothing_left(dom0, &before)?;
    let left = dom0.run("ls /sys/class/net")?;
    ensure!(left == links, "interfaces before: {links}\nafter: {left}");
    let processes = dom0.run("pidof oxnet | wc -w")?;
    ensure!(processes == "1", "{processes} processes of oxnet are left");
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

/// The back end, and the processes that serve, are killed while the guest receives and sends.
fn killed(dom0: &mut Dom0) -> Result<(), Failure> {
    dom0.run("{ n=0; while [ $n -lt 4 ]; do sleep 2; kill -9 $(pidof oxnet); n=$((n+1)); done; } & killer=$!")?;
    dom0.run("back_and_forth one 11")?;
    dom0.run("wait $killer; within 60 'ping -c 1 -w 5 192.168.77.11 >/dev/null'")?;
    let taken = dom0.run("grep -c 'taken up again' /var/log/xen/oxnet.log")?;
    ensure!(
        taken.parse::<u32>().is_ok_and(|count| count >= 4),
        "network cards were taken up again {taken} times"
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
    for kind in ["ox,rate=1MB/s", "kernel"] {
        dom0.run(&format!(
            "ox network-attach two mac=00:16:3e:00:00:09,type={kind} && within 60 'ox network-list two | grep -q \"00:09.*connected\"' || {{ ox network-list two; cat /var/log/xen/oxnet.log; false; }}"
        ))?;
        dom0.run("in_guest two 'ip addr add 192.168.78.12/24 dev eth1 && ip link set eth1 up' && ping -c 2 -w 60 192.168.78.12")?;
        dom0.run("ox network-detach two 1 && in_guest two '! ip link show eth1'")?;
        dom0.run("! ls -d /sys/class/net/$(vif two 1) 2>/dev/null")?;
    }
    dom0.run("ip addr del 192.168.78.1/24 dev xenbr0")?;
    Ok(())
}
