//! The control interface beyond what `ox` uses every day, asked by a program of its own in dom0.

use oxen_tests::{Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks};

const PROBE: &str = "usr/sbin/control_probe";

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "control::probe", probe))
        .collect()
}

/// The guest is the hostile one's quiet neighbour: in 64-bit mode, its image at 16 MiB.
fn probe(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest("oxen-hostile-guest")?;
    setup.add_program(
        PROBE,
        &xtask::build::dom0_example("oxen-xen", "control_probe")?,
    )?;
    let mut dom0 = setup.boot()?;
    let witness = ["memory=64", "vcpus=1", "extra=\"role=witness\""];
    checks::create_guest(&mut dom0, "witness", &kernel, &witness)?;
    checks::guest_says(&mut dom0, "witness", "rounds", 100)?;
    dom0.run("ox pause witness")?;
    let said = dom0.run("control_probe $(ox list | awk '/witness/ { print $2 }')")?;
    for wanted in [
        "log: pieces true",
        "log: key true",
        "log: cleared true",
        "topology: 2 CPUs, last Some(CpuTopology { core: 1, socket: 0, node: 0 })",
        "claims: Err(Some(12)), told true, at most the rest true then 0",
        "policy: less true, more Err(Some(22)), vendor Err(Some(22)), running Err(Some(17))",
        "multicall: each as alone, 4000 pages",
        "context: complete true",
        "context: the same again true",
        "context: one by one true, Err(Some(22)) Err(Some(2))",
        "context: as a PV guest's true, Err(Some(22))",
        "context: refused [Some(22), Some(22), Some(22), Some(22), Some(61), Some(61)]",
        "context: unchanged true, taken Ok(()) true, back Ok(()) true",
        "copies: whole true, back true, high true, beyond Err(Some(14)), linear true, unmapped Err(Some(14)), \
         nobody Err(Some(3)), nothing Ok([])",
        "trigger: Err(Some(3)) Err(Some(38))",
        "probe: done",
    ] {
        ensure!(said.contains(wanted), "not {wanted:?} but:\n{said}");
    }
    let registers = said
        .lines()
        .find(|line| line.starts_with("registers: "))
        .unwrap_or_default();
    // Code and page tables in its image, paging and long mode on.
    let in_long_mode = registers.contains("rip 0x10")
        && registers.contains("cr0 0x8000003")
        && registers.contains("cr3 0x10")
        && registers.contains("efer 0x5");
    ensure!(in_long_mode, "these are not its registers: {registers}");
    // It goes on with the state that it was given, and finds all as it was.
    let log = checks::console_log("witness");
    dom0.run(&format!(
        "rounds() {{ grep -c rounds {log}; }}; before=$(rounds); ox unpause witness; n=0; \
         until [ $(rounds) -gt $((before + 1)) ] || [ $n = 100 ]; do sleep 1; n=$((n+1)); done; [ $(rounds) -gt $((before + 1)) ]"
    ))?;
    dom0.run("ox list | grep witness && ox destroy witness")?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}
