//! Pages that domains share by grants: mapped, copied, and given back whichever domain ends first. Linux's own devices for
//! grants do the same in dom0.

use oxen_tests::{Failure, Setup, ensure};
use xtask::machine::{Kind, Outcome};

use crate::{Case, checks};

/// What the guest says that holds.
const PARTS: [&str; 10] = [
    "own",
    "of a peer",
    "by a peer",
    "copies",
    "parts and grants of grants",
    "limits",
    "end of a peer in use",
    "ends in both orders",
    "memory",
    "exhaustion",
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(kind, "grants::between_domains", between_domains));
        cases.push(Case::new(kind, "grants::by_linux", by_linux));
    }
    cases
}

fn by_linux(name: &str, kind: Kind) -> Result<(), Failure> {
    const PROGRAM: &str = "/usr/bin/grants";
    let mut setup = Setup::new(name, kind)?;
    let program = xtask::build::program("oxen-grants-program")?;
    setup.add_program(PROGRAM, &program)?;
    let mut dom0 = setup.boot()?;
    let said = dom0.run(PROGRAM)?;
    ensure!(said.trim() == "grants: ok", "the program says: {said}");
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

fn between_domains(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    setup.use_guest("oxen-grants-guest")?;
    setup.hypervisor_options = "dom0_max_vcpus=1 dom0_mem=256M".into();
    let (outcome, text) = setup.run_and_read()?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("grants: ") || line.contains("panic"))
        .collect();
    ensure!(
        outcome == Outcome::PowerOff,
        "the guest ended with {outcome}: {lines:?}"
    );
    for part in PARTS {
        let said = format!("grants: {part}: ok");
        ensure!(
            lines.iter().any(|line| line.trim_end() == said),
            "the guest does not say {said:?}: {lines:?}"
        );
    }
    Ok(())
}
