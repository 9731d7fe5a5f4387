//! Both ends at once, in all orders of what they do: no event is missed, no entry is seen half written, and what a back end that is killed
//! had begun is what its successor finds.

use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

use super::*;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use crate::sync::life::{acts, killed_after};

type Memory = Arc<[AtomicU32]>;
type Front = FrontRing<Memory, 1, 1>;
type Back = BackRing<Memory, Memory, 1, 1>;

/// An event channel: pending or not.
#[derive(Clone, Default)]
struct Event(Arc<AtomicBool>);

impl Event {
    fn send(&self) {
        if acts() {
            self.0.swap(true, Ordering::AcqRel);
        }
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

fn memory(words: usize) -> Memory {
    (0..words).map(|_| AtomicU32::new(0)).collect()
}

fn ends(slots: usize) -> (Front, Back) {
    let ring = memory(16 + slots);
    let front = Front::new(ring.clone()).expect("room");
    let back = Back::attach(ring, memory(2 + slots)).expect("room");
    (front, back)
}

/// Tries all orders with at most so many moments at which a thread is held up though it could go on.
fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

/// The back end's turns, as long as it has cause for one.
fn serve(back: &mut Back, event: &Event, to_front: &Event, got: &mut Vec<u32>) {
    while event.take() {
        loop {
            while let Some([request]) = back.take().expect("an honest peer") {
                got.push(request);
                back.respond(&[request + 10]).expect("a request");
            }
            if back.publish() {
                to_front.send();
            }
            // It could look for more now.
            back.stay_awake();
            if !back.sleep().expect("an honest peer") {
                break;
            }
        }
    }
}

fn collect(front: &mut Front, event: &Event, got: &mut Vec<u32>) {
    while event.take() {
        loop {
            while let Some([response]) = front.take().expect("an honest peer") {
                got.push(response);
            }
            if !front.sleep().expect("an honest peer") {
                break;
            }
        }
    }
}

#[test]
fn no_request_is_missed() {
    model(4, || {
        let (mut front, mut back) = ends(2);
        let (to_back, to_front) = (Event::default(), Event::default());
        let asking = thread::spawn({
            let to_back = to_back.clone();
            move || {
                for request in [1, 2] {
                    front.ask(&[request]).expect("room");
                    if front.publish() {
                        to_back.send();
                    }
                }
            }
        });
        let mut got = Vec::new();
        serve(&mut back, &to_back, &to_front, &mut got);
        asking.join().expect("it ends");
        serve(&mut back, &to_back, &to_front, &mut got);
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn no_response_is_missed() {
    responses(false, |back, event, wanted| {
        if back.publish() {
            event.send();
        }
        wanted
    });
}

/// The event is sent at last, if the peer has not come by itself, as a guest does that sends more.
#[test]
fn no_response_is_missed_whose_event_is_put_off() {
    responses(true, |back, _, wanted| back.publish() || wanted);
}

/// Two responses, each shown by `show`, which is told and tells whether an event is put off. `comes`: the peer looks without one.
fn responses(
    comes: bool,
    show: impl Fn(&mut Back, &Event, bool) -> bool + Copy + Sync + Send + 'static,
) {
    model(4, move || {
        let (mut front, mut back) = ends(2);
        let to_front = Event::default();
        front.ask(&[1]).expect("room");
        front.ask(&[2]).expect("room");
        assert!(front.publish());
        let serving = thread::spawn({
            let to_front = to_front.clone();
            move || {
                let mut wanted = false;
                while let Some([request]) = back.take().expect("an honest peer") {
                    back.respond(&[request + 10]).expect("a request");
                    wanted = show(&mut back, &to_front, wanted);
                }
                if wanted && back.is_awaited() {
                    to_front.send();
                }
            }
        });
        let mut got = Vec::new();
        if comes {
            to_front.send();
        }
        collect(&mut front, &to_front, &mut got);
        serving.join().expect("it ends");
        collect(&mut front, &to_front, &mut got);
        assert_eq!(got, [11, 12]);
    });
}

/// The one slot is used again: a response overwrites only a request that was taken, a request only a response that was.
#[test]
fn a_slot_is_used_again_only_when_it_was_read() {
    model(3, || {
        let (mut front, mut back) = ends(1);
        let (to_back, to_front) = (Event::default(), Event::default());
        front.ask(&[1]).expect("room");
        assert!(front.publish());
        to_back.send();
        let asking = thread::spawn({
            let (to_back, to_front) = (to_back.clone(), to_front.clone());
            move || {
                let mut got = Vec::new();
                collect(&mut front, &to_front, &mut got);
                if front.ask(&[2]).is_ok() && front.publish() {
                    to_back.send();
                }
                (front, got)
            }
        });
        let mut requests = Vec::new();
        serve(&mut back, &to_back, &to_front, &mut requests);
        let (mut front, mut responses) = asking.join().expect("it ends");
        collect(&mut front, &to_front, &mut responses);
        if front.ask(&[2]).is_ok() && front.publish() {
            to_back.send();
        }
        serve(&mut back, &to_back, &to_front, &mut requests);
        collect(&mut front, &to_front, &mut responses);
        let asked = requests.len();
        assert!(asked == 2 || asked == 3, "{requests:?}");
        assert_eq!(requests, [1, 2, 2][..asked]);
        assert_eq!(responses, [11, 12, 12][..asked]);
    });
}

/// A back end is killed behind each of its stores while the guest collects; with what the next one does each request is answered once.
#[test]
fn a_successor_goes_on_where_a_back_end_was_killed() {
    /// More than a back end has to do here.
    const MOST: u32 = 14;
    for moment in 0..=MOST {
        model(2, move || {
            let (ring, journal) = (memory(16 + 2), memory(2 + 2));
            let mut front = Front::new(ring.clone()).expect("room");
            let (to_back, to_front) = (Event::default(), Event::default());
            for request in [1, 2] {
                front.ask(&[request]).expect("room");
            }
            assert!(front.publish());
            let collecting = thread::spawn({
                let to_front = to_front.clone();
                move || {
                    let mut got = Vec::new();
                    collect(&mut front, &to_front, &mut got);
                    (front, got)
                }
            });
            let mut requests = Vec::new();
            let mut life = || {
                let mut back = Back::attach(ring.clone(), journal.clone()).expect("room");
                to_back.send();
                serve(&mut back, &to_back, &to_front, &mut requests);
            };
            let survived = killed_after(moment, &mut life);
            assert!(survived || moment < MOST);
            life();
            let (mut front, mut got) = collecting.join().expect("it ends");
            collect(&mut front, &to_front, &mut got);
            assert_eq!(got, [11, 12]);
            assert!(requests.iter().all(|request| *request < 3), "{requests:?}");
        });
    }
}

/// Whoever sees a store of the journal's, or one that it has to come before, sees all that it has to come behind.
#[test]
fn the_journal_is_written_in_the_order_of_its_steps() {
    model(3, || {
        let (ring, journal) = (memory(16 + 4), memory(2 + 4));
        let mut front = Front::new(ring.clone()).expect("room");
        for request in [1, 2, 3] {
            front.ask(&[request]).expect("room");
        }
        assert!(front.publish());
        let mut back = Back::attach(ring.clone(), journal.clone()).expect("room");
        let looking = thread::spawn(move || {
            let slot = ring[16 + 2].load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            let shown = slot == 13;
            let count = journal[1].load(Ordering::Acquire);
            let start = journal[0].load(Ordering::Acquire);
            assert!(start == 2 || !shown && count != 1);
            if start == 2 {
                assert_eq!(journal[2].load(Ordering::Relaxed), 13);
                let count = journal[1].load(Ordering::Relaxed);
                assert_ne!(count, 2);
                if shown && count == 0 {
                    fence(Ordering::Acquire);
                    assert_eq!(ring[2].load(Ordering::Relaxed), 3);
                }
            }
        });
        // Two responses, then one, at the index 2.
        for batch in [2, 1] {
            for _ in 0..batch {
                let [request] = back.take().expect("an honest peer").expect("a request");
                back.respond(&[request + 10]).expect("a request");
            }
            let _ = back.publish();
        }
        looking.join().expect("it ends");
    });
}
