//! Pages that domains share by grants: mapped, copied, and given back whichever domain ends first.

use oxen_tests::{Failure, Setup, ensure};
use xtask::machine::{Kind, Outcome};

use crate::Case;

/// What the guest says that holds.
const PARTS: [&str; 9] = [
    "own",
    "of a peer",
    "by a peer",
    "copies",
    "parts and grants of grants",
    "limits",
    "end of a peer in use",
    "ends in both orders",
    "memory",
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "grants::between_domains", between_domains))
        .collect()
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
