//! A whole Debian as a guest: its root on a PV disk, systemd, a login on its console, a network card on the bridge.

use std::path::Path;
use std::process::Command;

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::{Disk, DiskBus, Kind};

use crate::domains::{CONFIG as DEMO, setup};
use crate::hostile::number;
use crate::lives::define_functions;
use crate::{Case, checks};

const NAME: &str = "debian";
/// Its configuration in dom0's image, which takes dom0's first disk.
const CONFIG: &str = "/etc/oxen/debian.cfg";
/// Another guest on the bridge.
const PEER: &str = "peer";
/// MiB of the machine, and of it dom0's, which has what is fetched in its memory.
const MEMORY: (u32, u32) = (1280, 512);
/// MiB that the guest fetches: 64 by default, 8 on Bochs, whose CPUs do a twentieth.
const SIZE_VARIABLE: &str = "OXEN_DEBIAN_MIB";
/// Seconds of a look at the guest's console, and looks until it has to have said something: a command of dom0's shell may not take long
/// on the clock of this side.
const LOOK: u32 = 30;
const LOOKS: u32 = 20;
/// Where the guest keeps what it has fetched.
const FETCHED: &str = "/root/data";

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "debian::root_on_a_disk", root_on_a_disk))
        .collect()
}

fn root_on_a_disk(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    setup.machine.time_limit = None;
    let image = setup.copy_debian("disk")?;
    setup.machine.disks.push(Disk {
        bus: DiskBus::first(kind),
        image: image.clone(),
        keep: true,
    });
    let usual = if kind == Kind::Bochs { 8 } else { 64 };
    let size = number(SIZE_VARIABLE)?.unwrap_or(usual);
    let mut dom0 = setup.boot()?;
    let hash = used(&mut dom0, size)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()?;
    is_whole(&image, &setup.file("data"), &hash)?;
    std::fs::remove_file(image)?;
    Ok(())
}

/// From its boot to its end. Returns the hash of what it has fetched.
fn used(dom0: &mut Dom0, size: u64) -> Result<String, Failure> {
    define_functions(dom0)?;
    dom0.run("within 60 '[ -b /dev/sda ] && grep -q connected /var/log/xen/oxblk.log && grep -q connected /var/log/xen/oxnet.log'")?;
    dom0.run(&format!(
        "ox create {CONFIG} && ox create {DEMO} name={PEER} \"vif=['bridge=xenbr0']\""
    ))?;
    dom0.run(&format!(
        "dd if=/dev/urandom of=/run/data bs=1M count={size} 2>/dev/null; [ $(stat -c %s /run/data) = $(({size}*1048576)) ] && httpd -p 5000 -h /run && up {PEER} 1"
    ))?;
    dom0.run(&format!(
        "type_in {PEER} 'ip addr add 192.168.77.11/24 dev eth0; ip link set eth0 up'; ping -c 1 -w 60 192.168.77.11"
    ))?;
    let hash = dom0.run("sha256sum </run/data | cut -d ' ' -f 1")?;
    let mut guest = Guest::log_in(dom0)?;
    guest.run("[ $(systemctl is-system-running --wait) = running ] || { systemctl --no-pager --failed; false; }")?;
    guest.run("[ $(findmnt -n -o FSTYPE,SOURCE / | tr -d \" \") = ext4/dev/xvda ]")?;
    guest.run("ping -q -c 3 192.168.77.1 && ping -q -c 3 192.168.77.11")?;
    guest.fetches("192.168.77.1", &hash)?;
    guest.has_no_offloads()?;
    guest.fetches("192.168.78.1", &hash)?;
    dom0.run(&format!(
        "ox shutdown -w {NAME} || tail -n 20 $(log {NAME}); ! ox domid {NAME}; ox destroy {PEER}"
    ))?;
    Ok(hash)
}

/// The guest, on whose console root is logged in.
struct Guest<'a> {
    dom0: &'a mut Dom0,
    typed: u32,
}

impl<'a> Guest<'a> {
    fn log_in(dom0: &'a mut Dom0) -> Result<Self, Failure> {
        let mut guest = Self { dom0, typed: 0 };
        for (asked, answer) in [
            ("debian login:", "root"),
            ("Password:", "oxen"),
            ("root@debian:~#", "export TERM=dumb"),
        ] {
            guest.says(asked)?;
            guest.types(answer)?;
        }
        Ok(guest)
    }

    fn types(&mut self, line: &str) -> Result<(), Failure> {
        self.dom0.run(&format!("type_in {NAME} '{line}'"))?;
        Ok(())
    }

    /// Waits until it has said something, and returns the line.
    fn says(&mut self, wanted: &str) -> Result<String, Failure> {
        let mut looks = 1;
        loop {
            match checks::guest_says(self.dom0, NAME, wanted, LOOK) {
                Err(_) if looks < LOOKS => looks += 1,
                said => return said,
            }
        }
    }

    /// Runs a command, without single quotes, that has to succeed.
    fn run(&mut self, command: &str) -> Result<(), Failure> {
        self.typed += 1;
        let number = self.typed;
        // What is echoed while it is typed does not hold the mark.
        self.types(&format!("{command}; echo do\"\"ne-{number}-$?-"))?;
        let line = self.says(&format!("done-{number}-"))?;
        if line.contains(&format!("done-{number}-0-")) {
            return Ok(());
        }
        let said = self.dom0.run(&format!("tail -n 20 $(log {NAME})"))?;
        Err(format!("in the guest: `{command}` failed:\n{said}").into())
    }

    /// Gets dom0's file over TCP, puts it onto its disk and reads it from there.
    fn fetches(&mut self, address: &str, hash: &str) -> Result<(), Failure> {
        self.run(&format!(
            "rm -f {FETCHED}; wget -q -O {FETCHED} http://{address}:5000/data && sync && echo 3 >/proc/sys/vm/drop_caches && echo {hash} {FETCHED} | sha256sum -c --quiet"
        ))
    }

    /// Gives it a second card, without offloads, and another network there.
    fn has_no_offloads(&mut self) -> Result<(), Failure> {
        self.dom0.run(&format!(
            "ip addr add 192.168.78.1/24 dev xenbr0; ox network-attach {NAME} mac=00:16:3e:00:00:df,bridge=xenbr0,offload=0"
        ))?;
        self.run("for i in $(seq 60); do ip link show enX1 && break; sleep 1; done; ip addr add 192.168.78.2/24 dev enX1 && ip link set enX1 up")?;
        let offered = self.dom0.run(&format!(
            "for n in 0 1; do ox store read /local/domain/0/backend/oxvif/$(ox domid {NAME})/$n/feature-gso-tcpv4; done"
        ))?;
        ensure!(offered == "1\n0", "large packets are offered: {offered:?}");
        Ok(())
    }
}

/// The file system was unmounted in order, has no error, and holds what was fetched.
fn is_whole(image: &Path, copy: &Path, hash: &str) -> Result<(), Failure> {
    tool("e2fsck", &["-f", "-n"], image)?;
    let said = tool("dumpe2fs", &["-h"], image)?;
    ensure!(
        said.contains("Filesystem state:         clean") && !said.contains("needs_recovery"),
        "the file system was not unmounted:\n{said}"
    );
    let dump = format!("dump {FETCHED} {}", copy.display());
    tool("debugfs", &["-R", &dump], image)?;
    let content = std::fs::read(copy)?;
    std::fs::remove_file(copy)?;
    let found = oxen_tests::input::sha256(&content);
    ensure!(
        found == hash,
        "{FETCHED} on the disk has the hash {found}, dom0's file {hash}"
    );
    Ok(())
}

/// What a tool of package e2fsprogs says of an image.
fn tool(name: &str, arguments: &[&str], image: &Path) -> Result<String, Failure> {
    let path = xtask::host::find_command(name)
        .ok_or_else(|| format!("{name} is missing; package e2fsprogs has it"))?;
    let output = Command::new(path).args(arguments).arg(image).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.success(),
        "{name} {}: {said}",
        image.display()
    );
    Ok(said)
}
