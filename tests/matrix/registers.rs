//! vCPUs that share a CPU keep their registers: x87, SSE, AVX and AVX-512 state, debug registers, MSRs.

use oxen_tests::{Failure, Setup, ensure};
use xtask::machine::{Kind, Outcome};

use crate::Case;

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "registers::survive_switches", keeps_registers))
        .collect()
}

fn keeps_registers(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    setup.use_guest("oxen-registers-guest")?;
    setup.hypervisor_options = "dom0_max_vcpus=2 dom0_mem=256M".into();
    let (outcome, text) = setup.run_and_read()?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("registers: "))
        .collect();
    ensure!(
        outcome == Outcome::PowerOff,
        "the guest ended with {outcome}: {lines:?}"
    );
    for vcpu in [0, 1] {
        let kept = format!("registers: vcpu {vcpu}: kept");
        ensure!(
            lines.iter().any(|line| line.starts_with(&kept)),
            "vCPU {vcpu} did not finish: {lines:?}"
        );
    }
    Ok(())
}
