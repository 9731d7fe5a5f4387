//! What vCPUs do, counted for those who ask: by debug key, and when a domain ends.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::domain::Domain;
use crate::hypercall;
use crate::time;
use crate::virt::Exit;

/// Number of kinds of exits.
const KINDS: usize = 21;

/// Names of the kinds, in the order in which they are counted.
const NAMES: [&str; KINDS] = [
    "external interrupt",
    "NMI",
    "machine check",
    "interrupt window",
    "NMI window",
    "deadline",
    "CPUID",
    "HLT",
    "PAUSE",
    "RDMSR",
    "WRMSR",
    "port",
    "nested fault",
    "hypercall",
    "#UD",
    "XSETBV",
    "cache flush",
    "control register",
    "local APIC write",
    "end of interrupt",
    "other",
];

/// What a call does with a grant.
#[derive(Clone, Copy, Debug)]
pub enum GrantWork {
    /// Maps it.
    Map,
    /// Takes a mapping away.
    Unmap,
    /// Copies from it or to it.
    Copy,
}

/// Counters of a vCPU. Only the CPU that runs it counts; anyone may read.
#[derive(Debug, Default)]
pub struct Counters {
    exits: Tally<KINDS>,
    calls: Tally<{ hypercall::CALLS }>,
    grants: Tally<3>,
    guest_mode: Tally<1>,
}

#[derive(Debug)]
struct Tally<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Tally<N> {
    fn add(&self, kind: usize, count: u64) {
        // One writer: no locked instruction is needed.
        let counter = &self.0[kind];
        let sum = counter.load(Ordering::Relaxed).wrapping_add(count);
        counter.store(sum, Ordering::Relaxed);
    }

    fn get(&self, kind: usize) -> u64 {
        self.0[kind].load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts one exit.
    pub fn exit(&self, exit: &Exit) {
        let kind = match exit {
            Exit::ExternalInterrupt => 0,
            Exit::Nmi => 1,
            Exit::MachineCheck => 2,
            Exit::InterruptWindow => 3,
            Exit::NmiWindow => 4,
            Exit::Deadline => 5,
            Exit::Cpuid => 6,
            Exit::Halt => 7,
            Exit::Pause => 8,
            Exit::ReadMsr => 9,
            Exit::WriteMsr => 10,
            Exit::Port(_) => 11,
            Exit::NestedFault(_) => 12,
            Exit::Hypercall => 13,
            Exit::UndefinedOpcode => 14,
            Exit::Xsetbv => 15,
            Exit::CacheFlush => 16,
            Exit::ControlRegister(_) => 17,
            Exit::ApicWrite(_) => 18,
            Exit::EndOfInterrupt(_) => 19,
            Exit::Refused | Exit::Shutdown | Exit::Unexpected(_) => 20,
        };
        self.exits.add(kind, 1);
    }

    /// Counts a hypercall by its place in their table.
    pub fn call(&self, place: usize) {
        self.calls.add(place, 1);
    }

    /// Counts what an element of a call does.
    pub fn grant(&self, work: GrantWork) {
        self.grants.add(work as usize, 1);
    }

    /// Adds the time since `start`, if [`clock`] gave one: it was spent in guest mode, or on the way there and back.
    pub fn left_guest_mode(&self, start: Option<u64>) {
        if let Some(start) = start {
            self.guest_mode.add(0, time::ticks().saturating_sub(start));
        }
    }
}

/// Set by the first who wants to know: two readings of the TSC a guest entry are otherwise saved.
static TIMED: AtomicBool = AtomicBool::new(false);

/// Has the time in guest mode counted from now on.
pub fn time_guest_mode() {
    TIMED.store(true, Ordering::Relaxed);
}

/// The TSC, if time in guest mode is counted.
pub fn clock() -> Option<u64> {
    TIMED.load(Ordering::Relaxed).then(time::ticks)
}

/// Sum over a domain's vCPUs.
fn sum(domain: &Domain, count: impl Fn(&Counters) -> u64) -> u64 {
    domain.vcpus.iter().map(|vcpu| count(&vcpu.counters)).sum()
}

/// `MARK NAME COUNT, NAME COUNT` of those that are not zero.
fn list(
    f: &mut fmt::Formatter<'_>,
    mark: &str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    f.write_str(mark)?;
    let mut comma = "";
    for (name, count) in counts.filter(|(_, count)| *count > 0) {
        write!(f, "{comma} {name} {count}")?;
        comma = ",";
    }
    Ok(())
}

/// Exit counts of a domain's vCPUs together.
pub struct Exits<'a>(pub &'a Domain);

impl fmt::Display for Exits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |(kind, name)| (name, sum(self.0, |counters| counters.exits.get(kind)));
        list(f, "exits:", NAMES.into_iter().enumerate().map(count))
    }
}

/// What a domain's vCPUs asked for, and how long they were in guest mode.
pub struct Work<'a>(pub &'a Domain);

impl fmt::Display for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = hypercall::names().enumerate();
        let count = |(place, name)| (name, sum(self.0, |counters| counters.calls.get(place)));
        list(f, "hypercalls:", calls.map(count))?;
        let grants = |work| sum(self.0, |counters| counters.grants.get(work as usize));
        write!(
            f,
            "; grants: mapped {}, unmapped {}, copied {}; guest mode: ticks {}",
            grants(GrantWork::Map),
            grants(GrantWork::Unmap),
            grants(GrantWork::Copy),
            sum(self.0, |counters| counters.guest_mode.get(0)),
        )
    }
}
