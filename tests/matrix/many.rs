//! Two hundred guests, four at a time, of which nothing is left: not a page, an event channel, a grant, a node or an open file, nor
//! anything in memory that the next ones get.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::{Case, checks, ledger};

/// Guests in all, how many at a time, and how many each of these makes before the test looks.
const GUESTS: u32 = 200;
const AT_A_TIME: u32 = 4;
const BATCH: u32 = 5;

/// Shell functions: `visit NAME HOW` makes a guest and ends it, in one of four ways; `visits NAME FIRST` makes a batch of them.
const FUNCTIONS: &[&str] = &[
    "patiently() { n=0; until eval \"$*\"; do sleep 0.1; n=$((n+1)); [ $n -lt 600 ] || return 1; done; }",
    // The record goes last, see `ending`; asking `ox` ten times a second would cost more than the guests.
    "gone() { patiently \"[ ! -e /run/oxen/domains/_$1.json ]\" && ! ox domid $1 2>/dev/null; }",
    "here() { patiently \"grep -qs 'visitor: here' /var/log/xen/console/guest-$1.log\"; }",
    "guest() { ox create /run/visitor.cfg name=$1 $2; }",
    "how0() { guest $1 -p && ox destroy $1; }",
    "how1() { guest $1 && ox destroy $1; }",
    "how2() { guest $1 && here $1 && ox destroy $1; }",
    "how3() { guest $1 extra=then=poweroff && gone $1; }",
    "visit() { how$2 $1 >/tmp/visit.$1 2>&1 && grep -q created /tmp/visit.$1 || { echo $1 $2; cat /tmp/visit.$1; } >>/tmp/failed; rm -f /tmp/visit.$1 /var/log/xen/console/guest-$1.log*; }",
    "visits() { i=$2; while [ $i -lt $(($2+BATCH)) ]; do visit $1$i $((i%4)); i=$((i+1)); done; }",
];

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "domains::many", many))
        .collect()
}

fn many(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut dom0 = ledger::boot_for_visitors(name, kind, "'on_crash=\"preserve\"'")?;
    for function in FUNCTIONS {
        dom0.run(&function.replace("BATCH", &BATCH.to_string()))?;
    }
    // What four guests at a time leave for all that come after them: dom0's and the hypervisor's own tables and heaps.
    batch(&mut dom0, 1000)?;
    let before = ledger::take(&mut dom0)?;
    for first in (0..GUESTS / AT_A_TIME).step_by(BATCH as usize) {
        batch(&mut dom0, first)?;
    }
    ledger::balances(&mut dom0, &before)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// As many guests as a batch has, by each of those who make them at once. The names differ, and the ways begin differently.
fn batch(dom0: &mut Dom0, first: u32) -> Result<(), Failure> {
    let makers: String = ["a", "b", "c", "d"]
        .iter()
        .enumerate()
        .map(|(nth, name)| format!("visits {name} {} & ", first as usize + nth))
        .collect();
    let failed = dom0.run(&format!("{makers} wait; cat /tmp/failed 2>/dev/null; true"))?;
    ensure!(
        failed.is_empty(),
        "of the guests from {first} on:\n{failed}"
    );
    Ok(())
}
