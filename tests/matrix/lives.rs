//! The ends of guests, and what comes after them: shutdown, reboot, crash, daemons that are killed.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::Case;
use crate::domains::{CONFIG, MEMORY, USERSPACE, with_tools};

/// Shell functions that the tests use. `within SECONDS COMMAND` waits for a command to succeed.
pub const FUNCTIONS: &[&str] = &[
    r#"within() { n=0; t=$1; shift; while ! eval "$*"; do [ $n = $t ] && { echo "not within $t s: $*"; return 1; }; sleep 1; n=$((n+1)); done; }"#,
    "log() { echo /var/log/xen/console/guest-$1.log; }",
    r#"up() { within 300 "[ \"\$(grep -c 'USERSPACE' $(log $1) 2>/dev/null)\" = $2 ]" || { tail -n 20 $(log $1); tail -n 5 /var/log/xen/*.log; false; }; }"#,
    r#"type_in() { t=$(ox store read /local/domain/$(ox domid $1)/console/tty); printf '%s\n' "$2" > $t; }"#,
    r#"gone() { within 120 "! ox domid $1 >/dev/null 2>&1" || { ox list; cat /var/log/xen/supervisor.log; false; }; }"#,
];

/// Makes the shell functions known to dom0's shell.
pub fn define_functions(dom0: &mut Dom0) -> Result<(), Failure> {
    for function in FUNCTIONS {
        dom0.run(&function.replace("USERSPACE", USERSPACE))?;
    }
    Ok(())
}

type Test = fn(&mut Dom0) -> Result<(), Failure>;

pub fn cases() -> Vec<Case> {
    let tests: [(&str, Test); 4] = [
        ("domains::shut_down", shut_down),
        ("domains::rebooted", rebooted),
        ("domains::crashed", crashed),
        ("domains::daemons_killed", daemons_killed),
    ];
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        for (name, test) in tests {
            cases.push(Case::new(kind, name, move |name, kind| {
                with_tools(name, kind, MEMORY, |dom0| {
                    define_functions(dom0)?;
                    // What guests use up is counted when all daemons are there, and what the first guest leaves for all others.
                    dom0.run("within 60 'grep -q supervising /var/log/xen/supervisor.log && grep -q connected /var/log/xen/xenconsoled.log'")?;
                    dom0.run(&format!("ox create -p {CONFIG} && ox destroy demo"))?;
                    test(dom0)
                })
            }));
        }
    }
    cases
}

/// What guests use up.
#[derive(Clone, Debug)]
pub struct Used {
    /// Free pages of the machine.
    free: u64,
    /// All else that dom0 can tell.
    other: String,
}

/// Pages by which tables and heaps may have grown for good: a guest's own would be thousands.
const GROWTH: u64 = 24;

pub fn used(dom0: &mut Dom0) -> Result<Used, Failure> {
    let free = dom0.run("ox info | awk '/free_pages/ { print $NF }'")?;
    let free = free
        .parse()
        .map_err(|_| format!("ox info says {free:?} of free pages"))?;
    let other = dom0.run(
        "ox list | wc -l; ox store stats | grep -E 'nodes|domains|watches'; grep -c evtchn /proc/interrupts; ls /run/oxen/domains",
    )?;
    Ok(Used { free, other })
}

/// Waits until what guests use up is what it was before.
pub fn nothing_left(dom0: &mut Dom0, before: &Used) -> Result<(), Failure> {
    // Daemons let go of a guest shortly after its end.
    let mut now = used(dom0)?;
    for _ in 0..10 {
        if now.other == before.other && now.free + GROWTH >= before.free {
            return Ok(());
        }
        dom0.run("sleep 1")?;
        now = used(dom0)?;
    }
    Err(format!("before: {before:?}\nafter: {now:?}").into())
}

/// From dom0 and from within; both leave nothing behind.
fn shut_down(dom0: &mut Dom0) -> Result<(), Failure> {
    let before = used(dom0)?;
    dom0.run(&format!("ox create {CONFIG} && up demo 1"))?;
    dom0.run("ox shutdown -ww demo && gone demo")?;
    nothing_left(dom0, &before)?;
    dom0.run(&format!("ox create {CONFIG} && up demo 2"))?;
    dom0.run("type_in demo 'poweroff -f' && gone demo")?;
    nothing_left(dom0, &before)
}

/// The same guest under another number, which boots; its times are those of its new life. Renamed, it keeps its new name.
fn rebooted(dom0: &mut Dom0) -> Result<(), Failure> {
    let before = used(dom0)?;
    dom0.run(&format!("ox create {CONFIG} && up demo 1"))?;
    let identity = "ox list -l | grep ^demo | awk '{print $NF}'";
    let (number, uuid) = (dom0.run("ox domid demo")?, dom0.run(identity)?);
    dom0.run("sleep 5; ox reboot -ww demo && up demo 2")?;
    let (next, same) = (dom0.run("ox domid demo")?, dom0.run(identity)?);
    ensure!(number != next, "the number is still {number}");
    ensure!(uuid == same, "the identity was {uuid} and is {same}");
    let uptime = dom0.run("ox uptime demo; ox config show demo | grep restarts")?;
    ensure!(uptime.contains("\"restarts\": 1"), "{uptime}");
    dom0.run("ox rename demo other && ox domid other && ! ox domid demo")?;
    dom0.run("type_in other 'reboot -f'; up other 1 && ox destroy other")?;
    nothing_left(dom0, &before)
}

/// Kept to be looked at, then destroyed; or destroyed at once.
fn crashed(dom0: &mut Dom0) -> Result<(), Failure> {
    let before = used(dom0)?;
    let crash = "type_in demo 'echo c > /proc/sysrq-trigger'";
    dom0.run(&format!(
        "ox create {CONFIG} on_crash=preserve && up demo 1"
    ))?;
    dom0.run(&format!(
        "{crash}; within 120 'ox list | grep demo | grep -q -e c-'"
    ))?;
    dom0.run("sleep 2; ox list -l | grep demo | grep crash")?;
    dom0.run(r#"grep '"reason":"crash","action":"preserve"' /var/log/xen/supervisor.log"#)?;
    dom0.run("ox top --batch --count 2 --delay 1 | grep -c ^demo | grep -x 2")?;
    dom0.run("ox dump-core demo /tmp/core && [ $(head -c 4 /tmp/core | tail -c 3) = ELF ] && rm /tmp/core")?;
    dom0.run("ox destroy demo")?;
    nothing_left(dom0, &before)?;
    dom0.run(&format!("ox create {CONFIG} && up demo 2"))?;
    dom0.run(&format!("{crash}; gone demo"))?;
    nothing_left(dom0, &before)
}

/// Each daemon is killed: a guest goes on, and what happened meanwhile is dealt with. `kills` does so in the middle of
/// creation and destruction.
fn daemons_killed(dom0: &mut Dom0) -> Result<(), Failure> {
    let before = used(dom0)?;
    let kill = |which: &str| format!("kill -9 $(pidof {which})");
    let supervisor = &kill("ox");
    dom0.run(&format!("ox create {CONFIG} && up demo 1"))?;
    for killed in [&kill("xenstored"), &kill("xenconsoled"), supervisor] {
        dom0.run(&format!("{killed}; ox list | grep demo"))?;
    }
    // The console is there again, and the guest has noticed nothing.
    dom0.run(
        "sleep 3; type_in demo 'echo still $((40+2))'; within 30 'grep -q \"still 42\" $(log demo)'",
    )?;
    // It stops while nobody looks.
    dom0.run(&format!(
        "{supervisor}; type_in demo 'poweroff -f'; gone demo"
    ))?;
    nothing_left(dom0, &before)
}
