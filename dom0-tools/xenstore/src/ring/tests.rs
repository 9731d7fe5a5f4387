//! A ring between an honest daemon and any guest.

use super::*;
use proptest::prelude::*;

fn pair(start: u32) -> (ServerRing<Arc<RingPage>>, GuestRing<Arc<RingPage>>) {
    let page = Arc::new(RingPage::default());
    page.response_producer.store(start, Ordering::Relaxed);
    let guest = GuestRing(page.clone());
    guest.set_indices(start, start);
    (ServerRing::resume(page, start, start), guest)
}

proptest! {
    #[test]
    fn bytes_arrive_in_order_both_ways_over_the_wrap(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..12),
        start in prop_oneof![Just(0u32), Just(u32::MAX - 700), any::<u32>()],
    ) {
        let (mut server, guest) = pair(start);
        for part in &parts {
            let (mut sent, mut got) = (0, vec![]);
            while sent < part.len() {
                sent += guest.send(&part[sent..]);
                got.extend(server.receive().map_err(|fault| TestCaseError::fail(fault.to_string()))?);
                prop_assert!(server.release().news);
            }
            prop_assert_eq!(&got, part);
            let (mut sent, mut got) = (0, vec![]);
            while sent < part.len() {
                sent += server.send(&part[sent..]).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
                got.extend(guest.receive());
            }
            prop_assert_eq!(&got, part);
        }
    }

    #[test]
    fn no_index_of_the_guest_leads_outside(steps in prop::collection::vec((any::<u32>(), any::<u32>(), 0usize..3000), 1..20)) {
        let (mut server, guest) = pair(0);
        for (producer, consumer, len) in steps {
            guest.set_indices(producer, consumer);
            let before = server.consumed();
            match server.receive() {
                Ok(bytes) => prop_assert!(bytes.len() <= RING_SIZE && producer.wrapping_sub(before) <= FULL),
                Err(fault) => prop_assert_eq!(fault, Fault::Index),
            }
            match server.send(&vec![1; len]) {
                Ok(count) => prop_assert!(count <= len.min(RING_SIZE)),
                Err(fault) => prop_assert_eq!(fault, Fault::Index),
            }
        }
    }
}

#[test]
fn the_room_of_requests_is_free_only_after_release() {
    let (mut server, guest) = pair(0);
    assert_eq!(guest.send(&[7; 2000]), RING_SIZE);
    assert_eq!(server.receive().map(|bytes| bytes.len()), Ok(RING_SIZE));
    assert_eq!(guest.send(&[8; 10]), 0);
    let idle = Released {
        news: false,
        more: false,
    };
    assert_eq!(server.release(), Released { news: true, ..idle });
    assert_eq!(server.release(), idle);
    assert_eq!(guest.send(&[8; 10]), 10);
    assert_eq!(server.release(), Released { more: true, ..idle });
}

#[test]
fn a_full_response_ring_takes_nothing_and_reconnection_empties_it() {
    let (mut server, guest) = pair(5);
    assert_eq!(server.send(&[1; 3000]), Ok(RING_SIZE));
    assert_eq!(server.send(&[1]), Ok(0));
    guest.ask_reconnection();
    assert!(server.wants_reconnection());
    server.show_fault(Fault::Protocol);
    assert_eq!(guest.status(), (1, 3));
    server.reconnect();
    assert_eq!(guest.status(), (0, 0));
    assert!(guest.receive().is_empty());
    assert_eq!(server.send(&[1]), Ok(1));
}
