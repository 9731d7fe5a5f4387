//! Domains made and ended by dom0's tools: how long dom0's shell waits, where that goes, how long a guest's own boot takes, and
//! what memory the hypervisor needs for a domain.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kept::Kept;
use super::shell::{Shell, two_words};
use super::{Bench, HYPERVISOR_OPTIONS, Row, boot, module};
use crate::build;
use crate::iso::Boot;
use crate::provision::newc::Newc;
use crate::provision::{self, Suite};

/// Memory of the machine and of dom0, in MiB.
const MEMORY: u32 = 1536;
const DOM0_MEMORY: u32 = 512;
/// Where the small guest lies in dom0: one that needs no unpacking.
const SMALL: &str = "/boot/guest/small";
const LOG: &str = "/var/log/xen/console/guest-demo.log";
/// Before the seconds that a command spent in user space and in its kernel.
const SPENT: &str = "spent:";

/// A guest that is made and ended.
struct Guest {
    /// For the reader of the report.
    name: &'static str,
    /// What its configuration has besides name and type.
    settings: &'static str,
    /// It says when it has booted.
    boots: bool,
}

/// The Linux one shows what a user waits for; the others, how that grows with memory and vCPUs, and are made at once.
const GUESTS: [Guest; 4] = [
    Guest {
        name: "Linux, 256 MiB",
        settings: "kernel='/boot/guest/vmlinuz' ramdisk='/boot/guest/initrd' extra='console=hvc0' memory=256 vcpus=1",
        boots: true,
    },
    Guest {
        name: "no Linux, 128 MiB",
        settings: "kernel='/boot/guest/small' memory=128 vcpus=1",
        boots: false,
    },
    Guest {
        name: "no Linux, 768 MiB",
        settings: "kernel='/boot/guest/small' memory=768 vcpus=1",
        boots: false,
    },
    Guest {
        name: "no Linux, 128 MiB, 4 vCPUs",
        settings: "kernel='/boot/guest/small' memory=128 vcpus=4",
        boots: false,
    },
];

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let dom0 = provision::dom0(Suite::default())?;
    let with_tools = provision::with_tools(&dom0.initrd, &dom0.kernel)?;
    let initrd = with_small_guest(bench, &with_tools)?;
    let boot = Boot::Hypervisor {
        image: bench.hypervisor.clone(),
        arguments: format!("{HYPERVISOR_OPTIONS} dom0_mem={DOM0_MEMORY}M dom0_max_vcpus=1"),
        modules: vec![
            module(&dom0.kernel, &format!("console=hvc0 {}", boot::QUIET)),
            module(&initrd, ""),
        ],
    };
    let mut shell = Shell::start(bench, "bench-domain", boot, MEMORY)?;
    std::fs::remove_file(&initrd)?;
    let mut rows = Vec::new();
    for guest in &GUESTS {
        rows.extend(one(bench, &mut shell, guest)?);
    }
    shell.finish()?;
    Ok(rows)
}

fn one(bench: &Bench, shell: &mut Shell, guest: &Guest) -> Result<Vec<Row>> {
    let Guest { name, settings, .. } = guest;
    let mut rows = Vec::new();
    let mut row = |what: &str, unit, value| {
        rows.push(bench.row(format!("{what}: {name}"), unit, value, value));
    };
    const TIME: &str = "µs of the machine";
    shell.command(&format!(
        "printf '%s\\n' \"name='demo' type='pvh'\" \"{settings}\" | tr ' ' '\\n' > /tmp/demo.cfg"
    ))?;
    if guest.boots {
        // Its kernel is unpacked this once, and kept.
        let (took, _) = shell.timed("ox create -p /tmp/demo.cfg")?;
        row("ox create -p, the kernel's first time", TIME, took);
        shell.command("ox destroy demo")?;
    }
    let before = Kept::now(shell)?;
    let create = format!("time -f '{SPENT} %U %S' ox create -p /tmp/demo.cfg");
    let (took, text) = shell.timed(&create)?;
    let (user, kernel) =
        spent(&text).with_context(|| format!("no times of `ox create`: {text}"))?;
    row("ox create -p", TIME, took);
    row("ox create -p, in its own code", TIME, user);
    row(
        "ox create -p, in dom0's kernel and the hypervisor",
        TIME,
        kernel,
    );
    let after = Kept::now(shell)?;
    row(
        "hypervisor's memory for a domain, without the tables of maps",
        "bytes",
        after.since(&before),
    );
    row(
        "tables of a domain's map",
        "bytes",
        after.tables_since(&before),
    );
    if guest.boots {
        let wait =
            format!("ox unpause demo; until grep -q userspace {LOG}; do usleep 100000; done");
        let (took, _) = shell.timed(&wait)?;
        row("ox unpause to the guest's user space", TIME, took);
        let log = shell.command(&format!("grep -a 'Run /init' {LOG}"))?;
        row(
            "guest kernel's clock at its start of user space",
            TIME,
            boot::time_of_user_space(&log)?,
        );
    }
    let (took, _) = shell.timed("ox destroy demo")?;
    row("ox destroy", TIME, took);
    Ok(rows)
}

/// dom0's image with the small guest.
fn with_small_guest(bench: &Bench, initrd: &Path) -> Result<PathBuf> {
    let mut archive = Newc::new();
    let guest = std::fs::read(build::guest("oxen-spin-guest")?)?;
    archive.file(SMALL.trim_start_matches('/'), guest, false);
    let image = archive.behind(initrd)?;
    let path = bench.folder.join("bench-domain.initrd");
    std::fs::create_dir_all(&bench.folder)?;
    std::fs::write(&path, image)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}

/// Microseconds in user space and in the kernel, from seconds with two digits behind the point.
fn spent(text: &str) -> Option<(u64, u64)> {
    let (user, kernel) = two_words(text, SPENT)?;
    let micros = |seconds: &str| -> Option<u64> {
        let (whole, hundredths) = seconds.split_once('.')?;
        Some(whole.parse::<u64>().ok()? * 1_000_000 + hundredths.parse::<u64>().ok()? * 10_000)
    };
    Some((micros(user)?, micros(kernel)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_spent_are_not_taken_from_the_commands_echo() {
        let text = "time -f 'spent: %U %S' ox\r\nspent: 4.53 0.42\r\n";
        assert_eq!(spent(text), Some((4_530_000, 420_000)));
        assert_eq!(spent("time -f 'spent: %U %S' ox\r\n"), None);
    }
}
