//! vCPUs that wake run soon, whatever else there is to run.

use super::simulator::*;
use crate::schedule::{Affinity, SLICE};

fn check(what: &str, simulation: &mut Simulation, vcpu: usize) {
    let latencies = &mut simulation.vcpus[vcpu].seen.latencies;
    latencies.sort_unstable();
    assert!(
        latencies.len() > 1_000,
        "{what}: only {} wakes",
        latencies.len()
    );
    let p99 = latencies[latencies.len() * 99 / 100];
    let max = latencies[latencies.len() - 1];
    assert!(p99 < MILLISECOND, "{what}: p99 is {p99} ns");
    assert!(max < SLICE, "{what}: the longest is {max} ns");
}

const IO: Behaviour = Behaviour::Sleeper {
    run: 200 * MICROSECOND,
    sleep: 5 * MILLISECOND,
};

#[test]
fn an_io_vcpu_wakes_fast_under_full_load() {
    for cpus in [1, 2, 4] {
        for crowd in [1, 3] {
            let mut simulation = Simulation::new(cpus, 8);
            for domain in 0..cpus * crowd {
                simulation.spinner(domain, weight(256));
            }
            let vcpu = simulation.add(100, weight(256), Affinity::default(), IO);
            simulation.run_for(30 * SECOND);
            check(&format!("{cpus} CPUs, {crowd} each"), &mut simulation, vcpu);
        }
    }
}

#[test]
fn io_vcpus_among_one_another_and_heavier_spinners_wake_fast() {
    let mut simulation = Simulation::new(2, 9);
    for domain in 0..4 {
        simulation.spinner(domain, weight(1024));
    }
    let vcpus: Vec<_> = (10..16)
        .map(|domain| simulation.add(domain, weight(256), Affinity::default(), IO))
        .collect();
    simulation.run_for(30 * SECOND);
    for vcpu in vcpus {
        check("six among four heavier", &mut simulation, vcpu);
    }
}

#[test]
fn a_bound_io_vcpu_wakes_fast() {
    let mut simulation = Simulation::new(4, 10);
    for domain in 0..12 {
        simulation.spinner(domain, weight(256));
    }
    let vcpu = simulation.add(100, weight(256), bound(&[2]), IO);
    simulation.run_for(30 * SECOND);
    check("bound", &mut simulation, vcpu);
}

#[test]
fn boosted_vcpus_starve_nobody() {
    let mut simulation = Simulation::new(1, 11);
    let steady = simulation.spinner(0, weight(256));
    // Together they want three CPUs.
    let greedy = Behaviour::Sleeper {
        run: MILLISECOND,
        sleep: MILLISECOND / 2,
    };
    for domain in 1..6 {
        simulation.add(domain, weight(256), Affinity::default(), greedy);
    }
    simulation.run_for(100 * SECOND);
    assert_share(
        "steady",
        simulation.ran(steady),
        100 * SECOND,
        1.0 / 6.0,
        5.0,
    );
    let longest = simulation.vcpus[steady].seen.longest_wait;
    assert!(longest < 20 * SLICE, "it waited for {longest} ns");
}
