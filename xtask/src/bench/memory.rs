//! What the hypervisor keeps of the machine's memory.

use anyhow::{Context, Result};

use super::{Bench, Row};
use crate::machine::Kind;

/// Sizes of the machine, in GiB.
const SIZES: [u32; 3] = [1, 4, 16];

/// Memory that is neither dom0's nor free when dom0 starts. Bochs keeps no more than 2 GiB of a machine's memory in its
/// own, so that these runs are QEMU's.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let qemu = Bench {
        kind: if bench.kind == Kind::Kvm {
            Kind::Kvm
        } else {
            Kind::Tcg
        },
        ..bench.clone()
    };
    let bench = &qemu;
    let mut rows = Vec::new();
    for size in SIZES {
        let machine = bench.machine(1, size << 10);
        let text = bench.run_guest("bench-memory", &machine, "dom0_mem=256M dom0_max_vcpus=1")?;
        let kept = text
            .rsplit_once("the hypervisor keeps ")
            .and_then(|(_, rest)| rest.split(' ').next())
            .and_then(|number| number.parse().ok())
            .context("the hypervisor does not say what memory it keeps")?;
        let name = format!("memory kept, of {size} GiB");
        rows.push(bench.row(name, "KiB", kept, kept));
    }
    Ok(rows)
}
