//! Both ends at once, in all orders of what they do: no event is missed, no entry is seen half written.

use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

use super::*;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};

type Memory = Arc<[AtomicU32]>;
type Front = FrontRing<Memory, 1, 1>;
type Back = BackRing<Memory, 1, 1>;

/// An event channel: pending or not.
#[derive(Clone, Default)]
struct Event(Arc<AtomicBool>);

impl Event {
    fn send(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

fn ends(slots: usize) -> (Front, Back) {
    let memory: Memory = (0..16 + slots).map(|_| AtomicU32::new(0)).collect();
    let front = Front::new(memory.clone()).expect("room");
    let back = Back::attach(memory).expect("room");
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
    model(4, || {
        let (mut front, mut back) = ends(2);
        let to_front = Event::default();
        front.ask(&[1]).expect("room");
        front.ask(&[2]).expect("room");
        assert!(front.publish());
        let serving = thread::spawn({
            let to_front = to_front.clone();
            move || {
                while let Some([request]) = back.take().expect("an honest peer") {
                    back.respond(&[request + 10]).expect("a request");
                    if back.publish() {
                        to_front.send();
                    }
                }
            }
        });
        let mut got = Vec::new();
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
