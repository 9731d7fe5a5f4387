//! What holds in every dom0 that has booted, and what tests do with guests there.

use std::collections::BTreeMap;

use oxen_tests::{Dom0, Failure, ensure};

/// What a healthy kernel log does not hold.
const SUSPICIOUS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "Call Trace:",
    // Not the "install" of a harmless line.
    " stall",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "unchecked MSR access",
    "unhandled",
];

/// What such words are part of without harm: advice about CPU mitigations, which depends on the emulated CPU's age.
const HARMLESS: &[&str] = &[
    "RETBleed: WARNING:",
    "Spectre V2 : WARNING:",
    "MDS CPU bug present",
    "MMIO Stale Data CPU bug",
];

/// dom0 knows where it is: privileged, on Xen's ABI, as a PVH guest, with as many CPUs as it was given
/// and with events by the FIFO ABI.
pub fn is_pvh_dom0(dom0: &mut Dom0, vcpus: u32) -> Result<(), Failure> {
    let expected = [
        ("cat /proc/xen/capabilities", "control_d".to_owned()),
        ("cat /sys/hypervisor/type", "xen".to_owned()),
        ("cat /sys/hypervisor/guest_type", "PVH".to_owned()),
        ("grep -c ^processor /proc/cpuinfo", vcpus.to_string()),
        (
            "dmesg | grep -c 'xen:events: Using FIFO-based ABI'",
            "1".to_owned(),
        ),
    ];
    for (command, wanted) in expected {
        let got = dom0.run(command)?;
        ensure!(got == wanted, "`{command}` says {got:?}, not {wanted:?}");
    }
    Ok(())
}

/// Neither dom0's kernel nor the hypervisor has complained.
pub fn logs_are_clean(dom0: &mut Dom0) -> Result<(), Failure> {
    let kernel = dom0.run("dmesg")?;
    let kernel = kernel.lines().map(|line| format!("dom0's log: {line}"));
    let hypervisor = dom0.hypervisor_log();
    let hypervisor = hypervisor
        .into_iter()
        .map(|line| format!("the hypervisor's log: {line}"));
    let complaint = kernel
        .chain(hypervisor)
        .find(|line| holds_any(line, SUSPICIOUS) && !holds_any(line, HARMLESS));
    ensure!(complaint.is_none(), "{}", complaint.unwrap_or_default());
    Ok(())
}

fn holds_any(line: &str, marks: &[&str]) -> bool {
    marks.iter().any(|mark| line.contains(mark))
}

/// Memory of the machine that nobody has, in MiB.
pub fn free_memory(dom0: &mut Dom0) -> Result<u64, Failure> {
    machine_number(dom0, "free_memory")
}

/// The same in pages.
pub fn free_pages(dom0: &mut Dom0) -> Result<u64, Failure> {
    machine_number(dom0, "free_pages")
}

/// A number that `ox info` tells.
fn machine_number(dom0: &mut Dom0, name: &str) -> Result<u64, Failure> {
    let text = dom0.run(&format!("ox info | grep {name}"))?;
    let number = text.trim().rsplit(' ').next().unwrap_or_default();
    number
        .parse()
        .map_err(|_| format!("ox info says {text:?} of {name}").into())
}

/// Seconds in which a guest comes up on any machine.
pub const GUEST_BOOTS: u32 = 300;

/// Creates a guest from a kernel in dom0's image, with more lines for its configuration.
pub fn create_guest(
    dom0: &mut Dom0,
    name: &str,
    kernel: &str,
    more: &[&str],
) -> Result<(), Failure> {
    let more: String = more.iter().map(|line| format!(" '{line}'")).collect();
    let config = format!("/run/{name}.cfg");
    dom0.run(&format!(
        "printf '%s\\n' 'name=\"{name}\"' 'type=\"pvh\"' 'kernel=\"{kernel}\"'{more} >{config} && ox create {config}"
    ))?;
    Ok(())
}

/// Where a guest's console is logged.
pub fn console_log(guest: &str) -> String {
    format!("/var/log/xen/console/guest-{guest}.log")
}

/// Waits until a guest's console has said something, which is a regular expression, and returns the lines that do.
pub fn guest_says(
    dom0: &mut Dom0,
    guest: &str,
    wanted: &str,
    seconds: u32,
) -> Result<String, Failure> {
    let log = console_log(guest);
    dom0.run(&format!(
        "n=0; until grep -q '{wanted}' {log} || [ $n = {seconds} ]; do sleep 1; n=$((n+1)); done; grep '{wanted}' {log} || {{ tail -n 20 {log}; false; }}"
    ))
}

/// Waits until a guest has said something, for as long as a test of PV devices may take, and returns the lines that do.
pub fn says(dom0: &mut Dom0, guest: &str, wanted: &str) -> Result<String, Failure> {
    /// Seconds of a look, and looks: a command of dom0's shell may not take long on the clock of this side.
    const LOOK: u32 = 30;
    const LOOKS: u32 = 12;
    let mut looks = 1;
    loop {
        match guest_says(dom0, guest, wanted, LOOK) {
            Err(_) if looks < LOOKS => looks += 1,
            said => return said,
        }
    }
}

/// Types a line on a guest's console and waits until it says something there. Returns the end of its log.
pub fn guest_answers(
    dom0: &mut Dom0,
    guest: &str,
    typed: &str,
    wanted: &str,
) -> Result<String, Failure> {
    let log = console_log(guest);
    dom0.run(&format!(
        "{{ printf '%s\\n' '{typed}'; n=0; until grep -q '{wanted}' {log} || [ $n = 60 ]; do sleep 1; n=$((n+1)); done; printf '\\035'; }} | ox console {guest} >/dev/null; tail -n 12 {log}; grep -q '{wanted}' {log}"
    ))
}

/// The registers that the hypervisor's log has of a domain's vCPU, as `ox dmesg` shows it, by name; `what` happened to it last.
pub fn registers_in_the_log(
    dom0: &mut Dom0,
    domid: &str,
    what: &str,
) -> Result<BTreeMap<String, u64>, Failure> {
    /// Instruction and stack pointer, then the general registers, four a line.
    const LINES: usize = 5;
    let log = dom0.run("ox dmesg")?;
    let lines: Vec<&str> = log.lines().collect();
    let head = format!("domain {domid} vcpu ");
    let at = lines
        .iter()
        .rposition(|line| line.contains(&head) && line.ends_with(what))
        .ok_or_else(|| format!("the hypervisor's log does not say that domain {domid} {what}"))?;
    let words: Vec<&str> = lines[at + 1..]
        .iter()
        .take(LINES)
        .flat_map(|line| line.split_whitespace())
        .collect();
    let registers = words.windows(2).filter_map(|pair| {
        let value = u64::from_str_radix(pair[1].strip_prefix("0x")?, 16).ok()?;
        Some((pair[0].to_owned(), value))
    });
    Ok(registers.collect())
}
