//! Stock kernels of other Debian suites as dom0. Debian 12's is the one that every other test boots.

use oxen_tests::{Failure, Setup, ensure};
use xtask::machine::Kind;
use xtask::provision::Suite;

use crate::{Case, checks};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(kind, "kernels::debian_13", |name, kind| {
            boots(name, kind, Suite::Trixie, 6)
        }));
        cases.push(Case::new(kind, "kernels::debian_sid", |name, kind| {
            boots(name, kind, Suite::Sid, 7)
        }));
    }
    cases
}

fn boots(name: &str, kind: Kind, suite: Suite, major: u32) -> Result<(), Failure> {
    let mut setup = Setup::with_kernel_of(name, kind, suite)?;
    setup.machine.cpus = 2;
    setup.hypervisor_options = "dom0_max_vcpus=2".into();
    let mut dom0 = setup.boot()?;
    let version = dom0.run("uname -r")?;
    let got: u32 = version.split('.').next().unwrap_or_default().parse()?;
    ensure!(
        got >= major,
        "the kernel is {version}: not that of {suite:?}"
    );
    checks::is_pvh_dom0(&mut dom0, 2)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}
