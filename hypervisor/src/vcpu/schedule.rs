//! The machine's one scheduler, and the timers of vCPUs that wait.
//!
//! The decisions are `oxen_core::schedule`'s. Its locks are each CPU's own; a vCPU's run state is locked before them, so
//! that a waker and the CPU on which the vCPU goes to rest agree about since when it has waited.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;

use oxen_abi::Errno;
use oxen_core::id::{CpuId, DomainId, VcpuId};
use oxen_core::schedule::{Affinity, Error, Scheduler};
use oxen_core::time::Timers;
use spin::{Mutex, Once};

use super::VcpuShared;
use super::seat::State;
use crate::cpu::{self, MAX_CPUS};
use crate::domain::Domain;
use crate::time;
use crate::virt::Missing;

static SCHEDULER: Once<Scheduler> = Once::new();

/// Makes a vCPU's state, by the vCPU's index in its domain.
pub type Factory = dyn Fn(&Arc<Domain>, usize) -> Result<State, Missing> + Send + Sync;

static FACTORY: Once<Box<Factory>> = Once::new();

/// What is to be woken: a vCPU by its index.
type Sleeper = (Arc<Domain>, usize);

/// Timers of vCPUs that wait, on the CPU where each went to rest, by TSC value.
static TIMERS: [Mutex<Timers<(DomainId, VcpuId), Sleeper>>; MAX_CPUS] =
    [const { Mutex::new(Timers::new()) }; MAX_CPUS];

/// Begins with CPUs 0 to `cpus`, and with the backend's way to make vCPUs.
pub fn init(cpus: usize, factory: Box<Factory>) {
    SCHEDULER.call_once(|| Scheduler::new(cpus));
    FACTORY.call_once(|| factory);
}

/// The scheduler.
pub fn scheduler() -> &'static Scheduler {
    SCHEDULER
        .get()
        .expect("there are no vCPUs before the scheduler")
}

/// Makes the vCPUs of a new domain and lets the scheduler know them. They are down.
///
/// # Errors
/// What is missing for one of them; then none is left.
pub fn admit(domain: &Arc<Domain>, affinity: impl Fn(usize) -> Affinity) -> Result<(), Missing> {
    let all = (0..domain.vcpus.len()).try_for_each(|index| {
        admit_one(domain, index, affinity(index)).inspect_err(|missing| {
            log::error!(
                "domain {} vCPU {index} cannot be made: {missing}",
                domain.id
            );
        })
    });
    if all.is_err() {
        for vcpu in &domain.vcpus {
            dismiss(vcpu);
        }
    }
    all
}

fn admit_one(domain: &Arc<Domain>, index: usize, affinity: Affinity) -> Result<(), Missing> {
    let factory = FACTORY.get().ok_or("a backend")?;
    let vcpu = &domain.vcpus[index];
    let state = factory(domain, index)?;
    reserve_timers().map_err(|_| "memory")?;
    vcpu.seat.fill(state);
    let handle = scheduler()
        .add(&domain.shares, vcpu.id, affinity, vcpu.seat.clone())
        .map_err(|error| alloc::format!("{error}"))?;
    vcpu.set_handle(handle);
    Ok(())
}

/// Takes what is left of a vCPU that ends, which its CPU is asked for. Whether nothing is left any more.
pub fn dismiss(vcpu: &VcpuShared) -> bool {
    vcpu.seat.close();
    let runs_on = vcpu.handle().and_then(|handle| scheduler().remove(handle));
    if let Some(cpu) = runs_on.and_then(cpu::percpu::by_id) {
        cpu.reschedule();
    }
    if vcpu.seat.withdraw().is_some() {
        *VCPUS.lock() -= 1;
    }
    !vcpu.seat.exists()
}

/// vCPUs that there are.
static VCPUS: Mutex<usize> = Mutex::new(0);

/// Room for one timer more on each CPU, as every vCPU may come to rest on any.
fn reserve_timers() -> Result<(), TryReserveError> {
    let mut vcpus = VCPUS.lock();
    cpu::percpu::all()
        .filter_map(|cpu| TIMERS.get(cpu.id().index()))
        .try_for_each(|timers| timers.lock().reserve(*vcpus + 1))?;
    *vcpus += 1;
    Ok(())
}

/// The errno for what the scheduler refused.
pub const fn errno(error: Error) -> Errno {
    match error {
        Error::NoMemory => Errno::NoMem,
        Error::NoCpu => Errno::Inval,
    }
}

/// A timer that is set: on which CPU and for when.
#[derive(Clone, Copy, Debug)]
pub struct SetTimer {
    cpu: CpuId,
    at: u64,
    key: (DomainId, VcpuId),
}

/// Has the calling CPU wake a vCPU when the TSC reaches `at`.
pub fn set_timer(domain: &Arc<Domain>, index: usize, at: u64) -> Option<SetTimer> {
    let cpu = cpu::current().id();
    let key = (domain.id, domain.vcpus[index].id);
    let timers = TIMERS.get(cpu.index())?;
    timers.lock().set(at, key, (domain.clone(), index));
    Some(SetTimer { cpu, at, key })
}

/// Takes a timer back.
pub fn cancel_timer(timer: SetTimer) {
    let sleeper = TIMERS
        .get(timer.cpu.index())
        .and_then(|timers| timers.lock().remove(timer.at, timer.key));
    // With no lock held: it may be the last that is left of the domain.
    drop(sleeper);
}

/// Wakes whom the calling CPU's timers are due for; returns the TSC value at which the next is.
pub fn fire_timers() -> Option<u64> {
    let timers = TIMERS.get(cpu::current().id().index())?;
    loop {
        let (due, next) = {
            let mut timers = timers.lock();
            timers.first()?;
            (timers.take_due(time::ticks()), timers.first())
        };
        match due {
            Some((domain, index)) => domain.vcpus[index].kick(),
            None => return next,
        }
    }
}
