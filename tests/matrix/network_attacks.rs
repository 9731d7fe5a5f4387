//! A guest that breaks the protocol of network cards in every way that it knows, beside one that does not.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::lives::{define_functions, nothing_left, used};
use crate::{Case, checks};

/// Who is pinged, and who attacks; their cards' addresses end like their own.
const HONEST: u32 = 21;
const HOSTILE: u32 = 22;
/// Ways in which the hostile guest has its card closed, and in which it only loses what it sends.
const CLOSED: usize = 27;
const DROPPED: usize = 13;

/// What the log says of cards that were closed.
const REASONS: &[&str] = &[
    "transmit ring: the ring index 0x3e8 is 1000 ahead of",
    "receive ring: the ring index 0x3e8 is 1000 ahead of",
    "part of 97 bytes at byte 4000 leaves its page",
    "part of 65535 bytes at byte 0 leaves its page",
    "part of 61439 bytes at byte 0 leaves its page",
    "part of 10 bytes at byte 65535 leaves its page",
    "a packet of more than 20 parts",
    "a packet with more than 5 extra slots",
    "extra information of the unknown kind 6",
    "segmentation of the unknown kind 3",
    "segmentation into segments of 0 bytes",
    "a list of multicast addresses was not offered",
    r#"tx-ring-ref: \"-1\" is no number in range"#,
    "page 400 cannot be mapped",
    "event-channel-tx: 0 is no port",
    r#"event-channel-rx: \"x\" is no number in range"#,
    "event channel 4000 cannot be bound",
    "multi-queue-num-queues: 4294967295, where 1 to 1 were offered",
    "request-rx-copy: must be 1",
    r#"feature-sg: \"perhaps\" is no number in range"#,
    "feature-gso-tcpv4: a value of 300 bytes",
];

/// What the log says of frames that went no further, behind how many there were.
const LOSSES: &[&str] = &[
    "10 packets from other addresses, the last from 02:00:00:00:00:66",
    "1 packets in pages that are not granted",
    "1 packets that were none, the last shorter than an Ethernet header",
    "1 packets that were none, the last with parts that are longer than the whole",
    "1 packets that were none, the last of more than 18 parts",
    "1 packets that were none, the last to be cut, with a complete checksum",
    "1 packets that cannot be cut as they should",
    "1 packets without the checksum that is to be completed",
    "1 packets for which pages were given that are not granted",
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .map(|kind| Case::new(kind, "networks::hostile_guest", hostile_guest))
        .into()
}

/// Each attack costs who did it his card or his frame, with a reason in the log; the neighbour on the same bridge answers pings.
fn hostile_guest(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    setup.machine.time_limit = None;
    let kernel = setup.add_guest("oxen-network-guest")?;
    let mut dom0 = setup.boot()?;
    attacked(&mut dom0, &kernel)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

fn attacked(dom0: &mut Dom0, kernel: &str) -> Result<(), Failure> {
    define_functions(dom0)?;
    dom0.run("within 60 'grep -q supervising /var/log/xen/supervisor.log && grep -q connected /var/log/xen/xenconsoled.log && grep -q connected /var/log/xen/oxnet.log'")?;
    // What the first guest with a card leaves for all others is not counted.
    create(dom0, "honest", HONEST, kernel)?;
    dom0.run("ox destroy honest; rm /var/log/xen/console/*; sleep 2")?;
    let before = used(dom0)?;
    let own_before = used_for_cards(dom0)?;

    create(dom0, "honest", HONEST, kernel)?;
    checks::says(dom0, "honest", "is up")?;
    answers_pings(dom0)?;
    create(dom0, "hostile", HOSTILE, kernel)?;
    checks::says(dom0, "hostile", "attacks are over")?;
    answers_pings(dom0)?;

    let said = dom0.run("cat $(log hostile)")?;
    ensure!(
        said.matches(": closed").count() == CLOSED
            && said.matches(": dropped").count() == DROPPED
            && said.contains("states: still served"),
        "not each attack ended as it should:\n{said}"
    );
    the_log_says_why(dom0)?;
    no_false_address(dom0)?;
    let honest = dom0.run("tail -n 3 $(log honest)")?;
    ensure!(
        honest.contains("frames seen") && !honest.contains("panic"),
        "the neighbour says:\n{honest}"
    );

    dom0.run("ox destroy hostile && ox destroy honest; sleep 2")?;
    nothing_left(dom0, &before)?;
    let own_after = used_for_cards(dom0)?;
    ensure!(
        own_before == own_after,
        "before: {own_before}\nafter: {own_after}"
    );
    Ok(())
}

fn create(dom0: &mut Dom0, name: &str, number: u32, kernel: &str) -> Result<(), Failure> {
    let extra = format!("extra=\"role={name} address=192.168.77.{number}\"");
    let card = format!("vif=[\"mac=00:16:3e:00:00:{number},bridge=xenbr0\"]");
    checks::create_guest(dom0, name, kernel, &["memory=64", &extra, &card])
}

/// Interfaces, what oxnet has open, processes that serve, and cards.
fn used_for_cards(dom0: &mut Dom0) -> Result<String, Failure> {
    dom0.run("ls /sys/class/net; ls /proc/$(pidof oxnet)/fd | wc -l; pidof oxnet | wc -w; ox network-list; ls /sys/class/net/xenbr0/brif | wc -l")
}

/// Small ones, and ones that are answered in two parts.
fn answers_pings(dom0: &mut Dom0) -> Result<(), Failure> {
    dom0.run(&format!(
        "ping -c 2 -w 60 192.168.77.{HONEST} && ping -c 2 -w 60 -s 1400 192.168.77.{HONEST}"
    ))?;
    Ok(())
}

fn the_log_says_why(dom0: &mut Dom0) -> Result<(), Failure> {
    let log = dom0.run("grep 'guest is to blame' /var/log/xen/oxnet.log")?;
    ensure!(
        log.lines().count() == CLOSED && log.matches("(guest hostile): closed").count() == CLOSED,
        "not each attack is in the log:\n{log}"
    );
    for reason in REASONS {
        ensure!(log.contains(reason), "nobody says {reason:?}:\n{log}");
    }
    let lost = dom0.run("grep dropped /var/log/xen/oxnet.log")?;
    let owner = dom0.run("echo domain $(ox domid hostile), interface vif$(ox domid hostile).0")?;
    for loss in LOSSES {
        let line = format!("{owner}: dropped {loss}");
        ensure!(lost.contains(&line), "nobody says {line:?}:\n{lost}");
    }
    // Others were destroyed while they sent.
    let neighbour = dom0.run("echo domain $(ox domid honest),")?;
    ensure!(
        !lost.contains(&neighbour),
        "the neighbour has lost something:\n{lost}"
    );
    Ok(())
}

/// The bridge knows the neighbour, and not who the hostile guest said that it was.
fn no_false_address(dom0: &mut Dom0) -> Result<(), Failure> {
    let learned = dom0
        .run(r#"hexdump -v -e '16/1 "%02x" "\n"' /sys/class/net/xenbr0/brforward | cut -c 1-12"#)?;
    let has = |mac: &str| learned.lines().any(|line| line == mac);
    ensure!(
        has(&format!("00163e0000{HONEST}")) && !has("020000000066"),
        "the bridge has learned:\n{learned}"
    );
    Ok(())
}
