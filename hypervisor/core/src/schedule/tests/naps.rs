//! CPUs that sleep when there is nothing to run, as the hypervisor's do, and others that post to vCPUs: whatever is posted is
//! seen. Threads are the CPUs, with the parts that the hypervisor itself is made of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::simulator::weight;
use crate::id::{CpuId, DomainId, VcpuId};
use crate::schedule::{Affinity, Asked, Attention, Domain, Handle, RunsOn, Scheduler, Seat};

const CPUS: usize = 2;
const VCPUS: usize = 4;

/// A CPU as others reach it.
#[derive(Default)]
struct Cpu {
    attention: Attention,
    interrupted: Mutex<bool>,
    arrived: Condvar,
}

impl Cpu {
    fn interrupt(&self) {
        *self.interrupted.lock().expect("no test panics here") = true;
        self.arrived.notify_all();
    }

    fn reschedule(&self) {
        if self.attention.ask_to_reschedule() {
            self.interrupt();
        }
    }

    /// Interrupts stay pending from the test to the halt.
    fn idle(&self) {
        let mut interrupted = self.interrupted.lock().expect("no test panics here");
        if self.attention.is_undisturbed() {
            while !*interrupted {
                interrupted = self.arrived.wait(interrupted).expect("no test panics here");
            }
        }
        *interrupted = false;
    }
}

/// A vCPU as others reach it.
struct Vcpu {
    handle: Handle,
    seat: Seat<()>,
    runs_on: RunsOn,
    /// Covers its coming to rest and its waking, as its run state's lock does.
    rest: Mutex<()>,
    posted: AtomicBool,
}

struct World {
    scheduler: Scheduler,
    cpus: [Cpu; CPUS],
    vcpus: Vec<Vcpu>,
    clock: AtomicU64,
    over: AtomicBool,
}

impl World {
    fn new() -> Self {
        let scheduler = Scheduler::new(CPUS);
        let domain = Domain::new(DomainId(1), weight(256));
        let vcpus = (0..VCPUS).map(|id| {
            let (id, seat) = (VcpuId(id as u16), Seat::new());
            seat.fill(());
            Vcpu {
                handle: scheduler
                    .add(&domain, id, Affinity::default(), std::sync::Arc::new(()))
                    .expect("there are CPUs"),
                seat,
                runs_on: RunsOn::default(),
                rest: Mutex::default(),
                posted: AtomicBool::new(false),
            }
        });
        Self {
            vcpus: vcpus.collect(),
            scheduler,
            cpus: Default::default(),
            clock: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1_000, Ordering::SeqCst)
    }

    fn post(&self, vcpu: &Vcpu) {
        vcpu.posted.store(true, Ordering::Release);
        match vcpu.runs_on.get_after_post() {
            Some(cpu) => {
                let cpu = &self.cpus[cpu.index()];
                if cpu.attention.ask() {
                    cpu.interrupt();
                }
            }
            None => self.wake(vcpu),
        }
    }

    fn wake(&self, vcpu: &Vcpu) {
        let rest = vcpu.rest.lock().expect("no test panics here");
        let cpu = self.scheduler.wake(&vcpu.handle, self.now());
        drop(rest);
        if let Some(cpu) = cpu {
            self.cpus[cpu.index()].reschedule();
        }
    }

    fn serve(&self, id: CpuId) {
        let cpu = &self.cpus[id.index()];
        let mut loaded: Option<&Vcpu> = None;
        while !self.over.load(Ordering::SeqCst) {
            cpu.attention.begin_round();
            if let Some(vcpu) = loaded.filter(|vcpu| vcpu.seat.is_wanted()) {
                vcpu.seat.put_back(());
                loaded = None;
            }
            let decision = self.scheduler.pick(id, self.now());
            for other in decision.interrupt.iter() {
                self.cpus[other.index()].reschedule();
            }
            let Some(key) = decision.key() else {
                cpu.idle();
                continue;
            };
            let next = &self.vcpus[key.vcpu.index()];
            if !loaded.is_some_and(|vcpu| std::ptr::eq(vcpu, next)) {
                if let Some(vcpu) = loaded.take() {
                    vcpu.seat.put_back(());
                }
                if !self.take(next, id) {
                    return;
                }
                loaded = Some(next);
            }
            self.run(next, id);
        }
    }

    /// Whether it was had before the test ended.
    fn take(&self, vcpu: &Vcpu, id: CpuId) -> bool {
        loop {
            match vcpu.seat.take(id) {
                Asked::Taken(()) => return true,
                Asked::Elsewhere(Some(holder)) => self.cpus[holder.index()].reschedule(),
                Asked::Elsewhere(None) => std::thread::yield_now(),
                Asked::Gone => panic!("nobody closes seats here"),
            }
            if self.over.load(Ordering::SeqCst) {
                return false;
            }
        }
    }

    /// It runs until it has dealt with what was posted, and waits.
    fn run(&self, vcpu: &Vcpu, id: CpuId) {
        vcpu.runs_on.set(Some(id));
        vcpu.posted.swap(false, Ordering::AcqRel);
        while self.cpus[id.index()].attention.take() {
            vcpu.posted.swap(false, Ordering::AcqRel);
        }
        vcpu.runs_on.set(None);
        if vcpu.posted.swap(false, Ordering::AcqRel) {
            return;
        }
        let _rest = vcpu.rest.lock().expect("no test panics here");
        // One that was woken meanwhile looks again.
        let _ = self.scheduler.block(id, self.now());
    }
}

#[test]
fn whatever_is_posted_is_seen() {
    const ROUNDS: usize = 5_000;
    const PATIENCE: Duration = Duration::from_secs(60);
    let world = World::new();
    let missed = std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let world = &world;
            scope.spawn(move || world.serve(CpuId(cpu as u16)));
        }
        let mut missed = None;
        'rounds: for round in 0..ROUNDS {
            // Not always all, nor always in the same order.
            let posted = |index: &usize| round % 5 == 0 || (round >> (index % 4)) & 1 == 0;
            let order = (0..VCPUS).map(|index| (index + round) % VCPUS);
            for index in order.filter(posted) {
                world.post(&world.vcpus[index]);
            }
            let start = Instant::now();
            while let Some(vcpu) =
                (0..VCPUS).find(|&index| world.vcpus[index].posted.load(Ordering::SeqCst))
            {
                std::thread::yield_now();
                if start.elapsed() > PATIENCE {
                    missed = Some((round, vcpu));
                    break 'rounds;
                }
            }
        }
        world.over.store(true, Ordering::SeqCst);
        world.cpus.iter().for_each(Cpu::reschedule);
        world.cpus.iter().for_each(Cpu::interrupt);
        missed
    });
    assert_eq!(missed, None, "round, and the vCPU that sleeps on");
}
