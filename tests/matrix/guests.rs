//! What runs in a domain beside dom0: stock kernels, and a guest that is not Linux.

use oxen_tests::{Failure, ensure};
use xtask::machine::Kind;
use xtask::provision::Suite;

use crate::domains::setup;
use crate::{Case, checks};

/// MiB of the machine, and of it dom0's: the largest guest has 1024.
const MEMORY: (u32, u32) = (2048, 512);

/// A guest with a stock kernel.
#[derive(Clone, Copy)]
struct Linux {
    name: &'static str,
    suite: Suite,
    /// First number of its kernel's version, at least.
    major: u32,
    vcpus: u32,
    memory_mib: u64,
}

const LINUX: [Linux; 3] = [
    Linux {
        name: "guests::debian_12_with_4_vcpus",
        suite: Suite::Bookworm,
        major: 6,
        vcpus: 4,
        memory_mib: 1024,
    },
    Linux {
        name: "guests::debian_13_with_2_vcpus",
        suite: Suite::Trixie,
        major: 6,
        vcpus: 2,
        memory_mib: 256,
    },
    Linux {
        name: "guests::debian_sid",
        suite: Suite::Sid,
        major: 7,
        vcpus: 1,
        memory_mib: 256,
    },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        for guest in LINUX {
            cases.push(Case::new(kind, guest.name, move |name, kind| {
                stock_kernel(name, kind, guest)
            }));
        }
        cases.push(Case::new(kind, "guests::grub", grub));
    }
    cases
}

/// The kernel comes to userspace with all of its vCPUs and its memory, and its shell answers on the console.
fn stock_kernel(name: &str, kind: Kind, guest: Linux) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest_kernel(guest.suite)?;
    let mut dom0 = setup.boot()?;
    let Linux {
        vcpus, memory_mib, ..
    } = guest;
    dom0.run(&format!(
        "ox create /etc/oxen/demo.cfg kernel={kernel} vcpus={vcpus} memory={memory_mib}"
    ))?;
    let userspace = format!("userspace, xen PVH, {vcpus} vCPUs");
    checks::guest_says(&mut dom0, "demo", &userspace, checks::GUEST_BOOTS)?;
    let said = checks::guest_answers(
        &mut dom0,
        "demo",
        "uname -r; grep MemTotal /proc/meminfo; echo $((6*7)) answers",
        "42 answers",
    )?;
    let version = said
        .lines()
        .find_map(|line| line.split_once('.')?.0.parse::<u32>().ok());
    ensure!(
        version.is_some_and(|version| version >= guest.major),
        "the guest's kernel is not that of {:?}:\n{said}",
        guest.suite
    );
    let total = said
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    ensure!(
        total.is_some_and(|kib| kib > memory_mib * 1024 * 3 / 4 && kib < memory_mib * 1024),
        "the guest of {memory_mib} MiB has other memory:\n{said}"
    );
    dom0.run("ox destroy demo")?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// GRUB comes to its prompt and takes a command.
fn grub(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let image = setup.add_guest_grub()?;
    let mut dom0 = setup.boot()?;
    checks::create_guest(&mut dom0, "grub", image, &["memory=128"])?;
    checks::guest_says(&mut dom0, "grub", "grub>", checks::GUEST_BOOTS)?;
    let said = checks::guest_answers(&mut dom0, "grub", "nothing_like_it", "find command")?;
    ensure!(
        said.contains("nothing_like_it"),
        "GRUB names another command:\n{said}"
    );
    dom0.run("ox destroy grub")?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}
