//! Guests made, watched and ended from dom0's shell.

use oxen_tests::{Dom0, Failure, Setup, ensure};
use xtask::machine::Kind;

use crate::{Case, checks};

/// The guest's configuration in dom0's image, and its name there.
pub const CONFIG: &str = "/etc/oxen/demo.cfg";
const NAME: &str = "demo";
/// What the guest says when it is there.
pub const USERSPACE: &str = "oxen-guest: userspace, xen PVH";

/// MiB of the machine, and of it dom0's: enough for a guest or two.
pub const MEMORY: (u32, u32) = (1024, 512);

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(
            kind,
            "domains::created_and_destroyed",
            |name, kind| with_tools(name, kind, MEMORY, created_and_destroyed),
        ));
    }
    cases
}

/// A machine of two CPUs whose dom0 has one, and the tools; of so many MiB, and of it dom0's.
pub fn setup(name: &str, kind: Kind, (machine, dom0): (u32, u32)) -> Result<Setup, Failure> {
    let mut setup = Setup::new(name, kind)?;
    setup.use_tools()?;
    setup.machine.cpus = 2;
    setup.machine.memory = machine;
    setup.hypervisor_options = format!("dom0_mem={dom0}M dom0_max_vcpus=1");
    Ok(setup)
}

/// Runs a test in a dom0 with the tools.
pub fn with_tools(
    name: &str,
    kind: Kind,
    memory: (u32, u32),
    test: impl FnOnce(&mut Dom0) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut dom0 = setup(name, kind, memory)?.boot()?;
    test(&mut dom0)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// Twice: the second guest gets what the first gave back, and leaves as much as that to the page. (dom0's own tables and
/// the hypervisor's heap have grown to what one guest needs by then.)
fn created_and_destroyed(dom0: &mut Dom0) -> Result<(), Failure> {
    let free = checks::free_memory(dom0)?;
    let mut after_first = None;
    for round in 0..2 {
        dom0.run(&format!("ox create {CONFIG}"))?;
        checks::guest_says(dom0, NAME, USERSPACE, checks::GUEST_BOOTS)?;
        let list = dom0.run("ox list")?;
        ensure!(list.contains(NAME), "the guest is not listed:\n{list}");
        dom0.run(&format!("ox pause {NAME}"))?;
        let paused = dom0.run(&format!("ox list | grep {NAME}"))?;
        ensure!(
            paused.contains('p'),
            "the guest is not shown as paused: {paused}"
        );
        dom0.run(&format!("ox unpause {NAME} && ox destroy {NAME}"))?;
        let list = dom0.run("ox list")?;
        ensure!(
            !list.contains(NAME),
            "the guest is still listed after its end in round {round}:\n{list}"
        );
        dom0.run("rm -f /var/log/xen/console/*")?;
        let now = checks::free_memory(dom0)?;
        ensure!(
            now == free,
            "{free} MiB were free before the guest of round {round}, {now} MiB are now"
        );
        // The daemons let go of a guest shortly after its end.
        dom0.run("sleep 5")?;
        let pages = checks::free_pages(dom0)?;
        let before = *after_first.get_or_insert(pages);
        ensure!(
            pages == before,
            "{before} pages were free after the first guest, {pages} are after the second"
        );
    }
    Ok(())
}
