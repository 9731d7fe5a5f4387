//! The same data test for each pair of a front end and a back end of PV devices, of ours and of Linux's: see `tests/exchange`.

use oxen_tests::{Dom0, Failure, Setup, ensure};
use xtask::machine::Kind;
use xtask::provision::newc::Newc;

use crate::domains::{USERSPACE, setup};
use crate::hostile::number;
use crate::lives::{define_functions, nothing_left, used};
use crate::{Case, checks};

/// Of the machine and of dom0, in MiB: one stock guest and six small ones.
const MEMORY: (u32, u32) = (1152, 512);
/// Messages to each network card, and as many answers: twice all shapes by default.
const MESSAGES_VARIABLE: &str = "OXEN_PAIRING_MESSAGES";
const MESSAGES: u64 = 26;
/// The guest with Linux's front ends. The small ones are named after their devices.
const STOCK: &str = "stock";
const KERNEL: &str = "/boot/guest/vmlinuz";
/// The test's program in dom0, and the archive of what the stock guest is given beside its own files.
const PROGRAM: &str = "/usr/bin/exchange";
const ARCHIVE: &str = "/boot/guest/exchange.cpio";

/// Whose front end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    Linux,
    Ox,
}

/// Disks: the front end and what says which back end. Each is the RAM disk of its number in dom0, and has the test of that number.
const DISKS: [(Front, &str); 4] = [
    (Front::Linux, "ox"),
    (Front::Linux, "kernel"),
    (Front::Ox, "ox"),
    (Front::Ox, "kernel"),
];

/// A network card.
struct Card {
    front: Front,
    back: &'static str,
    /// Neither end leaves large packets or checksums to the other.
    plain: bool,
}

const fn card(front: Front, back: &'static str, plain: bool) -> Card {
    Card { front, back, plain }
}

/// Linux's back end has no setting for `plain`, and Linux's front end in the stock guest no tool: so these are one less.
const CARDS: [Card; 7] = [
    card(Front::Linux, "ox", false),
    card(Front::Linux, "ox,offload=0", true),
    card(Front::Linux, "kernel", false),
    card(Front::Ox, "ox", false),
    card(Front::Ox, "ox,offload=0", true),
    card(Front::Ox, "kernel", false),
    card(Front::Ox, "kernel", true),
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .map(|kind| Case::new(kind, "pairings::disks_and_network_cards", pairings))
        .into()
}

fn pairings(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    setup.machine.time_limit = None;
    let kernels = Kernels {
        disk: setup.add_guest("oxen-disk-guest")?,
        network: setup.add_guest("oxen-network-guest")?,
    };
    let messages = number(MESSAGES_VARIABLE)?.unwrap_or(MESSAGES);
    add_programs(&mut setup, messages)?;
    let mut dom0 = setup.boot()?;
    same_data(&mut dom0, &kernels, messages)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// The small guests.
struct Kernels {
    disk: String,
    network: String,
}

/// Puts the test's program into dom0 and into the stock guest, which does with it what a script says.
fn add_programs(setup: &mut Setup, messages: u64) -> Result<(), Failure> {
    let program = xtask::build::program("oxen-exchange-program")?;
    setup.add_program(PROGRAM, &program)?;
    let mut archive = Newc::new();
    archive.file("bin/exchange", std::fs::read(&program)?, true);
    archive.file("run.sh", script(messages).into_bytes(), false);
    setup.add_guest_archive(ARCHIVE, &archive)
}

/// The stock guest does the test of its disks, then answers on its cards.
fn script(messages: u64) -> String {
    let disks = stock_disks().map(|(ram, vdev, _)| {
        format!("until [ -b /dev/{vdev} ]; do sleep 1; done; exchange exchange /dev/{vdev} {ram}\n")
    });
    let cards = cards_with(Front::Linux).map(|(nth, _)| {
        let found = format!("i=$(grep -l {} /sys/class/net/*/address)", mac(nth));
        format!(
            "until {found}; do sleep 1; done; i=$(echo $i | cut -d/ -f5); ip link set $i up; exchange answer $i {messages} | sed 's/^/card {nth} /' &\n"
        )
    });
    disks.chain(cards).collect()
}

fn disks_with(front: Front) -> impl Iterator<Item = (usize, &'static str)> {
    let disks = DISKS.iter().enumerate();
    disks.filter_map(move |(ram, &(its, back))| (its == front).then_some((ram, back)))
}

/// Those of the stock guest: of which RAM disk each is, what the guest calls it, and who serves it.
fn stock_disks() -> impl Iterator<Item = (usize, String, &'static str)> {
    let disks = ('a'..).zip(disks_with(Front::Linux));
    disks.map(|(letter, (ram, back))| (ram, format!("xvd{letter}"), back))
}

fn cards_with(front: Front) -> impl Iterator<Item = (usize, &'static Card)> {
    let cards = CARDS.iter().enumerate();
    cards.filter(move |(_, card)| card.front == front)
}

fn same_data(dom0: &mut Dom0, kernels: &Kernels, messages: u64) -> Result<(), Failure> {
    define_functions(dom0)?;
    dom0.run("within 60 'grep -q supervising /var/log/xen/supervisor.log && grep -q connected /var/log/xen/xenconsoled.log && grep -q connected /var/log/xen/oxblk.log && grep -q connected /var/log/xen/oxnet.log'")?;
    dom0.run(&format!(
        "modprobe -a xen-blkback xen-netback && modprobe brd rd_nr={} rd_size=4096 && cat /boot/guest/initrd {ARCHIVE} >/run/initrd",
        DISKS.len()
    ))?;
    for ram in 0..DISKS.len() {
        dom0.run(&format!("exchange prepare /dev/ram{ram} {ram}"))?;
    }
    // What the first guests with each kind of device leave for all others is not counted.
    dom0.run("ox create -p /etc/oxen/demo.cfg 'disk=[\"/dev/ram0,,xvda\",\"/dev/ram1,,xvdb,backendtype=kernel\"]' 'vif=[\"type=ox\",\"type=kernel\"]' && ox destroy demo && sleep 2")?;
    let before = used(dom0)?;

    create_stock(dom0)?;
    create_small(dom0, kernels, messages)?;
    disks(dom0)?;
    cards(dom0, messages)?;

    let list = dom0.run("ox list")?;
    let small = disks_with(Front::Ox).count() + cards_with(Front::Ox).count();
    ensure!(
        list.lines().count() == 1 + 1 + 1 + small,
        "not all guests are there:\n{list}"
    );
    dom0.run("for d in $(ox list | awk 'NR > 2 { print $1 }'); do ox destroy $d || break; done; sleep 2; rm /var/log/xen/console/*")?;
    nothing_left(dom0, &before)?;
    let blamed = dom0.run("grep -h -e 'to blame' -e 'closed:' -e dropped /var/log/xen/oxblk.log /var/log/xen/oxnet.log; true")?;
    ensure!(blamed.is_empty(), "honest guests are blamed:\n{blamed}");
    Ok(())
}

fn mac(card: usize) -> String {
    format!("00:16:3e:00:02:{card:02x}")
}

fn disk_line(ram: usize, vdev: &str, back: &str) -> String {
    format!("\"format=raw,vdev={vdev},backendtype={back},target=/dev/ram{ram}\"")
}

fn card_line(nth: usize, back: &str) -> String {
    format!("\"mac={},bridge=xenbr0,type={back}\"", mac(nth))
}

fn create_stock(dom0: &mut Dom0) -> Result<(), Failure> {
    let disks: Vec<String> = stock_disks()
        .map(|(ram, vdev, back)| disk_line(ram, &vdev, back))
        .collect();
    let cards: Vec<String> = cards_with(Front::Linux)
        .map(|(nth, card)| card_line(nth, card.back))
        .collect();
    let disks = format!("disk=[{}]", disks.join(","));
    let cards = format!("vif=[{}]", cards.join(","));
    let config = [
        "memory=192",
        "ramdisk=\"/run/initrd\"",
        "extra=\"console=hvc0 cryptomgr.notests\"",
        &disks,
        &cards,
    ];
    checks::create_guest(dom0, STOCK, KERNEL, &config)
}

/// A small guest for each of its devices.
fn create_small(dom0: &mut Dom0, kernels: &Kernels, messages: u64) -> Result<(), Failure> {
    for (ram, back) in disks_with(Front::Ox) {
        let extra = format!("extra=\"role=exchange seed={ram}\"");
        let disk = format!("disk=[{}]", disk_line(ram, "xvda", back));
        checks::create_guest(
            dom0,
            &format!("disk{ram}"),
            &kernels.disk,
            &["memory=32", &extra, &disk],
        )?;
    }
    for (nth, card) in cards_with(Front::Ox) {
        let plain = u8::from(card.plain);
        let extra = format!("extra=\"role=exchange messages={messages} plain={plain}\"");
        let vif = format!("vif=[{}]", card_line(nth, card.back));
        checks::create_guest(
            dom0,
            &format!("card{nth}"),
            &kernels.network,
            &["memory=32", &extra, &vif],
        )?;
    }
    Ok(())
}

/// Each guest has read what it should and written what it should.
fn disks(dom0: &mut Dom0) -> Result<(), Failure> {
    for (ram, (front, back)) in DISKS.iter().enumerate() {
        let (guest, disk) = match front {
            Front::Linux => (STOCK.to_owned(), format!(" exchange .* {ram}:")),
            Front::Ox => (format!("disk{ram}"), " .*sectors".to_owned()),
        };
        let said = checks::says(dom0, &guest, &format!("exchange: [a-zA-Z]*:{disk}"))?;
        ensure!(
            said.contains("exchange: fine"),
            "{guest}'s disk by {back}: {said}"
        );
        let seen = dom0.run(&format!("exchange verify /dev/ram{ram} {ram}"));
        seen.map_err(|failure| format!("{guest}'s disk by {back}, as dom0 sees it: {failure}"))?;
    }
    Ok(())
}

/// Each card has answered, and as many messages have come there; large ones in one piece where both ends can.
fn cards(dom0: &mut Dom0, messages: u64) -> Result<(), Failure> {
    for (nth, card) in CARDS.iter().enumerate() {
        let (guest, ready, heard) = match card.front {
            Front::Linux => (STOCK.to_owned(), USERSPACE, format!("card {nth} exchange:")),
            Front::Ox => (format!("card{nth}"), "is up", "^exchange: [fF]".to_owned()),
        };
        let about = format!("{guest}'s card {nth} by {}", card.back);
        checks::says(dom0, &guest, ready)?;
        let answers = dom0.try_run(&format!("exchange ask xenbr0 {} {messages}", mac(nth)))?;
        let (status, answers) = (answers.status, answers.text);
        if status != 0 {
            let said = dom0.run(&format!(
                "tail -n 5 $(log {guest}); tail -n 5 /var/log/xen/oxnet.log; cat /proc/net/dev"
            ))?;
            return Err(format!("{about}: {answers}\n{said}").into());
        }
        ensure!(
            counted(&answers, messages)? != card.plain,
            "{about}: dom0 has heard {answers}"
        );
        let said = checks::says(dom0, &guest, &heard)?;
        // Linux puts small packets together by itself.
        let as_large = card.front == Front::Linux && card.plain;
        ensure!(
            said.contains("exchange: fine")
                && (as_large || counted(&said, messages)? != card.plain),
            "{about}: it has heard {said}"
        );
    }
    Ok(())
}

/// Whether there were large packets among those of all messages.
fn counted(said: &str, messages: u64) -> Result<bool, Failure> {
    let what = format!(" {messages} messages, ");
    let large = said
        .split_once(&what)
        .and_then(|(_, rest)| rest.split(' ').next());
    match large.and_then(|large| large.parse::<u32>().ok()) {
        Some(large) => Ok(large > 0),
        None => Err(format!("not {messages} messages have come: {said}").into()),
    }
}
