//! Time: dom0's clock against the machine's RTC and the host's clock, and idle vCPUs that cost the host nothing.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use oxen_tests::{Failure, Setup, ensure};
use xtask::machine::{Kind, Outcome};

use crate::{Case, checks};

/// Shell functions: `edge` waits for the RTC's next second and prints the RTC, then the time since boot in seconds.
const EDGE: &str = "R=/sys/class/rtc/rtc0/since_epoch; edge() { read a <$R; b=$a; while [ \"$b\" = \"$a\" ]; do read b <$R; done; read u _ </proc/uptime; echo $b $u; }";

/// How far clocks may part over ten seconds, in seconds: two centiseconds of `/proc/uptime` and the loop that watches the RTC.
const RTC_TOLERANCE: f64 = 0.15;
/// The same against the host, which also sees the console's delay.
const HOST_TOLERANCE: f64 = 1.0;
/// Host CPU time that an idle dom0 may cost, in parts of one CPU.
const IDLE_SHARE: f64 = 0.08;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kind::Tcg, Kind::Bochs, Kind::Kvm] {
        cases.push(Case::new(kind, "time::clocks_agree", clocks_agree));
        cases.push(Case::new(kind, "time::naps_end", naps_end));
    }
    // Bochs runs emulated time as fast as it can: its use of the host says nothing.
    for kind in [Kind::Tcg, Kind::Kvm] {
        cases.push(Case::new(kind, "time::idle_vcpus_halt", idle_vcpus_halt));
    }
    cases
}

fn clocks_agree(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    // Where the TSC is good enough for it, Linux prefers it to the xen clock in dom0.
    setup.dom0_options = "clocksource=xen".into();
    let mut dom0 = setup.boot()?;
    let source =
        dom0.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    ensure!(source == "xen", "the clock source is {source}, not xen");
    dom0.run(EDGE)?;
    let both = dom0.run("edge; sleep 9; edge")?;
    let numbers: Vec<f64> = both
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [rtc_before, up_before, rtc_after, up_after] = numbers[..] else {
        return Err(format!("the RTC cannot be read: {both}").into());
    };
    let (by_rtc, by_xen) = (rtc_after - rtc_before, up_after - up_before);
    ensure!(by_rtc >= 9.0, "the RTC went on by {by_rtc} s only");
    ensure!(
        (by_rtc - by_xen).abs() < RTC_TOLERANCE,
        "by the RTC {by_rtc} s went by, by the xen clock {by_xen} s"
    );
    let wall: f64 = dom0
        .run("date +%s; cat $R")?
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(f64::NAN))
        .fold(0.0, |a: f64, b: f64| b - a);
    ensure!(
        wall.abs() <= 2.0,
        "dom0's wall clock is {wall} s away from the RTC"
    );
    if kind != Kind::Bochs {
        let before = Instant::now();
        let up_before: f64 = dom0.run("cut -d' ' -f1 /proc/uptime")?.parse()?;
        let up_after: f64 = dom0.run("sleep 10; cut -d' ' -f1 /proc/uptime")?.parse()?;
        let (by_host, by_xen) = (before.elapsed().as_secs_f64(), up_after - up_before);
        ensure!(
            (by_host - by_xen).abs() < HOST_TOLERANCE,
            "by the host {by_host:.2} s went by, by the xen clock {by_xen:.2} s"
        );
        let dom0_time: f64 = dom0.run("date +%s")?.parse()?;
        let host_time = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
        ensure!(
            (dom0_time - host_time).abs() < 3.0,
            "dom0's wall clock says {dom0_time}, the host's {host_time}"
        );
    }
    checks::logs_are_clean(&mut dom0)?;
    dom0.power_off()
}

/// A guest that falls asleep just when its timer comes wakes each time, and its run states account for all of its time.
fn naps_end(name: &str, kind: Kind) -> Result<(), Failure> {
    /// The case that QEMU's emulation gets wrong comes up about once in 1,500 times.
    const NAPS: u32 = 10_000;
    /// Of the time that went by: clocks are read in other units.
    const TOLERANCE: f64 = 0.001;
    let mut setup = Setup::new(name, kind)?;
    setup.use_guest("oxen-spin-guest")?;
    setup.hypervisor_options = "dom0_max_vcpus=1 dom0_mem=128M".into();
    setup.dom0_options = format!("naps={NAPS}");
    let (outcome, text) = setup.run_and_read()?;
    ensure!(
        outcome == Outcome::PowerOff,
        "the guest ended with {outcome}"
    );
    let report = text.lines().find(|line| line.starts_with("naps: "));
    let numbers: Vec<f64> = report
        .unwrap_or_default()
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [naps, least, most, spent, blocked] = numbers[..] else {
        return Err(format!("the guest does not report: {report:?}").into());
    };
    ensure!(naps == f64::from(NAPS), "{naps} naps of {NAPS}");
    ensure!(
        spent > least * (1.0 - TOLERANCE) && spent < most * (1.0 + TOLERANCE),
        "of {least} to {most} ns the run states hold {spent} ns"
    );
    ensure!(
        blocked > 0.0 && blocked < spent,
        "{blocked} ns of {spent} ns asleep"
    );
    Ok(())
}

fn idle_vcpus_halt(name: &str, kind: Kind) -> Result<(), Failure> {
    let mut setup = Setup::new(name, kind)?;
    setup.machine.cpus = 2;
    setup.hypervisor_options = "dom0_max_vcpus=2".into();
    let mut dom0 = setup.boot()?;
    // What the boot has left to do is done after a few seconds.
    dom0.run("sleep 5")?;
    let watched = Duration::from_secs(10);
    let before = dom0.running().cpu_time()?;
    thread::sleep(watched);
    let used = dom0.running().cpu_time()?.saturating_sub(before);
    let share = used.as_secs_f64() / watched.as_secs_f64();
    ensure!(
        share < IDLE_SHARE,
        "an idle dom0 takes {:.0} % of a host CPU",
        share * 100.0
    );
    dom0.power_off()
}
