//! Stock tools as judges: Debian's xenstore-utils and xl, of Xen 4.17, as they are.

use oxen_tests::{Dom0, Failure, ensure};
use xtask::machine::Kind;

use crate::domains::{MEMORY, setup};
use crate::{Case, checks};

/// The guest that xl makes: it prints on its console that time goes on and that its memory is as it left it.
const KERNEL: &str = "oxen-hostile-guest";
const NAME: &str = "judged";

/// What each of the xenstore tools does, by the socket or the device that is named, below a node of its own. The first event of a
/// watch is the watch's own.
const STORE: &[&str] = &[
    "export XENSTORED_PATH=$1; b=/tool/judge; rm -f /tmp/watched; :>/tmp/watched",
    "xenstore-write $b/a 1 $b/b 'two words' && [ \"$(xenstore-read $b/a)\" = 1 ] && [ \"$(xenstore-read $b/b)\" = 'two words' ] || return 1",
    "xenstore-exists $b/a && ! xenstore-exists $b/none || return 2",
    "[ \"$(echo $(xenstore-list $b))\" = 'a b' ] || return 3",
    "xenstore-chmod $b/a n0 r1 && xenstore-ls -p $b | grep -q '^a = \"1\".*(n0,r1)' || return 4",
    "{ timeout 100 xenstore-watch -n 2 $b/a > /tmp/watched & }; w=$!; n=0",
    "until grep -q . /tmp/watched || [ $n = 100 ]; do sleep 0.3; n=$((n+1)); done",
    "xenstore-write $b/a 2; wait $w && [ \"$(grep -c \"^$b/a\" /tmp/watched)\" = 2 ] || return 5",
    "xenstore-rm $b && ! xenstore-exists $b || return 6",
];
const SOCKET: &str = "/run/xenstored/socket";
const DEVICE: &str = "/dev/xen/xenbus";

pub fn cases() -> Vec<Case> {
    [Kind::Tcg, Kind::Bochs, Kind::Kvm]
        .into_iter()
        .map(|kind| Case::new(kind, "stock::tools", tools))
        .collect()
}

fn tools(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = setup(name, kind, MEMORY)?;
    let kernel = setup.add_guest(KERNEL)?;
    setup.use_xen_tools()?;
    let mut dom0 = setup.boot()?;
    xenstore(&mut dom0)?;
    machine(&mut dom0)?;
    guest(&mut dom0, &kernel)?;
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// By both ways, before and after xenstored was killed.
fn xenstore(dom0: &mut Dom0) -> Result<(), Failure> {
    dom0.run(&format!("store() {{ {}; }}", STORE.join("; ")))?;
    for (restarted, when) in [(false, "at first"), (true, "after a restart")] {
        if restarted {
            dom0.run("xenstore-write /tool/kept yes")?;
            dom0.run("kill -9 $(pidof xenstored); n=0; until xenstore-exists /tool/kept || [ $n = 60 ]; do sleep 1; n=$((n+1)); done")?;
        }
        for path in [SOCKET, DEVICE] {
            let output = dom0.try_run(&format!("store {path}"))?;
            ensure!(
                output.status == 0,
                "by {path}, {when}: step {} failed: {}",
                output.status,
                output.text
            );
        }
    }
    let kept = dom0.run("xenstore-read /tool/kept; unset XENSTORED_PATH")?;
    ensure!(kept == "yes", "after a restart the store holds {kept:?}");
    Ok(())
}

/// What xl tells of the machine.
fn machine(dom0: &mut Dom0) -> Result<(), Failure> {
    let info = dom0.run("xl info")?;
    for wanted in [
        "nr_cpus                : 2",
        "virt_caps              : hvm hap",
        "xen_scheduler          : credit2",
        "xen_major              : 4",
    ] {
        ensure!(
            info.contains(wanted),
            "xl info does not say {wanted:?}:\n{info}"
        );
    }
    ensure!(
        !info.contains("hw_caps                : 00000000"),
        "xl info knows of no CPU features:\n{info}"
    );
    says(dom0, "xl dmesg", &["(oxen) [stage 09]"])?;
    says(dom0, "xl cpupool-list", &["Pool-0", "credit2"])?;
    says(dom0, "xl list", &["Domain-0", "r-----"])?;
    says(dom0, "xl vcpu-list", &["Domain-0", "all / all"])
}

/// A guest's life by xl alone.
fn guest(dom0: &mut Dom0, kernel: &str) -> Result<(), Failure> {
    let config = format!("/tmp/{NAME}.cfg");
    dom0.run(&format!(
        "printf '%s\\n' 'name=\"{NAME}\"' 'type=\"pvh\"' 'kernel=\"{kernel}\"' memory=64 vcpus=1 'extra=\"role=witness\"' > {config}"
    ))?;
    let free = checks::free_pages(dom0)?;
    let made = dom0.try_run(&format!("xl -vvv create {config}"))?;
    ensure!(made.status == 0, "xl create: {}", made.text);
    checks::guest_says(dom0, NAME, "rounds", 100)?;
    says(dom0, "xl list", &[NAME, "    64     1"])?;
    dom0.run(&format!("xl pause {NAME}"))?;
    says(dom0, &format!("xl list {NAME}"), &["p---"])?;
    dom0.run(&format!(
        "xl unpause {NAME} && xl sched-credit2 -d {NAME} -w 512 -c 50"
    ))?;
    says(dom0, &format!("xl sched-credit2 -d {NAME}"), &["512   50"])?;
    dom0.run(&format!("xl vcpu-pin {NAME} 0 1"))?;
    says(dom0, &format!("xl vcpu-list {NAME}"), &["1 / all"])?;
    dom0.run(&format!("xl destroy {NAME}"))?;
    let list = dom0.run("xl list")?;
    ensure!(!list.contains(NAME), "after its end:\n{list}");
    // Tables of dom0's map, which grow once.
    const TABLES: u64 = 16;
    dom0.run("sleep 2")?;
    let now = checks::free_pages(dom0)?;
    ensure!(
        now + TABLES >= free,
        "{free} pages were free before, {now} are now"
    );
    Ok(())
}

fn says(dom0: &mut Dom0, command: &str, wanted: &[&str]) -> Result<(), Failure> {
    let text = dom0.run(command)?;
    for wanted in wanted {
        ensure!(
            text.contains(wanted),
            "`{command}` does not say {wanted:?}:\n{text}"
        );
    }
    Ok(())
}
