//! Caps hold, and what they allow is had.

use super::simulator::*;
use crate::schedule::{Affinity, CAP_PERIOD};

#[test]
fn a_capped_vcpu_has_what_its_cap_allows_and_no_more() {
    for cap in [1, 10, 25, 50, 90] {
        let mut simulation = Simulation::new(1, 2);
        let vcpu = simulation.spinner(1, capped(256, cap));
        simulation.run_for(50 * SECOND);
        let expected = f64::from(cap) / 100.0;
        assert_share("capped", simulation.ran(vcpu), 50 * SECOND, expected, 2.0);
    }
}

#[test]
fn a_cap_is_of_all_vcpus_of_the_domain_together() {
    for (cpus, cap) in [(1, 30), (2, 30), (4, 30), (4, 150), (4, 390)] {
        let mut simulation = Simulation::new(cpus, 3);
        let vcpus: Vec<_> = (0..4)
            .map(|_| simulation.spinner(1, capped(256, cap)))
            .collect();
        let expected = f64::from(cap.min(100 * cpus)) / 100.0;
        simulation.run_for(50 * SECOND);
        let sum = vcpus.iter().map(|&vcpu| simulation.ran(vcpu)).sum();
        assert_share(
            &format!("{cpus} CPUs, {cap} %"),
            sum,
            50 * SECOND,
            expected,
            2.0,
        );
        for vcpu in vcpus {
            assert_share(
                &format!("{cpus} CPUs, {cap} %, each"),
                simulation.ran(vcpu),
                50 * SECOND,
                expected / 4.0,
                15.0,
            );
        }
    }
}

#[test]
fn what_a_cap_leaves_others_have() {
    let mut simulation = Simulation::new(2, 4);
    let capped_one = simulation.spinner(1, capped(2048, 40));
    let others = [2, 3, 4].map(|domain| simulation.spinner(domain, weight(256)));
    simulation.run_for(SECOND);
    simulation.start_over();
    simulation.run_for(100 * SECOND);
    assert_share("capped", simulation.ran(capped_one), 100 * SECOND, 0.4, 2.0);
    for vcpu in others {
        assert_share("other", simulation.ran(vcpu), 100 * SECOND, 1.6 / 3.0, 2.0);
    }
}

#[test]
fn a_cap_near_the_fair_share_is_still_reached() {
    let mut simulation = Simulation::new(1, 5);
    let capped_one = simulation.spinner(1, capped(1024, 45));
    simulation.spinner(2, weight(1024));
    simulation.run_for(100 * SECOND);
    assert_share(
        "capped",
        simulation.ran(capped_one),
        100 * SECOND,
        0.45,
        2.0,
    );
}

#[test]
fn a_sleeper_saves_up_one_period_of_its_cap_at_most() {
    let mut simulation = Simulation::new(1, 6);
    let burst = Behaviour::Periodic {
        run: 50 * MILLISECOND,
        sleep: 500 * MILLISECOND,
    };
    let vcpu = simulation.add(1, capped(256, 20), Affinity::default(), burst);
    for _ in 0..2_000 {
        let before = simulation.ran(vcpu);
        simulation.run_for(CAP_PERIOD);
        let ran = simulation.ran(vcpu) - before;
        // The saved quota and this one, and the next one as the domain's periods begin elsewhere.
        assert!(ran <= 3 * CAP_PERIOD * 20 / 100, "{ran} ns in a period");
    }
}

#[test]
fn caps_change_while_vcpus_run() {
    let mut simulation = Simulation::new(2, 7);
    let vcpu = simulation.spinner(1, weight(256));
    for (cap, expected) in [(0, 1.0), (30, 0.3), (0, 1.0), (60, 0.6)] {
        simulation.set_params(1, capped(256, cap));
        simulation.run_for(SECOND);
        simulation.start_over();
        simulation.run_for(20 * SECOND);
        assert_share(
            &format!("cap {cap}"),
            simulation.ran(vcpu),
            20 * SECOND,
            expected,
            2.0,
        );
    }
}
