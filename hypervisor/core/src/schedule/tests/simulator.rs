//! A discrete-event simulation of CPUs and of what vCPUs do. It drives the scheduler as the hypervisor's loop does and
//! checks at each event what must always hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::id::{CpuId, DomainId, VcpuId};
use crate::schedule::entity::Phase;
use crate::schedule::{Affinity, CpuSet, Domain, Handle, Params, Scheduler, VcpuKey};

pub const MICROSECOND: u64 = 1_000;
pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds from the sending of an interrupt to its effect.
const INTERRUPT_TAKES: u64 = 2 * MICROSECOND;

/// What a vCPU does.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// Computes for ever.
    Spin,
    /// Runs and sleeps for the given times in nanoseconds, each varied by up to half.
    Sleeper { run: u64, sleep: u64 },
    /// As a sleeper, with exact times.
    Periodic { run: u64, sleep: u64 },
    /// Computes, and yields after each `run` nanoseconds.
    Yielder { run: u64 },
}

pub fn weight(weight: u16) -> Params {
    capped(weight, 0)
}

pub fn capped(weight: u16, cap: u16) -> Params {
    Params {
        weight: NonZeroU16::new(weight).expect("weights are not 0"),
        cap,
    }
}

pub fn on(cpus: &[u16]) -> CpuSet {
    cpus.iter().map(|&cpu| CpuId(cpu)).collect()
}

pub fn bound(cpus: &[u16]) -> Affinity {
    Affinity {
        hard: on(cpus),
        ..Affinity::default()
    }
}

/// What has been seen of a vCPU.
#[derive(Debug, Default)]
pub struct Seen {
    /// Nanoseconds run.
    pub ran: u64,
    /// Nanoseconds run on each CPU.
    pub ran_on: BTreeMap<u16, u64>,
    /// Times from waking to running, in nanoseconds.
    pub latencies: Vec<u64>,
    /// The longest time that it was ready and did not run.
    pub longest_wait: u64,
    /// Changes of CPU.
    pub migrations: u64,
}

pub struct Model {
    pub handle: Handle,
    behaviour: Behaviour,
    /// Running time left until it sleeps or yields.
    left: u64,
    /// Since when it has been ready without running.
    waits_since: Option<u64>,
    woken_at: Option<u64>,
    /// Since when it has waited although a CPU for it idles.
    overlooked_since: Option<u64>,
    last_cpu: Option<CpuId>,
    removed: bool,
    pub seen: Seen,
}

#[derive(Default)]
struct Cpu {
    running: Option<usize>,
    since: u64,
    generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A CPU's timer, or its vCPU's next act, if nothing came between.
    Cpu(u16, u64),
    Interrupt(u16),
    Wake(usize),
}

pub struct Simulation {
    pub scheduler: Scheduler,
    pub now: u64,
    pub vcpus: Vec<Model>,
    pub picks: u64,
    domains: BTreeMap<u16, Arc<Domain>>,
    names: BTreeMap<VcpuKey, usize>,
    cpus: Vec<Cpu>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    random: u64,
}

impl Simulation {
    pub fn new(cpus: u16, seed: u64) -> Self {
        let mut simulation = Self {
            // The virtual clocks wrap soon after the start.
            scheduler: Scheduler::starting_at(cpus.into(), u64::MAX - SECOND),
            now: SECOND,
            vcpus: Vec::new(),
            picks: 0,
            domains: BTreeMap::new(),
            names: BTreeMap::new(),
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            events: BinaryHeap::new(),
            sequence: 0,
            random: seed,
        };
        (0..cpus).for_each(|cpu| simulation.pick(CpuId(cpu)));
        simulation
    }

    /// Adds a vCPU to a domain, which is made with `params` if it is new, and wakes it.
    pub fn add(
        &mut self,
        domain: u16,
        params: Params,
        affinity: Affinity,
        behaviour: Behaviour,
    ) -> usize {
        let domain = self
            .domains
            .entry(domain)
            .or_insert_with(|| Domain::new(DomainId(domain), params));
        let index = self.vcpus.len();
        let handle = self
            .scheduler
            .add(domain, VcpuId(index as u16), affinity, Arc::new(()))
            .expect("the affinity has a CPU");
        self.names.insert(handle.key(), index);
        self.vcpus.push(Model {
            handle,
            behaviour,
            left: 0,
            waits_since: None,
            woken_at: None,
            overlooked_since: None,
            last_cpu: None,
            removed: false,
            seen: Seen::default(),
        });
        self.vcpus[index].left = self.run_length(behaviour);
        self.post(self.now, Event::Wake(index));
        index
    }

    pub fn spinner(&mut self, domain: u16, params: Params) -> usize {
        self.add(domain, params, Affinity::default(), Behaviour::Spin)
    }

    pub fn set_params(&mut self, domain: u16, params: Params) {
        self.domains[&domain].set_params(params);
        (0..self.cpus.len() as u16).for_each(|cpu| self.interrupt(CpuId(cpu)));
    }

    pub fn set_affinity(&mut self, vcpu: usize, affinity: Affinity) {
        let handle = self.vcpus[vcpu].handle.clone();
        let cpu = self
            .scheduler
            .set_affinity(&handle, affinity, self.now)
            .expect("the affinity has a CPU");
        cpu.into_iter().for_each(|cpu| self.interrupt(cpu));
    }

    pub fn remove(&mut self, vcpu: usize) {
        let handle = self.vcpus[vcpu].handle.clone();
        self.vcpus[vcpu].removed = true;
        self.vcpus[vcpu].waits_since = None;
        let cpu = self.scheduler.remove(&handle);
        cpu.into_iter().for_each(|cpu| self.interrupt(cpu));
    }

    pub fn run_for(&mut self, nanos: u64) {
        let end = self.now + nanos;
        while let Some(&Reverse((at, _, event))) = self.events.peek() {
            if at > end {
                break;
            }
            self.events.pop();
            if at > self.now {
                self.check();
            }
            self.now = at;
            self.handle(event);
        }
        self.now = end;
        (0..self.cpus.len()).for_each(|cpu| self.charge(cpu));
        for vcpu in &mut self.vcpus {
            if let Some(since) = vcpu.waits_since {
                vcpu.seen.longest_wait = vcpu.seen.longest_wait.max(end - since);
            }
        }
    }

    /// Forgets what was seen so far.
    pub fn start_over(&mut self) {
        self.vcpus
            .iter_mut()
            .for_each(|vcpu| vcpu.seen = Seen::default());
    }

    pub fn ran(&self, vcpu: usize) -> u64 {
        self.vcpus[vcpu].seen.ran
    }

    pub fn is_alive(&self, vcpu: usize) -> bool {
        !self.vcpus[vcpu].removed
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(index) if self.vcpus[index].removed => {}
            Event::Wake(index) => {
                let vcpu = &mut self.vcpus[index];
                vcpu.waits_since = Some(self.now);
                vcpu.woken_at = Some(self.now);
                let handle = vcpu.handle.clone();
                let cpu = self.scheduler.wake(&handle, self.now);
                cpu.into_iter().for_each(|cpu| self.interrupt(cpu));
            }
            Event::Interrupt(cpu) => {
                self.charge(cpu.into());
                self.pick(CpuId(cpu));
            }
            Event::Cpu(cpu, generation) if self.cpus[usize::from(cpu)].generation == generation => {
                self.charge(cpu.into());
                self.act(CpuId(cpu));
                self.pick(CpuId(cpu));
            }
            Event::Cpu(..) => {}
        }
    }

    /// What a vCPU does when its running time is over.
    fn act(&mut self, cpu: CpuId) {
        let Some(index) = self.cpus[cpu.index()].running else {
            return;
        };
        let vcpu = &self.vcpus[index];
        if vcpu.left > 0 || vcpu.removed {
            return;
        }
        let behaviour = vcpu.behaviour;
        match behaviour {
            Behaviour::Sleeper { sleep, .. } => {
                let sleep = self.varied(sleep);
                self.sleep(cpu, index, sleep);
            }
            Behaviour::Periodic { sleep, .. } => self.sleep(cpu, index, sleep),
            Behaviour::Yielder { .. } => self.scheduler.yield_now(cpu, self.now),
            Behaviour::Spin => {}
        }
        self.vcpus[index].left = self.run_length(behaviour);
    }

    fn sleep(&mut self, cpu: CpuId, index: usize, sleep: u64) {
        if self.scheduler.block(cpu, self.now) {
            self.cpus[cpu.index()].running = None;
            self.post(self.now + sleep.max(1), Event::Wake(index));
        }
    }

    fn run_length(&mut self, behaviour: Behaviour) -> u64 {
        match behaviour {
            Behaviour::Spin => u64::MAX,
            Behaviour::Sleeper { run, .. } => self.varied(run).max(1),
            Behaviour::Periodic { run, .. } | Behaviour::Yielder { run } => run,
        }
    }

    fn varied(&mut self, nanos: u64) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        nanos / 2 + (mixed ^ (mixed >> 31)) % (nanos + 1)
    }

    /// Charges a CPU's vCPU with what it has run.
    fn charge(&mut self, cpu: usize) {
        let now = self.now;
        let state = &mut self.cpus[cpu];
        let ran = now - std::mem::replace(&mut state.since, now).min(now);
        if let Some(index) = state.running {
            let vcpu = &mut self.vcpus[index];
            vcpu.seen.ran += ran;
            *vcpu.seen.ran_on.entry(cpu as u16).or_default() += ran;
            vcpu.left = vcpu.left.saturating_sub(ran);
        }
    }

    fn pick(&mut self, cpu: CpuId) {
        self.picks += 1;
        let before = self.cpus[cpu.index()].running;
        let decision = self.scheduler.pick(cpu, self.now);
        let next = decision.key().map(|key| self.names[&key]);
        if let Some(index) = before.filter(|_| next != before) {
            self.vcpus[index].waits_since = Some(self.now).filter(|_| !self.vcpus[index].removed);
        }
        let mut until = decision.until;
        if let Some(index) = next {
            self.start(cpu, index, next != before);
            let acts = self.now.saturating_add(self.vcpus[index].left);
            until = Some(until.map_or(acts, |until| until.min(acts)));
        }
        let state = &mut self.cpus[cpu.index()];
        state.running = next;
        state.since = self.now;
        state.generation += 1;
        let event = Event::Cpu(cpu.0, state.generation);
        if let Some(until) = until.filter(|&until| until != u64::MAX) {
            self.post(until.max(self.now), event);
        }
        decision
            .interrupt
            .iter()
            .for_each(|cpu| self.interrupt(cpu));
    }

    fn start(&mut self, cpu: CpuId, index: usize, switched: bool) {
        let running = self.cpus.iter().enumerate();
        let elsewhere =
            running.filter(|(at, state)| *at != cpu.index() && state.running == Some(index));
        assert_eq!(elsewhere.count(), 0, "a vCPU runs on two CPUs");
        let hard = self.scheduler.affinity(&self.vcpus[index].handle).hard;
        assert!(
            hard.contains(cpu),
            "a vCPU runs on {cpu:?} though bound to {hard:?}"
        );
        let vcpu = &mut self.vcpus[index];
        assert!(!vcpu.removed, "a vCPU runs that was removed");
        if switched {
            if let Some(since) = vcpu.waits_since.take() {
                vcpu.seen.longest_wait = vcpu.seen.longest_wait.max(self.now - since);
            }
            if let Some(woken_at) = vcpu.woken_at.take() {
                vcpu.seen.latencies.push(self.now - woken_at);
            }
            if vcpu.last_cpu.replace(cpu).is_some_and(|last| last != cpu) {
                vcpu.seen.migrations += 1;
            }
        }
    }

    /// Nothing that is ready waits while a CPU on which it may run idles.
    fn check(&mut self) {
        let idle = self.cpus.iter().enumerate();
        let idle: CpuSet = idle
            .filter(|(_, cpu)| cpu.running.is_none())
            .map(|(cpu, _)| CpuId(cpu as u16))
            .collect();
        for index in 0..self.vcpus.len() {
            let vcpu = &mut self.vcpus[index];
            if vcpu.waits_since.is_none() {
                vcpu.overlooked_since = None;
                continue;
            }
            let state = vcpu.handle.0.state.lock();
            if state.phase == Phase::Parked {
                // Time without budget is not time waited.
                vcpu.waits_since = Some(self.now);
                vcpu.overlooked_since = None;
                continue;
            }
            let free = state.affinity.hard.and(&idle);
            if free.is_empty() {
                vcpu.overlooked_since = None;
                continue;
            }
            let since = *vcpu.overlooked_since.get_or_insert(self.now);
            assert!(
                self.now - since <= 2 * INTERRUPT_TAKES,
                "{:?} is {:?} at {} while {free:?} idle",
                vcpu.handle.key(),
                state.phase,
                self.now,
            );
        }
    }

    fn interrupt(&mut self, cpu: CpuId) {
        self.post(self.now + INTERRUPT_TAKES, Event::Interrupt(cpu.0));
    }

    fn post(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

/// Asserts that a share of `total` is as expected, within `percent` of it.
#[track_caller]
pub fn assert_share(what: &str, got: u64, total: u64, expected: f64, percent: f64) {
    let share = got as f64 / total as f64;
    let error = (share / expected - 1.0) * 100.0;
    assert!(
        error.abs() <= percent,
        "{what}: {share:.4} of a CPU, {error:+.2} % from {expected:.4}"
    );
}
