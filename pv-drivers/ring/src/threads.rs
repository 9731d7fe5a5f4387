//! Both ends at once, each on a thread: what `all_orders` does with few entries, with as many as there is time for, on the CPU's own
//! atomics. Miri has loads return old values where the orderings allow that.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::kills::{answer, entry};
use super::tests::{Back, Front, memory};

const REQUESTS: u32 = if cfg!(miri) { 12 } else { 10_000 };
/// An event that does not come for so long was lost.
const LONG: Duration = Duration::from_secs(60);
const SLOTS: usize = 4;

/// The back end: it answers until nobody can send it an event any more.
fn serve(mut back: Back, events: &Receiver<()>, to_front: &SyncSender<()>) {
    loop {
        while let Some(request) = back.take().expect("an honest peer") {
            assert_eq!(request, entry(request[0]));
            back.respond(&[answer(request[0])]).expect("a request");
        }
        if back.publish() {
            send(to_front);
        }
        if back.sleep().expect("an honest peer") {
            continue;
        }
        match events.recv_timeout(LONG) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => panic!("the back end was sent no event"),
        }
    }
}

/// An event channel is pending or not: a second event is none.
fn send(channel: &SyncSender<()>) {
    let _ = channel.try_send(());
}

#[test]
fn all_requests_are_answered_in_order() {
    let (ring, journal) = (memory(16 + SLOTS * 3), memory(2 + SLOTS));
    let mut front = Front::new(ring.clone()).expect("room");
    let back = Back::attach(ring, journal).expect("room");
    let (to_back, events_of_back) = sync_channel(1);
    let (to_front, events) = sync_channel(1);
    let serving = thread::spawn(move || serve(back, &events_of_back, &to_front));
    let (mut asked, mut got) = (0, 0);
    while got < REQUESTS {
        while asked < REQUESTS && front.ask(&entry(asked)).is_ok() {
            asked += 1;
        }
        if front.publish() {
            send(&to_back);
        }
        while let Some(response) = front.take().expect("an honest peer") {
            assert_eq!(response, [answer(got)]);
            got += 1;
        }
        if got < asked && !front.sleep().expect("an honest peer") {
            let event = events.recv_timeout(LONG);
            event.expect("the front end was sent an event");
        }
    }
    drop(to_back);
    serving.join().expect("it ends");
}
