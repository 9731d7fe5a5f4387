use std::sync::Mutex as StdMutex;
use std::sync::atomic::Ordering;

use oxen_abi::event_channel::Virq;

use super::*;
use crate::guest_page::testing::leaked_page;
use oxen_abi::shared_info::{EVTCHN_MASK, vcpu_info};

#[derive(Default)]
struct Log(StdMutex<Vec<VcpuId>>);

impl Notify for Log {
    fn notify(&self, vcpu: VcpuId) {
        self.0
            .lock()
            .expect("no test panics while it logs")
            .push(vcpu);
    }
}

impl Log {
    fn take(&self) -> Vec<VcpuId> {
        std::mem::take(&mut *self.0.lock().expect("no test panics while it logs"))
    }
}

fn domain(id: u16) -> (EventChannels, GuestPage) {
    let page = leaked_page();
    (
        EventChannels::new(DomainId(id), page, 4, 4096).expect("tests have memory"),
        page,
    )
}

#[test]
fn an_ipi_is_announced_once_until_the_guest_looks() {
    let (events, page) = domain(1);
    let log = Log::default();
    let port = events.bind_ipi(VcpuId(2)).expect("a free port");
    assert_eq!(port, Port(1));
    assert_eq!(events.send(port, &log), Ok(None));
    assert_eq!(events.send(port, &log), Ok(None));
    assert_eq!(log.take(), [VcpuId(2)]);
    assert!(events.upcall_pending(VcpuId(2)));
    let selector = page
        .u64(2 * 64 + vcpu_info::PENDING_SEL)
        .load(Ordering::Relaxed);
    assert_eq!(selector, 1);
}

#[test]
fn a_masked_event_waits_for_the_unmask() {
    let (events, page) = domain(1);
    let log = Log::default();
    let port = events.bind_ipi(VcpuId(0)).expect("a free port");
    page.u64(EVTCHN_MASK).store(1 << port.0, Ordering::Relaxed);
    assert_eq!(events.send(port, &log), Ok(None));
    assert!(log.take().is_empty());
    assert_eq!(events.unmask(port, &log), Ok(()));
    assert_eq!(log.take(), [VcpuId(0)]);
    assert_eq!(events.unmask(Port(77), &log), Err(Errno::Inval));
}

#[test]
fn a_32_bit_guest_finds_its_events_in_its_own_layout() {
    const MASKS: usize = 2176;
    const SELECTOR: usize = 4;
    let (events, page) = domain(1);
    events.set_layout(Layout::Narrow);
    let log = Log::default();
    let ports: Vec<Port> = (0..40)
        .map(|_| events.bind_ipi(VcpuId(1)).expect("a free port"))
        .collect();
    let last = ports[39];
    assert_eq!(last, Port(40));
    let masks = page.u32(MASKS + 4);
    masks.store(1 << 8, Ordering::Relaxed);
    assert_eq!(events.send(last, &log), Ok(None));
    assert!(log.take().is_empty());
    let pending = page.u32(2048 + 4).load(Ordering::Relaxed);
    assert_eq!((pending, events.is_masked(last)), (1 << 8, true));
    assert_eq!(events.unmask(last, &log), Ok(()));
    assert_eq!(
        (log.take(), masks.load(Ordering::Relaxed)),
        (vec![VcpuId(1)], 0)
    );
    let selector = page.u32(64 + SELECTOR).load(Ordering::Relaxed);
    assert_eq!(selector, 1 << 1, "a bit for each 32 ports");
    assert_eq!(page.u64(64 + 8).load(Ordering::Relaxed), 0);
    // A moved one has all of its selector set, and nothing behind it.
    let place = leaked_page();
    assert_eq!(
        events.register_vcpu_info(VcpuId(0), place, 128, &log),
        Ok(())
    );
    assert_eq!(place.u32(128 + SELECTOR).load(Ordering::Relaxed), u32::MAX);
    assert_eq!(place.u64(128 + 8).load(Ordering::Relaxed), 0);
    let too_many = (0..1024).find_map(|_| events.bind_ipi(VcpuId(0)).err());
    assert_eq!(too_many, Some(Errno::NoSpc));
    assert_eq!(events.bind_ipi(VcpuId(0)), Err(Errno::NoSpc));
}

#[test]
fn a_virq_is_bound_once_and_global_ones_only_to_the_first_vcpu() {
    let (events, _) = domain(0);
    let log = Log::default();
    let timer = events
        .bind_virq(Virq::TIMER, VcpuId(1))
        .expect("a free port");
    assert_eq!(events.bind_virq(Virq::TIMER, VcpuId(1)), Err(Errno::Exist));
    assert!(events.bind_virq(Virq::TIMER, VcpuId(0)).is_ok());
    assert_eq!(
        events.bind_virq(Virq::CONSOLE, VcpuId(1)),
        Err(Errno::Inval)
    );
    assert_eq!(events.bind_virq(Virq(24), VcpuId(0)), Err(Errno::Inval));
    assert_eq!(events.bind_virq(Virq::TIMER, VcpuId(9)), Err(Errno::NoEnt));
    events.raise_virq(VcpuId(1), Virq::TIMER, &log);
    assert_eq!(log.take(), [VcpuId(1)]);
    assert_eq!(events.bind_vcpu(timer, VcpuId(0)), Err(Errno::Inval));
    assert_eq!(events.send(timer, &log), Err(Errno::Inval));
}

#[test]
fn a_channel_between_domains_signals_the_far_end_and_unbinds_on_close() {
    let ((front, _), (back, _)) = (domain(1), domain(0));
    let log = Log::default();
    let offered = front.alloc_unbound(DomainId(0)).expect("a free port");
    assert_eq!(
        back.bind_interdomain(&front, Port(5), &log),
        Err(Errno::Inval)
    );
    let bound = back
        .bind_interdomain(&front, offered, &log)
        .expect("the port is offered to it");
    assert_eq!(log.take(), [VcpuId(0)]);
    let peer = front
        .send(offered, &log)
        .expect("it is open")
        .expect("it leads to the other domain");
    assert_eq!(
        peer,
        Peer {
            domain: DomainId(0),
            port: bound
        }
    );
    let far = back
        .close(bound)
        .expect("it is open")
        .expect("it was connected");
    front.unbind_from(
        far.port,
        Peer {
            domain: DomainId(0),
            port: bound,
        },
    );
    assert_eq!(
        front.status(offered).map(|status| status.2),
        Ok(Status::Unbound(DomainId(0)))
    );
    assert_eq!(front.send(offered, &log), Ok(None));
}

#[test]
fn a_loop_within_one_domain_works_and_both_ends_fall_together() {
    let (events, _) = domain(0);
    let log = Log::default();
    let one = events.alloc_unbound(DomainId(0)).expect("a free port");
    let other = events
        .bind_interdomain(&events, one, &log)
        .expect("offered to itself");
    log.take();
    events
        .bind_vcpu(one, VcpuId(3))
        .expect("interdomain ports can move");
    assert_eq!(events.send(other, &log), Ok(None));
    assert_eq!(log.take(), [VcpuId(3)]);
    assert_eq!(events.close(other), Ok(None));
    assert_eq!(
        events.status(one).map(|status| status.2),
        Ok(Status::Unbound(DomainId(0)))
    );
}

#[test]
fn ports_are_bounded_and_closed_ones_used_again() {
    let page = leaked_page();
    let events = EventChannels::new(DomainId(1), page, 1, 4).expect("tests have memory");
    let ports: Vec<_> = (0..3)
        .map(|_| events.bind_ipi(VcpuId(0)).expect("below the limit"))
        .collect();
    assert_eq!(events.bind_ipi(VcpuId(0)), Err(Errno::NoSpc));
    assert_eq!(events.close(ports[1]), Ok(None));
    assert_eq!(events.close(ports[1]), Err(Errno::Inval));
    assert_eq!(events.bind_ipi(VcpuId(0)), Ok(ports[1]));
    assert_eq!(events.close(Port(0)), Err(Errno::Inval));
}

#[test]
fn a_moved_vcpu_info_is_all_pending_and_moves_once() {
    let (events, shared) = domain(1);
    let log = Log::default();
    shared.u32(32).store(0x1234, Ordering::Relaxed);
    let page = leaked_page();
    assert_eq!(
        events.register_vcpu_info(VcpuId(0), page, 4, &log),
        Err(Errno::NxIo)
    );
    assert_eq!(events.register_vcpu_info(VcpuId(0), page, 64, &log), Ok(()));
    assert_eq!(
        events.register_vcpu_info(VcpuId(0), page, 128, &log),
        Err(Errno::Inval)
    );
    assert_eq!(page.u32(64 + 32).load(Ordering::Relaxed), 0x1234);
    assert_eq!(
        page.u64(64 + vcpu_info::PENDING_SEL)
            .load(Ordering::Relaxed),
        u64::MAX
    );
    assert_eq!(log.take(), [VcpuId(0)]);
}

#[test]
fn a_poll_ends_with_its_port_even_when_that_is_masked() {
    let (events, page) = domain(1);
    let log = Log::default();
    let port = events.bind_ipi(VcpuId(0)).expect("a free port");
    page.u64(EVTCHN_MASK).store(u64::MAX, Ordering::Relaxed);
    assert_eq!(events.begin_poll(VcpuId(1), &[port]), Ok(true));
    assert_eq!(events.send(port, &log), Ok(None));
    assert_eq!(log.take(), [VcpuId(1)]);
    assert!(!events.is_polling(VcpuId(1)));
    assert_eq!(events.begin_poll(VcpuId(1), &[port]), Ok(false));
    assert_eq!(
        events.begin_poll(VcpuId(1), &[Port(5000)]),
        Err(Errno::Inval)
    );
    assert_eq!(
        events.begin_poll(VcpuId(1), &[Port(1); 129]),
        Err(Errno::Inval)
    );
    assert_eq!(events.begin_poll(VcpuId(1), &[]), Ok(true));
    events.end_poll(VcpuId(1));
    events.end_poll(VcpuId(1));
    assert_eq!(events.pollers.load(Ordering::SeqCst), 0);
}

#[test]
fn a_virq_follows_its_port_through_close_and_bind() {
    let (events, _) = domain(0);
    let log = Log::default();
    let first = events
        .bind_virq(Virq::CONSOLE, VcpuId(0))
        .expect("a free port");
    events
        .bind_vcpu(first, VcpuId(2))
        .expect("global ones can move");
    events.raise_virq(VcpuId(0), Virq::CONSOLE, &log);
    assert_eq!(log.take(), [VcpuId(2)]);
    assert_eq!(events.close(first), Ok(None));
    assert!(!events.is_pending(first));
    events.raise_virq(VcpuId(0), Virq::CONSOLE, &log);
    assert!(!events.is_pending(first));
    let ipi = events.bind_ipi(VcpuId(1)).expect("a free port");
    let again = events
        .bind_virq(Virq::CONSOLE, VcpuId(0))
        .expect("it was closed");
    assert_ne!(ipi, again);
    events.raise_virq(VcpuId(0), Virq::CONSOLE, &log);
    assert!(events.is_pending(again) && !events.is_pending(ipi));
}

#[test]
fn an_end_that_was_closed_on_keeps_its_vcpu_and_can_be_bound_again() {
    let ((front, _), (back, _)) = (domain(1), domain(0));
    let log = Log::default();
    let offered = front.alloc_unbound(DomainId(0)).expect("a free port");
    front
        .bind_vcpu(offered, VcpuId(2))
        .expect("unbound ports can move");
    let bound = back
        .bind_interdomain(&front, offered, &log)
        .expect("offered to it");
    let near = Peer {
        domain: DomainId(0),
        port: bound,
    };
    let far = back.close(bound).expect("open").expect("connected");
    assert_eq!(far.port, offered);
    front.unbind_from(far.port, near);
    front.unbind_from(far.port, near);
    let again = back
        .bind_interdomain(&front, offered, &log)
        .expect("unbound again");
    log.take();
    let to = back.send(again, &log).expect("open").expect("elsewhere");
    front.signal(
        to.port,
        Peer {
            domain: DomainId(0),
            port: again,
        },
        &log,
    );
    assert_eq!(log.take(), [VcpuId(2)]);
    front.signal(
        to.port,
        Peer {
            domain: DomainId(5),
            port: again,
        },
        &log,
    );
    assert!(log.take().is_empty());
}

#[test]
fn a_reset_closes_everything_and_names_far_ends() {
    let ((front, _), (back, _)) = (domain(1), domain(0));
    let log = Log::default();
    let offered = front.alloc_unbound(DomainId(0)).expect("a free port");
    back.bind_virq(Virq::TIMER, VcpuId(1)).expect("a free port");
    let bound = back
        .bind_interdomain(&front, offered, &log)
        .expect("offered to it");
    let mut told = Vec::new();
    back.close_all(|port, peer| told.push((port, peer.port)));
    assert_eq!(told, [(bound, offered)]);
    back.for_each(|port, _, _, _| panic!("{port:?} is still open"));
    assert!(back.bind_virq(Virq::TIMER, VcpuId(1)).is_ok());
}

#[test]
fn a_vcpu_past_the_legacy_ones_gets_its_events_when_it_registers() {
    let shared = leaked_page();
    let events = EventChannels::new(DomainId(1), shared, 40, 4096).expect("tests have memory");
    let log = Log::default();
    assert!(
        events
            .vcpu_info(VcpuId(33))
            .is_some_and(|info| info.place().is_none())
    );
    let port = events.bind_ipi(VcpuId(33)).expect("a free port");
    assert_eq!(events.send(port, &log), Ok(None));
    assert!(log.take().is_empty());
    let page = leaked_page();
    page.u8(64 + 1).store(0xFF, Ordering::Relaxed);
    assert_eq!(
        events.register_vcpu_info(VcpuId(33), page, 64, &log),
        Ok(())
    );
    assert_eq!(log.take(), [VcpuId(33)]);
    assert!(events.upcall_pending(VcpuId(33)) && events.is_pending(port));
    assert_eq!(page.u8(64 + 1).load(Ordering::Relaxed), 0);
    assert_eq!(
        events.register_vcpu_info(VcpuId(40), page, 64, &log),
        Err(Errno::NoEnt)
    );
}

#[test]
fn pollers_never_sleep_through_their_event() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 2_000 };
    let (events, page) = domain(1);
    let log = Log::default();
    let port = events.bind_ipi(VcpuId(0)).expect("a free port");
    page.u64(EVTCHN_MASK).store(u64::MAX, Ordering::Relaxed);
    let round = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                round.wait();
                assert_eq!(events.send(port, &log), Ok(None));
                round.wait();
            }
        });
        for _ in 0..ROUNDS {
            round.wait();
            let sleeps = events.begin_poll(VcpuId(1), &[port]).expect("a valid port");
            round.wait();
            assert!(!sleeps || !events.is_polling(VcpuId(1)));
            assert_eq!(events.pollers.load(Ordering::SeqCst), 0);
            page.u64(EVTCHN_PENDING_OFFSET).store(0, Ordering::SeqCst);
        }
    });
}

#[test]
fn senders_and_a_guest_that_looks_never_lose_an_event() {
    let (events, page) = domain(1);
    let log = Log::default();
    let ports: Vec<_> = (0..64)
        .map(|_| events.bind_ipi(VcpuId(0)).expect("a free port"))
        .collect();
    let mut seen = std::collections::HashSet::new();
    std::thread::scope(|scope| {
        for half in ports.chunks(32) {
            let (events, log) = (&events, &log);
            scope.spawn(move || {
                half.iter()
                    .for_each(|&port| assert_eq!(events.send(port, log), Ok(None)))
            });
        }
        while seen.len() < ports.len() {
            if page.u8(vcpu_info::UPCALL_PENDING).swap(0, Ordering::AcqRel) == 0 {
                std::thread::yield_now();
                continue;
            }
            let words = page.u64(vcpu_info::PENDING_SEL).swap(0, Ordering::AcqRel);
            for word in (0..64).filter(|word| words >> word & 1 != 0) {
                let bits = page
                    .u64(EVTCHN_PENDING_OFFSET + 8 * word)
                    .swap(0, Ordering::AcqRel);
                seen.extend(
                    (0..64)
                        .filter(|bit| bits >> bit & 1 != 0)
                        .map(|bit| 64 * word as u32 + bit),
                );
            }
        }
    });
    assert_eq!(seen.len(), 64);
}

const EVTCHN_PENDING_OFFSET: usize = oxen_abi::shared_info::EVTCHN_PENDING;
