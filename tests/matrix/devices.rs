//! dom0 drives the machine's own devices: disks through DMA with their interrupts, and a network card.

use oxen_tests::{Dom0, Failure, Setup, ensure, input};
use xtask::machine::{Disk, DiskBus, Kind, Nic};

use crate::{Case, checks};

/// A disk as dom0 sees it.
struct Expected {
    bus: DiskBus,
    /// Its device node.
    node: &'static str,
    /// What names its driver in `/proc/interrupts`.
    interrupt: &'static str,
    /// Whether that interrupt is MSI or MSI-X.
    message_signalled: bool,
}

const AHCI: Expected = Expected {
    bus: DiskBus::Ahci,
    node: "/dev/sda",
    interrupt: "ahci",
    message_signalled: true,
};
const NVME: Expected = Expected {
    bus: DiskBus::Nvme,
    node: "/dev/nvme0n1",
    interrupt: "nvme0q",
    message_signalled: true,
};
const IDE: Expected = Expected {
    bus: DiskBus::Ide,
    node: "/dev/sda",
    interrupt: "ata_piix",
    message_signalled: false,
};

/// Half a MiB each: enough to need many commands, little enough for Bochs.
const CYLINDERS: usize = 17;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(Kind::Bochs, "devices::ide_disk", |name, kind| {
            reads_disk(name, kind, &IDE)
        }),
        Case::new(Kind::Bochs, "devices::network", |name, kind| {
            pings_gateway(name, kind, Nic::E1000)
        }),
    ];
    for kind in [Kind::Tcg, Kind::Kvm] {
        cases.push(Case::new(kind, "devices::ahci_disk", |name, kind| {
            reads_disk(name, kind, &AHCI)
        }));
        cases.push(Case::new(kind, "devices::nvme_disk", |name, kind| {
            reads_disk(name, kind, &NVME)
        }));
        cases.push(Case::new(kind, "devices::network", |name, kind| {
            pings_gateway(name, kind, Nic::E1000e)
        }));
        cases.push(Case::new(
            kind,
            "devices::network_on_a_legacy_interrupt",
            |name, kind| pings_gateway(name, kind, Nic::E1000),
        ));
    }
    cases
}

fn reads_disk(name: &str, kind: Kind, expected: &Expected) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    let content = input::disk_image(CYLINDERS);
    let image = setup.write_file("disk", &content)?;
    setup.machine.disks.push(Disk {
        bus: expected.bus,
        image,
        keep: false,
    });
    let mut dom0 = setup.boot()?;
    let node = expected.node;
    dom0.run(&format!(
        "n=0; until [ -b {node} ] || [ $n = 20 ]; do sleep 1; n=$((n+1)); done; [ -b {node} ]"
    ))?;
    let hash = dom0.run(&format!("sha256sum {node}"))?;
    let wanted = input::sha256(&content);
    ensure!(
        hash.starts_with(&wanted),
        "the hash of {node} is {hash}, not {wanted}"
    );
    let interrupts = dom0.run("cat /proc/interrupts")?;
    let delivered: Vec<&str> = interrupts
        .lines()
        .filter(|line| line.contains(expected.interrupt) && interrupt_count(line) > 0)
        .collect();
    ensure!(
        !delivered.is_empty(),
        "{} has had no interrupt:\n{interrupts}",
        expected.interrupt
    );
    ensure!(
        !expected.message_signalled || delivered.iter().any(|line| line.contains("MSI")),
        "{} does not use MSI:\n{}",
        expected.interrupt,
        delivered.join("\n")
    );
    if expected.bus == DiskBus::Ide {
        uses_ide_dma(&mut dom0)?;
    }
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()?;
    std::fs::remove_file(setup.file("disk"))?;
    Ok(())
}

/// IDE can do without DMA, AHCI and NVMe cannot.
fn uses_ide_dma(dom0: &mut Dom0) -> Result<(), Failure> {
    let mode = dom0.run("cat /sys/class/ata_device/dev1.0/dma_mode")?;
    ensure!(
        mode.contains("DMA"),
        "the disk does not use DMA: its mode is {mode:?}"
    );
    Ok(())
}

/// The sum of a line of `/proc/interrupts` over the CPUs.
fn interrupt_count(line: &str) -> u64 {
    let fields = line.split_whitespace().skip(1);
    fields.map_while(|field| field.parse::<u64>().ok()).sum()
}

fn pings_gateway(name: &str, kind: Kind, nic: Nic) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    setup.machine.nic = Some(nic);
    let mut dom0 = setup.boot()?;
    dom0.run("n=0; until [ -e /sys/class/net/eth0 ] || [ $n = 20 ]; do sleep 1; n=$((n+1)); done; ip link set eth0 up")?;
    dom0.run("ip addr add 10.0.2.15/24 dev eth0")?;
    // The link takes a moment to come up; a single answer proves both directions.
    dom0.run("n=0; until ping -c 1 -W 2 10.0.2.2 || [ $n = 10 ]; do n=$((n+1)); done; ping -c 3 -W 5 10.0.2.2")?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}
