//! Random machines, loads and changes: what must always hold is checked by the simulator at each event.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::simulator::*;
use crate::schedule::{Affinity, CpuSet, SLICE};

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let time = 10 * MICROSECOND..20 * MILLISECOND;
    prop_oneof![
        Just(Behaviour::Spin),
        (time.clone(), time.clone()).prop_map(|(run, sleep)| Behaviour::Sleeper { run, sleep }),
        (time.clone(), time.clone()).prop_map(|(run, sleep)| Behaviour::Periodic { run, sleep }),
        (50 * MICROSECOND..10 * MILLISECOND).prop_map(|run| Behaviour::Yielder { run }),
    ]
}

fn sets(cpus: u16) -> impl Strategy<Value = CpuSet> {
    prop_oneof![
        3 => Just(CpuSet::ALL),
        2 => proptest::collection::btree_set(0..cpus, 1..=usize::from(cpus))
            .prop_map(|set| on(&set.into_iter().collect::<Vec<_>>())),
    ]
}

fn affinities(cpus: u16) -> impl Strategy<Value = Affinity> {
    (sets(cpus), sets(cpus)).prop_map(|(hard, soft)| Affinity { hard, soft })
}

#[derive(Clone, Debug)]
enum Change {
    Affinity(Affinity),
    Params(u16, u16),
    Remove,
    Add(Affinity, Behaviour),
}

fn changes(cpus: u16) -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => affinities(cpus).prop_map(Change::Affinity),
        2 => (weights(), 0u16..200).prop_map(|(weight, cap)| Change::Params(weight, cap)),
        1 => Just(Change::Remove),
        2 => (affinities(cpus), behaviours()).prop_map(|(affinity, behaviour)| Change::Add(affinity, behaviour)),
    ]
}

fn weights() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 64u16..2048, 1 => 1u16..=65535]
}

type Mix = (
    u16,
    Vec<(u16, u16, u16, Affinity, Behaviour)>,
    Vec<(usize, u64, Change)>,
);

fn mixes() -> impl Strategy<Value = Mix> {
    (1u16..=5).prop_flat_map(|cpus| {
        let cap = prop_oneof![3 => Just(0u16), 1 => 1u16..300];
        let vcpu = (0u16..5, weights(), cap, affinities(cpus), behaviours());
        let change = (0usize..64, 0..200 * MILLISECOND, changes(cpus));
        (
            Just(cpus),
            proptest::collection::vec(vcpu, 1..16),
            proptest::collection::vec(change, 0..12),
        )
    })
}

/// The same cases each time, unless `PROPTEST_CASES` asks for others.
fn cases(cases: u32) -> ProptestConfig {
    let config = ProptestConfig {
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0x0C0F_FEE0),
        ..config
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn nothing_waits_beside_an_idle_cpu_and_affinity_holds((cpus, vcpus, changes) in mixes(), seed in any::<u64>()) {
        let mut simulation = Simulation::new(cpus, seed);
        for (domain, share, cap, affinity, behaviour) in vcpus {
            simulation.add(domain, capped(share, cap), affinity, behaviour);
        }
        for (which, after, change) in changes {
            simulation.run_for(after);
            let alive: Vec<_> = (0..simulation.vcpus.len()).filter(|&vcpu| simulation.is_alive(vcpu)).collect();
            let Some(&vcpu) = alive.get(which % alive.len().max(1)) else { continue };
            let domain = simulation.vcpus[vcpu].handle.key().domain.0;
            match change {
                Change::Affinity(affinity) => simulation.set_affinity(vcpu, affinity),
                Change::Params(share, cap) => simulation.set_params(domain, capped(share, cap)),
                Change::Remove => simulation.remove(vcpu),
                Change::Add(affinity, behaviour) => {
                    simulation.add(domain, weight(256), affinity, behaviour);
                }
            }
        }
        simulation.run_for(SECOND);
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn nobody_starves(
        cpus in 1u16..=4,
        vcpus in proptest::collection::vec((64u16..1024, behaviours()), 1..12),
        seed in any::<u64>(),
    ) {
        let mut simulation = Simulation::new(cpus, seed);
        let sum: u64 = vcpus.iter().map(|&(share, _)| u64::from(share)).sum();
        for (domain, &(share, behaviour)) in vcpus.iter().enumerate() {
            simulation.add(domain as u16, weight(share), Affinity::default(), behaviour);
        }
        simulation.run_for(5 * SECOND);
        for (vcpu, (share, _)) in simulation.vcpus.iter().zip(&vcpus) {
            // A turn of all others by weight, for what it runs in a turn of its own, some times over.
            let bound = 4 * SLICE * (sum / u64::from(*share) + vcpus.len() as u64);
            prop_assert!(vcpu.seen.longest_wait < bound, "{} of {bound}", vcpu.seen.longest_wait);
        }
    }

    #[test]
    fn spinners_share_by_weight_among_sleepers(
        cpus in 1u16..=3,
        spinners in proptest::collection::vec(128u16..512, 1..5),
        sleepers in proptest::collection::vec((10 * MICROSECOND..200 * MICROSECOND, MILLISECOND..10 * MILLISECOND), 0..5),
        seed in any::<u64>(),
    ) {
        // Several to a weight, so that none is too heavy for the share it is due.
        let mut simulation = Simulation::new(cpus, seed);
        let mut ids = Vec::new();
        for (domain, &share) in spinners.iter().enumerate() {
            for _ in 0..2 * cpus {
                ids.push((simulation.spinner(domain as u16, weight(share)), share));
            }
        }
        for (domain, &(run, sleep)) in sleepers.iter().enumerate() {
            simulation.add(100 + domain as u16, weight(256), Affinity::default(), Behaviour::Sleeper { run, sleep });
        }
        simulation.run_for(SECOND);
        simulation.start_over();
        simulation.run_for(20 * SECOND);
        let ran: u64 = ids.iter().map(|&(id, _)| simulation.ran(id)).sum();
        let sum: u64 = ids.iter().map(|&(_, share)| u64::from(share)).sum();
        for (id, share) in ids {
            let expected = ran as f64 * f64::from(share) / sum as f64;
            let error = (simulation.ran(id) as f64 / expected - 1.0).abs();
            prop_assert!(error < 0.02, "{share} of {sum}: off by {error:.4}");
        }
    }
}
