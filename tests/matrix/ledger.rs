//! What there is of everything that guests use up, so that it can be compared before and after them.

use oxen_tests::{Dom0, Failure, Setup};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};

/// Asks the hypervisor (`dom0-tools/xen/examples/ledger.rs`).
const PROGRAM: &str = "usr/sbin/ledger";

/// Shell functions: `supervisor` gives the number of its process, `ledger_all` lists everything.
const FUNCTIONS: &[&str] = &[
    "supervisor() { for p in $(pidof ox); do grep -q supervise /proc/$p/cmdline 2>/dev/null && echo $p; done; }",
    r#"opened() { echo "$1: $(ls /proc/$2/fd | wc -l) files, $(grep -c /dev/xen /proc/$2/maps) pages mapped, $(ls /proc/$2/task | wc -l) threads"; }"#,
    "ledger_all() { ledger; ox list | wc -l; ox store stats | grep -E 'nodes|domains|watches|transactions'; grep -c evtchn /proc/interrupts; ls /dev/pts | wc -l; ls /run/oxen/domains; opened xenstored $(pidof xenstored); opened xenconsoled $(pidof xenconsoled); opened supervisor $(supervisor); }",
];

/// Boots a dom0 that has the program, and waits for the daemons: what they use counts as being there. It may take as long as its steps.
pub fn boot(mut setup: Setup) -> Result<Dom0, Failure> {
    let program = xtask::build::dom0_example("oxen-xen", "ledger")?;
    setup.add_program(PROGRAM, &program)?;
    setup.machine.time_limit = None;
    let mut dom0 = setup.boot()?;
    for function in FUNCTIONS {
        dom0.run(function)?;
    }
    dom0.run("n=0; until grep -q supervising /var/log/xen/supervisor.log && grep -q connected /var/log/xen/xenconsoled.log; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || break; done; [ $n -lt 60 ]")?;
    Ok(dom0)
}

/// The same with the configuration of a small guest in `/run/visitor.cfg`, which has these lines more.
pub fn boot_for_visitors(name: &str, kind: Kind, more: &str) -> Result<Dom0, Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest("oxen-visitor-guest")?;
    let mut dom0 = boot(setup)?;
    dom0.run(&format!(
        "printf '%s\\n' 'type=\"pvh\"' 'kernel=\"{kernel}\"' 'memory=32' 'name=\"visitor\"' {more} >/run/visitor.cfg"
    ))?;
    Ok(dom0)
}

/// All that there is now, a line for each thing.
pub fn take(dom0: &mut Dom0) -> Result<String, Failure> {
    dom0.run("ledger_all")
}

/// Waits until all is as it was before, to the page and the last event channel.
pub fn balances(dom0: &mut Dom0, before: &str) -> Result<(), Failure> {
    /// Daemons let go of a guest shortly after its end, and look for each other each second.
    const LOOKS: u32 = 20;
    let mut now = take(dom0)?;
    for _ in 0..LOOKS {
        if now == before {
            return Ok(());
        }
        dom0.run("sleep 1")?;
        now = take(dom0)?;
    }
    let differences: Vec<String> = before
        .lines()
        .zip(now.lines())
        .filter(|(before, now)| before != now)
        .map(|(before, now)| format!("{before:?} is now {now:?}"))
        .collect();
    Err(
        format!("something is not as it was: {differences:#?}\nbefore:\n{before}\nnow:\n{now}")
            .into(),
    )
}
