//! Running time follows weight, on one CPU and on several, and affinity is kept.

use super::simulator::*;
use crate::schedule::{Affinity, SLICE};

/// Runs spinners of the given domains and weights and checks their shares of `cpus`.
fn shares(cpus: u16, vcpus: &[(u16, u16)], seconds: u64) -> Simulation {
    let mut simulation = Simulation::new(cpus, 1);
    for &(domain, share) in vcpus {
        simulation.spinner(domain, weight(share));
    }
    simulation.run_for(SECOND);
    simulation.start_over();
    simulation.run_for(seconds * SECOND);
    let sum: u32 = vcpus.iter().map(|&(_, share)| u32::from(share)).sum();
    for (index, &(_, share)) in vcpus.iter().enumerate() {
        let expected = f64::from(cpus) * f64::from(share) / f64::from(sum);
        let what = format!("{cpus} CPUs, {vcpus:?}, {index}");
        assert_share(
            &what,
            simulation.ran(index),
            seconds * SECOND,
            expected,
            2.0,
        );
    }
    simulation
}

#[test]
fn weights_are_honoured_on_one_cpu() {
    shares(1, &[(1, 256), (2, 256)], 60);
    shares(1, &[(1, 256), (1, 256), (1, 256), (2, 256)], 60);
    shares(1, &[(1, 256), (2, 512), (3, 1024)], 200);
    shares(1, &[(1, 100), (2, 256), (3, 256), (4, 3000)], 300);
    shares(1, &[(1, 1), (2, 3)], 300);
    shares(1, &[(1, 65535), (2, 30000)], 60);
}

#[test]
fn weights_are_honoured_on_two_cpus() {
    shares(2, &[(1, 256), (2, 256), (3, 256)], 100);
    shares(2, &[(1, 256), (1, 256), (2, 256), (2, 256), (3, 256)], 100);
    shares(2, &[(1, 512), (2, 256), (3, 256), (4, 256)], 100);
    shares(2, &[(1, 256), (1, 256), (2, 512), (2, 512)], 100);
    shares(2, &[(1, 256), (2, 512), (3, 768), (4, 1024), (5, 128)], 200);
    // Eight guests of three vCPUs, and a control domain that is as busy as they are.
    let guests = (0..24).map(|i| (1 + i / 3, [256, 512, 768, 1024][usize::from(i / 6)]));
    let all: Vec<_> = guests.chain([(0, 2048)]).collect();
    shares(2, &all, 200);
}

#[test]
fn weights_are_honoured_on_four_cpus() {
    shares(4, &[(1, 256), (1, 256), (2, 256), (2, 256), (3, 256)], 60);
    shares(
        4,
        &[(1, 256), (1, 256), (1, 256), (2, 512), (2, 512), (2, 512)],
        60,
    );
    let many: Vec<_> = (0..24)
        .map(|i| (i / 3, [256, 512, 128, 1024][usize::from(i / 3 % 4)]))
        .collect();
    shares(4, &many, 100);
}

#[test]
fn equal_numbers_on_each_cpu_do_not_move() {
    let simulation = shares(2, &[(1, 256), (2, 256), (3, 256), (4, 256)], 60);
    for vcpu in &simulation.vcpus {
        assert!(vcpu.seen.migrations < 20, "{:?}", vcpu.seen);
    }
}

#[test]
fn vcpus_that_have_cpus_for_themselves_are_left_alone() {
    let mut simulation = Simulation::new(4, 1);
    for domain in 0..4 {
        simulation.spinner(domain, weight(256));
    }
    simulation.run_for(SECOND);
    let picks = simulation.picks;
    simulation.run_for(100 * SECOND);
    assert_eq!(simulation.picks, picks, "there is no tick");
}

#[test]
fn one_too_heavy_for_its_share_has_a_cpu_and_the_others_share_the_rest() {
    let mut simulation = Simulation::new(2, 1);
    let heavy = simulation.spinner(1, weight(4096));
    let light = [
        simulation.spinner(2, weight(256)),
        simulation.spinner(3, weight(512)),
    ];
    simulation.run_for(5 * SECOND);
    simulation.start_over();
    simulation.run_for(60 * SECOND);
    assert_share("heavy", simulation.ran(heavy), 60 * SECOND, 1.0, 2.0);
    assert_share(
        "light",
        simulation.ran(light[0]),
        60 * SECOND,
        1.0 / 3.0,
        4.0,
    );
    assert_share(
        "middle",
        simulation.ran(light[1]),
        60 * SECOND,
        2.0 / 3.0,
        4.0,
    );
}

#[test]
fn sleep_saves_up_no_share() {
    let mut simulation = Simulation::new(1, 1);
    let steady = simulation.spinner(1, weight(256));
    let burst = Behaviour::Periodic {
        run: 500 * MILLISECOND,
        sleep: 10 * SECOND,
    };
    simulation.add(2, weight(256), Affinity::default(), burst);
    simulation.run_for(200 * SECOND);
    let longest = simulation.vcpus[steady].seen.longest_wait;
    assert!(longest <= 3 * SLICE, "the other waited for {longest} ns");
}

#[test]
fn unbinding_a_crowd_levels_the_load_soon() {
    let mut simulation = Simulation::new(2, 1);
    let bound_ones: Vec<_> = (0..3)
        .map(|_| simulation.add(1, weight(256), bound(&[0]), Behaviour::Spin))
        .collect();
    let free = simulation.add(2, weight(256), Affinity::default(), Behaviour::Spin);
    simulation.run_for(600 * SECOND);
    assert_share(
        "bound",
        simulation.ran(bound_ones[0]),
        600 * SECOND,
        1.0 / 3.0,
        2.0,
    );
    assert_share("free", simulation.ran(free), 600 * SECOND, 1.0, 2.0);
    for &vcpu in &bound_ones {
        simulation.set_affinity(vcpu, Affinity::default());
    }
    simulation.start_over();
    simulation.run_for(SECOND);
    for vcpu in 0..4 {
        let ran = simulation.ran(vcpu);
        assert!(
            ran > SECOND / 4,
            "vCPU {vcpu} ran {ran} ns in the first second"
        );
    }
    simulation.run_for(20 * SECOND);
    simulation.start_over();
    simulation.run_for(100 * SECOND);
    for vcpu in 0..4 {
        assert_share("unbound", simulation.ran(vcpu), 100 * SECOND, 0.5, 2.0);
    }
}

#[test]
fn soft_affinity_is_preferred_and_costs_nothing() {
    let mut simulation = Simulation::new(2, 1);
    let soft = Affinity {
        soft: on(&[1]),
        ..Affinity::default()
    };
    let vcpu = simulation.add(
        1,
        weight(256),
        soft,
        Behaviour::Sleeper {
            run: MILLISECOND,
            sleep: MILLISECOND,
        },
    );
    simulation.run_for(10 * SECOND);
    assert_eq!(simulation.vcpus[vcpu].seen.ran_on.get(&0), None);
    // Two that want CPU 1 still use both.
    let others = [0, 1].map(|_| simulation.add(2, weight(256), soft, Behaviour::Spin));
    simulation.start_over();
    simulation.run_for(30 * SECOND);
    let ran: u64 = others
        .iter()
        .chain([&vcpu])
        .map(|&vcpu| simulation.ran(vcpu))
        .sum();
    assert_share("both CPUs", ran, 30 * SECOND, 2.0, 0.1);
    // The last one left returns.
    simulation.remove(vcpu);
    simulation.remove(others[0]);
    simulation.run_for(SECOND);
    simulation.start_over();
    simulation.run_for(SECOND);
    let seen = &simulation.vcpus[others[1]].seen;
    assert_eq!(seen.ran_on.get(&1), Some(&SECOND), "{seen:?}");
}
