use std::sync::atomic::{AtomicBool, Ordering};

use oxen_abi::Errno;
use oxen_abi::event_channel::fifo::{ARRAY_PAGES, MASKED, PENDING, PORTS};
use oxen_abi::event_channel::{TWO_LEVEL_PORTS, Virq};
use oxen_abi::shared_info::EVTCHN_PENDING;

use super::testing::{CONTROL_OFFSET, Guest, OWN};
use crate::guest_page::testing::leaked_page;
use crate::id::{Port, VcpuId};

/// Ports whose events go to a vCPU.
pub fn ipis(guest: &Guest, vcpu: u16, count: usize) -> Vec<Port> {
    (0..count)
        .map(|_| guest.events.bind_ipi(VcpuId(vcpu)).expect("a free port"))
        .collect()
}

pub fn send(guest: &Guest, port: Port) {
    assert_eq!(guest.events.send(port, &guest.told), Ok(None));
}

pub fn handled(guest: &Guest, vcpu: u16) -> Vec<Port> {
    let seen = guest.look(vcpu).into_iter();
    seen.filter(|&(_, there)| there)
        .map(|(port, _)| Port(port))
        .collect()
}

#[test]
fn control_blocks_are_checked_and_given_once() {
    let guest = Guest::new(2, u32::MAX);
    let init = |vcpu, offset| {
        guest
            .events
            .init_control(VcpuId(vcpu), leaked_page(), offset, &guest.told)
    };
    assert_eq!(init(2, 0), Err(Errno::NoEnt));
    assert_eq!(init(0, 4), Err(Errno::Inval));
    assert_eq!(init(0, CONTROL_OFFSET + 8), Err(Errno::Inval));
    assert_eq!(init(0, u32::MAX - 7), Err(Errno::Inval));
    assert_eq!(
        guest.events.expand_array(leaked_page(), &guest.told),
        Err(Errno::OpNotSupp),
        "nothing above has changed the ABI"
    );
    assert_eq!(init(0, CONTROL_OFFSET), Ok(()));
    assert_eq!(init(0, 0), Err(Errno::Inval));
    assert_eq!(init(1, 0), Ok(()));
}

#[test]
fn the_array_grows_to_all_ports_and_no_further() {
    let mut guest = Guest::ready(1);
    for _ in 1..ARRAY_PAGES {
        assert_eq!(guest.expand(MASKED), Ok(()));
    }
    assert_eq!(guest.expand(MASKED), Err(Errno::NoSpc));
    let ports = ipis(&guest, 0, PORTS as usize - 1);
    assert_eq!(guest.events.bind_ipi(VcpuId(0)), Err(Errno::NoSpc));
    let last = *ports.last().expect("there are some");
    assert_eq!(last, Port(PORTS - 1));
    send(&guest, last);
    assert!(guest.events.is_pending(last) && guest.events.is_masked(last));
    assert_eq!(guest.unmask(last.0), Ok(()));
    assert_eq!(handled(&guest, 0), [last]);
}

#[test]
fn ports_past_the_2_level_ones_need_the_fifo_abi() {
    let mut guest = Guest::new(1, u32::MAX);
    ipis(&guest, 0, TWO_LEVEL_PORTS as usize - 1);
    assert_eq!(guest.events.bind_ipi(VcpuId(0)), Err(Errno::NoSpc));
    assert_eq!(
        guest.events.begin_poll(VcpuId(0), &[Port(TWO_LEVEL_PORTS)]),
        Err(Errno::Inval)
    );
    assert_eq!(guest.init_control(0), Ok(()));
    assert_eq!(guest.events.bind_ipi(VcpuId(0)), Ok(Port(TWO_LEVEL_PORTS)));
    assert_eq!(
        guest.events.begin_poll(VcpuId(0), &[Port(TWO_LEVEL_PORTS)]),
        Ok(true)
    );
}

#[test]
fn a_domains_own_limit_holds_under_both_abis() {
    let mut guest = Guest::new(1, 3);
    assert_eq!(guest.init_control(0), Ok(()));
    assert_eq!(ipis(&guest, 0, 2), [Port(1), Port(2)]);
    assert_eq!(guest.events.bind_ipi(VcpuId(0)), Err(Errno::NoSpc));
}

#[test]
fn events_come_by_priority_and_then_in_order() {
    let guest = Guest::ready(1);
    let ports = ipis(&guest, 0, 4);
    assert_eq!(guest.events.set_priority(ports[2], 0), Ok(()));
    assert_eq!(guest.events.set_priority(ports[0], 15), Ok(()));
    assert_eq!(guest.events.set_priority(ports[0], 16), Err(Errno::Inval));
    assert_eq!(guest.events.set_priority(Port(9), 1), Err(Errno::Inval));
    for port in [0, 3, 1, 2, 1] {
        send(&guest, ports[port]);
    }
    assert_eq!(guest.told.take(), [VcpuId(0)]);
    let order = [2, 3, 1, 0].map(|index| ports[index]);
    assert_eq!(handled(&guest, 0), order);
    assert!(guest.look(0).is_empty());
}

#[test]
fn priorities_are_of_the_fifo_abi() {
    let guest = Guest::new(1, u32::MAX);
    let port = ipis(&guest, 0, 1)[0];
    assert_eq!(guest.events.set_priority(port, 1), Err(Errno::NoSys));
}

#[test]
fn a_masked_event_is_linked_with_the_unmask() {
    let guest = Guest::ready(1);
    let port = ipis(&guest, 0, 1)[0];
    guest.mask(port.0);
    send(&guest, port);
    assert!(guest.told.take().is_empty());
    assert_eq!(guest.unmask(port.0), Ok(()));
    assert_eq!(guest.told.take(), [VcpuId(0)]);
    assert_eq!(handled(&guest, 0), [port]);
    assert_eq!(guest.events.unmask(Port(9), &guest.told), Err(Errno::Inval));
}

#[test]
fn what_was_pending_before_the_change_arrives_after_it() {
    let mut guest = Guest::new(2, u32::MAX);
    let ports = ipis(&guest, 1, 2);
    send(&guest, ports[1]);
    assert_eq!(guest.init_control(0), Ok(()));
    assert!(guest.events.is_pending(ports[1]) && !guest.events.is_pending(ports[0]));
    assert_eq!(guest.shared.u64(EVTCHN_PENDING).load(Ordering::SeqCst), 0);
    assert_eq!(guest.expand(0), Ok(()));
    assert_eq!(guest.word(ports[1].0).load(Ordering::SeqCst), PENDING);
    guest.told.take();
    // vCPU 1 had been told under the old ABI and has looked since.
    assert!(guest.look(1).is_empty());
    assert_eq!(guest.init_control(1), Ok(()));
    assert_eq!(guest.told.take(), [VcpuId(1)]);
    assert_eq!(handled(&guest, 1), [ports[1]]);
}

#[test]
fn an_event_without_a_word_is_held_until_it_has_one_or_is_closed() {
    let mut guest = Guest::new(1, u32::MAX);
    assert_eq!(guest.init_control(0), Ok(()));
    let ports = ipis(&guest, 0, 2);
    send(&guest, ports[0]);
    send(&guest, ports[0]);
    send(&guest, ports[1]);
    assert!(guest.told.take().is_empty());
    assert_eq!(guest.events.begin_poll(VcpuId(0), &ports), Ok(false));
    assert_eq!(guest.events.close(ports[1]), Ok(None));
    assert_eq!(guest.events.bind_ipi(VcpuId(0)), Ok(ports[1]));
    assert_eq!(guest.expand(0), Ok(()));
    assert_eq!(guest.told.take(), [VcpuId(0)]);
    assert_eq!(handled(&guest, 0), [ports[0]]);
}

#[test]
fn an_event_that_the_guest_dropped_does_not_come_again() {
    let mut guest = Guest::new(2, u32::MAX);
    assert_eq!(guest.init_control(0), Ok(()));
    let port = ipis(&guest, 0, 1)[0];
    send(&guest, port);
    assert_eq!(guest.expand(MASKED), Ok(()));
    guest.word(port.0).fetch_and(!PENDING, Ordering::SeqCst);
    assert_eq!(guest.init_control(1), Ok(()));
    assert!(!guest.events.is_pending(port));
}

#[test]
fn a_port_that_moves_does_not_take_its_old_queue_along() {
    let guest = Guest::ready(2);
    let (one, other) = {
        let one = guest.events.alloc_unbound(OWN).expect("a free port");
        let other = guest
            .events
            .bind_interdomain(&guest.events, one, &guest.told)
            .expect("offered to itself");
        (one, other)
    };
    let ipi = ipis(&guest, 0, 1)[0];
    assert_eq!(handled(&guest, 0), [other]);
    // Last in vCPU 0's queue, taken, and then linked to vCPU 1's: what follows on vCPU 0 must not be linked behind it.
    assert_eq!(guest.events.bind_vcpu(other, VcpuId(1)), Ok(()));
    send(&guest, one);
    send(&guest, ipi);
    assert_eq!(handled(&guest, 0), [ipi]);
    assert_eq!(handled(&guest, 1), [other]);
}

#[test]
fn a_closed_port_is_passed_over_and_begins_anew() {
    let guest = Guest::ready(1);
    let ports = ipis(&guest, 0, 3);
    assert_eq!(guest.events.set_priority(ports[1], 3), Ok(()));
    for &port in &ports {
        send(&guest, port);
    }
    assert_eq!(guest.events.close(ports[1]), Ok(None));
    assert_eq!(guest.events.bind_ipi(VcpuId(0)), Ok(ports[1]));
    assert_eq!(handled(&guest, 0), [ports[0], ports[2]]);
    send(&guest, ports[2]);
    send(&guest, ports[1]);
    assert_eq!(handled(&guest, 0), [ports[2], ports[1]]);
}

#[test]
fn a_poll_ends_with_a_masked_event() {
    let guest = Guest::ready(2);
    let port = ipis(&guest, 0, 1)[0];
    guest.mask(port.0);
    assert_eq!(guest.events.begin_poll(VcpuId(1), &[port]), Ok(true));
    send(&guest, port);
    assert_eq!(guest.told.take(), [VcpuId(1)]);
    assert!(!guest.events.is_polling(VcpuId(1)));
    assert_eq!(guest.events.begin_poll(VcpuId(1), &[port]), Ok(false));
}

#[test]
fn a_reset_goes_back_to_the_2_level_abi() {
    let mut guest = Guest::ready(1);
    let old = ipis(&guest, 0, TWO_LEVEL_PORTS as usize + 5);
    send(&guest, old[0]);
    let page = guest.array[0];
    guest.reset();
    let port = guest
        .events
        .bind_virq(Virq::TIMER, VcpuId(0))
        .expect("a free port");
    assert_eq!(port, old[0]);
    page.zero();
    guest.events.raise_virq(VcpuId(0), Virq::TIMER, &guest.told);
    assert_eq!(guest.shared.u64(EVTCHN_PENDING).load(Ordering::SeqCst), 2);
    assert_eq!(page.u32(4).load(Ordering::SeqCst), 0);
    assert_eq!(
        guest.events.status(Port(TWO_LEVEL_PORTS + 9)),
        Err(Errno::Inval)
    );
    assert_eq!(guest.init_control(0), Ok(()));
    assert_eq!(guest.expand(0), Ok(()));
    assert_eq!(handled(&guest, 0), [port]);
}

#[test]
fn no_event_is_lost_while_the_guest_masks_unmasks_and_takes_them() {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 500 };
    let guest = Guest::ready(1);
    let ports = ipis(&guest, 0, 24);
    for (index, &port) in ports.iter().enumerate() {
        let priority = (index % 3) as u32;
        assert_eq!(guest.events.set_priority(port, priority), Ok(()));
    }
    let taken: Vec<_> = ports.iter().map(|_| AtomicBool::new(true)).collect();
    let sender = |half: usize| {
        for round in 0..ROUNDS * ports.len() / 2 {
            let index = (2 * round + half) % ports.len();
            while !taken[index].swap(false, Ordering::SeqCst) {
                std::thread::yield_now();
            }
            send(&guest, ports[index]);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| sender(0));
        scope.spawn(|| sender(1));
        let mut left = ROUNDS * ports.len();
        for turn in (0..ports.len()).cycle() {
            if left == 0 {
                break;
            }
            guest.mask(ports[turn].0);
            for port in handled(&guest, 0) {
                assert!(!taken[port.index() - 1].swap(true, Ordering::SeqCst));
                left -= 1;
            }
            assert_eq!(guest.unmask(ports[turn].0), Ok(()));
        }
    });
    assert!(guest.look(0).is_empty());
}
