//! What Oxen cannot boot, it refuses with a one-line cause: no triple fault, no hang.

use std::fs;

use oxen_tests::{Failure, Setup, ensure, input};
use xtask::machine::{Kind, Outcome};

use crate::Case;

/// A Bochs CPU that has VMX, but neither EPT nor unrestricted guests.
const OLD_VMX_CPU: &str = "core2_penryn_t9600";

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(
            kind,
            "bad_input::no_kernel_module",
            |name, kind| {
                refuses(name, kind, &["module"], |setup| {
                    setup.kernel = None;
                    Ok(())
                })
            },
        ));
        cases.push(Case::new(
            kind,
            "bad_input::truncated_kernel",
            |name, kind| {
                refuses(name, kind, &["truncated", "ends", "cut"], |setup| {
                    replace_kernel(setup, |kernel| Some(input::truncated(kernel).to_vec()))
                })
            },
        ));
        cases.push(Case::new(
            kind,
            "bad_input::kernel_without_pvh_note",
            |name, kind| {
                refuses(name, kind, &["pvh"], |setup| {
                    replace_kernel(setup, |_| Some(input::elf_without_pvh_note()))
                })
            },
        ));
        cases.push(Case::new(
            kind,
            "bad_input::unknown_compression",
            |name, kind| {
                refuses(name, kind, &["compress"], |setup| {
                    replace_kernel(setup, input::unknown_compression)
                })
            },
        ));
        cases.push(Case::new(
            kind,
            "bad_input::dom0_mem_larger_than_the_machine",
            |name, kind| {
                refuses(name, kind, &["dom0_mem"], |setup| {
                    setup.hypervisor_options = "dom0_mem=64G".into();
                    Ok(())
                })
            },
        ));
    }
    cases.push(Case::new(
        Kind::Tcg,
        "bad_input::cpu_without_svm",
        |name, kind| {
            refuses(name, kind, &["svm", "vt-x", "virtualization"], |setup| {
                setup.machine.cpu_model = Some("max,-svm".into());
                Ok(())
            })
        },
    ));
    cases.push(Case::new(
        Kind::Bochs,
        "bad_input::cpu_without_ept",
        |name, kind| {
            refuses(name, kind, &["ept", "unrestricted", "secondary"], |setup| {
                setup.machine.cpu_model = Some(OLD_VMX_CPU.into());
                Ok(())
            })
        },
    ));
    cases
}

/// Boots what `spoil` has made bad, and expects a refusal whose cause holds one of `words`.
fn refuses(
    name: &str,
    kind: Kind,
    words: &[&str],
    spoil: impl FnOnce(&mut Setup) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    spoil(&mut setup)?;
    match setup.run_to_end()? {
        Outcome::BootRefused(cause) => {
            let lower = cause.to_lowercase();
            ensure!(
                words.iter().any(|word| lower.contains(word)),
                "the boot was refused, but {cause:?} names none of {words:?}"
            );
            Ok(())
        }
        other => Err(format!("the boot should have been refused, but: {other}").into()),
    }
}

fn replace_kernel(
    setup: &mut Setup,
    change: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), Failure> {
    setup.use_packed_kernel()?;
    let path = setup.kernel.clone().ok_or("no kernel to change")?;
    let kernel = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let changed = change(&kernel).ok_or_else(|| format!("{} is no bzImage", path.display()))?;
    setup.kernel = Some(setup.write_file("kernel", &changed)?);
    Ok(())
}
