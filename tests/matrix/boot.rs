//! Boot to dom0's userspace and clean power-off, over the numbers of CPUs and of dom0's vCPUs, by BIOS and by UEFI.

use oxen_tests::{Failure, Setup, ensure};
use xtask::machine::{Kind, Outcome};

use crate::{Case, checks};

/// Physical CPUs.
const CPUS: &[u32] = &[1, 2];
/// dom0's vCPUs.
const VCPUS: &[u32] = &[1, 2, 4];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        for &cpus in CPUS {
            for &vcpus in VCPUS {
                let name = format!("boot::{cpus}_cpus_{vcpus}_vcpus");
                cases.push(Case::new(kind, name, move |name, kind| {
                    boots(name, kind, cpus, vcpus)
                }));
            }
        }
        cases.push(Case::new(kind, "boot::reboot_resets_the_machine", reboots));
    }
    for kind in [Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(
            kind,
            "boot::without_apic_virtualization",
            boots_on_the_plain_path,
        ));
    }
    for kind in [Kind::Tcg, Kind::Kvm] {
        cases.push(Case::new(kind, "boot::uefi", boots_by_uefi));
    }
    cases
}

fn boots(name: &str, kind: Kind, cpus: u32, vcpus: u32) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    // One of each machine's boots unpacks what the distribution packed.
    if (cpus, vcpus) == (1, 1) {
        setup.use_packed_kernel()?;
    }
    setup.machine.cpus = cpus;
    setup.hypervisor_options = format!("dom0_max_vcpus={vcpus}");
    boots_and_powers_off(&setup, vcpus)
}

fn boots_by_uefi(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    setup.machine.uefi = true;
    setup.hypervisor_options = "dom0_max_vcpus=1".into();
    boots_and_powers_off(&setup, 1)
}

/// CPUs without the feature, and the option that turns it off, leave the local APIC to the hypervisor.
fn boots_on_the_plain_path(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    setup.hypervisor_options = "apicv=0 dom0_max_vcpus=2".into();
    let mut dom0 = setup.boot()?;
    let log = dom0.hypervisor_log();
    ensure!(
        !log.iter().any(|line| line.contains("APIC-register")),
        "apicv=0 did not turn APIC virtualization off"
    );
    checks::is_pvh_dom0(&mut dom0, 2)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

fn reboots(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut dom0 = Setup::new(name, kind)?.boot()?;
    dom0.running().console().send_line("reboot")?;
    let outcome = dom0
        .running()
        .wait_exit(std::time::Duration::from_secs(120));
    ensure!(
        outcome == Outcome::Reboot,
        "dom0 was told to reboot, but: {outcome}"
    );
    Ok(())
}

fn boots_and_powers_off(setup: &Setup, vcpus: u32) -> Result<(), Failure> {
    let mut dom0 = setup.boot()?;
    checks::is_pvh_dom0(&mut dom0, vcpus)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}
