//! Single operations, without the simulator.

use super::simulator::{MILLISECOND, bound, weight};
use crate::id::{CpuId, DomainId, VcpuId};
use crate::schedule::{Affinity, CpuSet, Domain, Error, Handle, RateLimit, Scheduler};
use std::sync::Arc;

const CPU: CpuId = CpuId(0);

fn machine(cpus: usize) -> (Scheduler, Arc<Domain>) {
    let scheduler = Scheduler::new(cpus);
    for cpu in 0..cpus {
        let decision = scheduler.pick(CpuId(cpu as u16), 0);
        assert_eq!(
            (decision.key(), decision.until, decision.interrupt),
            (None, None, CpuSet::EMPTY)
        );
    }
    (scheduler, Domain::new(DomainId(1), weight(256)))
}

fn add(scheduler: &Scheduler, domain: &Arc<Domain>, vcpu: u16, affinity: Affinity) -> Handle {
    scheduler
        .add(domain, VcpuId(vcpu), affinity, Arc::new(()))
        .expect("the affinity has a CPU")
}

#[test]
fn a_wake_between_the_last_look_and_the_block_is_not_lost() {
    let (scheduler, domain) = machine(1);
    let vcpu = add(&scheduler, &domain, 0, Affinity::default());
    assert_eq!(scheduler.wake(&vcpu, 10), Some(CPU));
    assert_eq!(scheduler.pick(CPU, 10).key(), Some(vcpu.key()));
    assert_eq!(scheduler.wake(&vcpu, 20), Some(CPU));
    assert!(!scheduler.block(CPU, 30));
    assert_eq!(scheduler.pick(CPU, 40).key(), Some(vcpu.key()));
    assert!(scheduler.block(CPU, 50));
    assert_eq!(scheduler.pick(CPU, 60).key(), None);
    // One that is ready is not woken twice.
    assert_eq!(scheduler.wake(&vcpu, 70), Some(CPU));
    assert_eq!(scheduler.wake(&vcpu, 80), None);
}

#[test]
fn a_yield_is_of_use_where_somebody_waits() {
    let (scheduler, domain) = machine(2);
    let here = bound(&[0]);
    let [first, second] = [0, 1].map(|vcpu| add(&scheduler, &domain, vcpu, here));
    assert_eq!(scheduler.wake(&first, 10), Some(CPU));
    assert_eq!(scheduler.pick(CPU, 10).key(), Some(first.key()));
    assert!(!scheduler.is_waited_for(CPU));
    scheduler.wake(&second, 20);
    assert!(scheduler.is_waited_for(CPU));
    // It is bound to the first CPU, so that nothing comes of a yield on the other.
    assert!(!scheduler.is_waited_for(CpuId(1)));
    scheduler.yield_now(CPU, 30);
    assert_eq!(scheduler.pick(CPU, 30).key(), Some(second.key()));
    assert!(scheduler.is_waited_for(CPU));
    scheduler.remove(&first);
    assert!(!scheduler.is_waited_for(CPU));
    // Two that may run anywhere, on CPUs that are both busy: one of them waits, and each CPU could let it go first.
    let anywhere = [2, 3].map(|vcpu| add(&scheduler, &domain, vcpu, Affinity::default()));
    for vcpu in &anywhere {
        scheduler.wake(vcpu, 40);
    }
    let _ = scheduler.pick(CpuId(1), 50);
    assert!(scheduler.is_waited_for(CPU) && scheduler.is_waited_for(CpuId(1)));
}

#[test]
fn who_wakes_another_on_its_own_cpu_may_go_on_for_a_while() {
    let (scheduler, domain) = machine(1);
    let [steady, sleeper] = [0, 1].map(|vcpu| add(&scheduler, &domain, vcpu, Affinity::default()));
    scheduler.wake(&steady, 0);
    assert_eq!(scheduler.pick(CPU, 0).key(), Some(steady.key()));
    let limit = RateLimit::default();
    let none = RateLimit::from_micros(0).expect("no limit");
    let mut now = 0;
    for (limit, waker) in [(limit, Some(CPU)), (limit, None), (none, Some(CPU))] {
        // By then the other may take its place at once.
        now += 10 * MILLISECOND;
        scheduler.set_rate_limit(limit);
        scheduler.wake_by(&sleeper, waker, now);
        let spared = now + limit.nanos();
        if waker.is_some() && limit != none {
            for at in [now, spared - 1] {
                let decision = scheduler.pick(CPU, at);
                let expected = (Some(steady.key()), Some(spared));
                assert_eq!((decision.key(), decision.until), expected);
            }
            now = spared;
        }
        assert_eq!(scheduler.pick(CPU, now).key(), Some(sleeper.key()));
        assert!(scheduler.block(CPU, now));
        assert_eq!(scheduler.pick(CPU, now).key(), Some(steady.key()));
    }
}

#[test]
fn who_wakes_others_again_and_again_loses_its_place_all_the_same() {
    let (scheduler, domain) = machine(1);
    let vcpus = [0, 1, 2].map(|vcpu| add(&scheduler, &domain, vcpu, Affinity::default()));
    let [steady, first, second] = &vcpus;
    scheduler.wake(steady, 0);
    assert_eq!(scheduler.pick(CPU, 0).key(), Some(steady.key()));
    let now = 10 * MILLISECOND;
    scheduler.wake_by(first, Some(CPU), now);
    let spared = now + RateLimit::default().nanos();
    scheduler.wake_by(second, Some(CPU), spared - 1);
    assert_eq!(scheduler.pick(CPU, spared - 1).until, Some(spared));
    assert_ne!(scheduler.pick(CPU, spared).key(), Some(steady.key()));
}

#[test]
fn an_affinity_with_no_cpu_of_the_machine_is_refused() {
    let (scheduler, domain) = machine(2);
    let added = scheduler.add(&domain, VcpuId(0), bound(&[2, 3]), Arc::new(()));
    assert_eq!(added.err(), Some(Error::NoCpu));
    let vcpu = add(&scheduler, &domain, 0, bound(&[1, 7]));
    assert_eq!(scheduler.affinity(&vcpu), bound(&[1]));
    assert_eq!(
        scheduler.set_affinity(&vcpu, bound(&[]), 0),
        Err(Error::NoCpu)
    );
    assert_eq!(scheduler.affinity(&vcpu), bound(&[1]));
}

#[test]
fn a_running_vcpu_leaves_a_cpu_that_it_may_no_longer_use() {
    let (scheduler, domain) = machine(2);
    let vcpu = add(&scheduler, &domain, 0, bound(&[0]));
    assert_eq!(scheduler.wake(&vcpu, 0), Some(CPU));
    assert_eq!(scheduler.pick(CPU, 0).key(), Some(vcpu.key()));
    let cpu = scheduler.set_affinity(&vcpu, bound(&[1]), 5);
    assert_eq!(cpu, Ok(Some(CPU)));
    let decision = scheduler.pick(CPU, 6);
    assert_eq!(decision.key(), None);
    assert!(decision.interrupt.contains(CpuId(1)));
    assert_eq!(scheduler.pick(CpuId(1), 7).key(), Some(vcpu.key()));
    assert_eq!(vcpu.cpu(), CpuId(1));
}

#[test]
fn a_blocked_vcpu_wakes_where_it_may_run_by_then() {
    let (scheduler, domain) = machine(2);
    let vcpu = add(&scheduler, &domain, 0, bound(&[0]));
    assert_eq!(scheduler.set_affinity(&vcpu, bound(&[1]), 0), Ok(None));
    assert_eq!(scheduler.wake(&vcpu, 5), Some(CpuId(1)));
}

#[test]
fn removed_vcpus_are_gone_whatever_they_did() {
    let (scheduler, domain) = machine(1);
    let vcpus = [0, 1, 2].map(|id| add(&scheduler, &domain, id, Affinity::default()));
    scheduler.wake(&vcpus[0], 0);
    let _ = scheduler.pick(CPU, 0);
    scheduler.wake(&vcpus[1], 1);
    assert_eq!(scheduler.remove(&vcpus[0]), Some(CPU), "it runs");
    assert_eq!(
        scheduler.remove(&vcpus[0]),
        None,
        "a second time does nothing"
    );
    assert_eq!(scheduler.remove(&vcpus[1]), None, "it is ready");
    assert_eq!(scheduler.remove(&vcpus[2]), None, "it is blocked");
    assert_eq!(scheduler.pick(CPU, 2).key(), None);
    assert!(vcpus.iter().all(|vcpu| scheduler.wake(vcpu, 3).is_none()));
    assert_eq!(scheduler.pick(CPU, 4).key(), None);
    // The loop may report what its guest did before it knew.
    let vcpu = add(&scheduler, &domain, 3, Affinity::default());
    scheduler.wake(&vcpu, 5);
    assert_eq!(scheduler.pick(CPU, 5).key(), Some(vcpu.key()));
    scheduler.remove(&vcpu);
    assert!(scheduler.block(CPU, 6));
    assert_eq!(scheduler.wake(&vcpu, 7), None);
}

#[test]
fn yielding_lets_the_next_one_run() {
    let (scheduler, domain) = machine(1);
    let vcpus = [0, 1].map(|id| add(&scheduler, &domain, id, Affinity::default()));
    scheduler.wake(&vcpus[0], 0);
    scheduler.wake(&vcpus[1], 0);
    let mut last = scheduler.pick(CPU, 0).key();
    for now in 1..20 {
        scheduler.yield_now(CPU, now);
        let next = scheduler.pick(CPU, now).key();
        assert_ne!(next, last);
        last = next;
    }
}

#[test]
fn time_that_goes_back_a_little_is_no_time() {
    let (scheduler, domain) = machine(1);
    let vcpus = [0, 1].map(|id| add(&scheduler, &domain, id, Affinity::default()));
    scheduler.wake(&vcpus[0], 1_000);
    scheduler.wake(&vcpus[1], 900);
    let first = scheduler.pick(CPU, 1_000);
    scheduler.account(CPU, 500);
    assert_eq!(scheduler.pick(CPU, 400).key(), first.key());
}

/// Many threads use one scheduler: it must neither lock up nor run a vCPU twice.
#[test]
fn cpus_and_wakers_at_once() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
    const CPUS: usize = 3;
    const RUNS: u64 = 300;
    let (scheduler, domain) = machine(CPUS);
    let affinities = [bound(&[0, 1, 2]), bound(&[1]), bound(&[0, 2])];
    let vcpus: Vec<_> = (0..8)
        .map(|id| add(&scheduler, &domain, id, affinities[usize::from(id) % 3]))
        .collect();
    let running: Vec<_> = vcpus.iter().map(|_| AtomicBool::new(false)).collect();
    let clock = AtomicU64::new(0);
    let now = || clock.fetch_add(100_000, SeqCst);
    let ran = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (scheduler, running, ran, done, now) = (&scheduler, &running, &ran, &done, &now);
            scope.spawn(move || {
                let cpu = CpuId(cpu as u16);
                let mut last = None;
                let mut turn = 0;
                while !done.load(SeqCst) {
                    turn += 1;
                    // Few cores hold many threads here; spinning would use up their time.
                    std::thread::yield_now();
                    let next = scheduler.pick(cpu, now()).key().map(|key| key.vcpu.index());
                    // As in the hypervisor, the last one's state is saved before the next is loaded; another CPU may pick
                    // it meanwhile, and waits.
                    if next != last {
                        if let Some(last) = last {
                            running[last].store(false, SeqCst);
                        }
                        if let Some(next) = next {
                            while running[next].swap(true, SeqCst) {
                                std::thread::yield_now();
                            }
                            ran.fetch_add(1, SeqCst);
                        }
                    }
                    last = next;
                    if turn % 3 == 0 && last.is_some() {
                        let _ = scheduler.block(cpu, now());
                    }
                }
                if let Some(last) = last {
                    running[last].store(false, SeqCst);
                }
            });
        }
        let (scheduler, vcpus, ran, done, now) = (&scheduler, &vcpus, &ran, &done, &now);
        scope.spawn(move || {
            let mut turns = 0..2_000_000;
            while let Some(turn) = turns.next().filter(|_| ran.load(SeqCst) < RUNS) {
                let vcpu = &vcpus[turn % vcpus.len()];
                scheduler.wake(vcpu, now());
                std::thread::yield_now();
                if turn % 7 == 0 {
                    let affinity = [bound(&[0, 1, 2]), bound(&[1]), bound(&[0, 2])][turn / 7 % 3];
                    assert!(scheduler.set_affinity(vcpu, affinity, now()).is_ok());
                }
            }
            done.store(true, SeqCst);
        });
    });
    assert!(ran.load(SeqCst) >= RUNS);
}
