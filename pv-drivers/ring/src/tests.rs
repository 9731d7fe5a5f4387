//! Rings against queues, and with a peer that lies.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::sync::atomic::{AtomicU32, Ordering};

pub type Memory = Arc<[AtomicU32]>;

/// Steps of a property test, and lies: Miri takes its time.
const STEPS: usize = if cfg!(miri) { 60 } else { 300 };
const LIES: usize = if cfg!(miri) { 10 } else { 60 };

pub fn memory(words: usize) -> Memory {
    (0..words).map(|_| AtomicU32::new(0)).collect()
}

pub type Front = FrontRing<Memory, 3, 1>;
pub type Back = BackRing<Memory, Memory, 3, 1>;

/// Room for any of these rings' responses.
fn journal() -> Memory {
    memory(2 + 256)
}

#[test]
fn geometry_is_that_of_the_public_headers() {
    let page = 1024;
    // blkif: 112 bytes; netif: 12 and 8 bytes; blkif for 32-bit guests: 108 bytes.
    assert_eq!(slots(page, 28), Some(32));
    assert_eq!(slots(page, 27), Some(32));
    assert_eq!(slots(page, 3), Some(256));
    assert_eq!(slots(page, 2), Some(256));
    assert_eq!(slots(16 * page, 28), Some(512));
    assert_eq!(slots(16 + 27, 28), None);
    assert_eq!(slots(page, 0), None);
    assert_eq!(Back::attach(memory(18), journal()).err(), Some(TooSmall));
}

#[test]
fn fields_are_where_the_public_header_has_them() {
    let memory = memory(1024);
    let mut front = FrontRing::<_, 28, 4>::new(memory.clone()).expect("a page");
    let words = |from: usize| -> Vec<u32> {
        let range = &memory[from..from + 4];
        range
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .collect()
    };
    assert_eq!(words(0), [0, 1, 0, 1]);
    front.ask(&[1; 28]).expect("room");
    front.ask(&[7; 28]).expect("room");
    assert!(front.publish());
    let mut back = BackRing::<_, _, 28, 4>::attach(memory.clone(), journal()).expect("a page");
    assert_eq!(back.take(), Ok(Some([1; 28])));
    assert_eq!(back.sleep(), Ok(true));
    back.respond(&[9; 4]).expect("a request");
    assert!(back.publish());
    assert_eq!(words(0), [2, 1, 1, 1]);
    assert_eq!(words(16), [9; 4]);
    assert_eq!(words(16 + 28), [7; 4]);
}

#[test]
fn who_looks_by_itself_is_sent_no_event_until_it_sleeps() {
    for start in [0, u32::MAX - 1] {
        let memory = memory(1024);
        let mut front = Front::starting_at(memory.clone(), start).expect("a page");
        let mut back = Back::attach(memory, journal()).expect("a page");
        let mut send = || {
            front.ask(&[0; 3]).expect("room");
            front.publish()
        };
        assert_eq!(back.sleep(), Ok(false));
        back.stay_awake();
        for _ in 0..3 {
            assert!(!back.stirs());
            assert!(!send());
            assert!(back.stirs());
            back.take().expect("an honest peer");
        }
        assert_eq!(back.sleep(), Ok(false));
        assert!(send());
    }
}

#[test]
fn an_event_that_was_put_off_is_awaited_until_the_peer_asks_for_a_later_one() {
    for start in [0, u32::MAX - 1] {
        let memory = memory(1024);
        let mut front = Front::starting_at(memory.clone(), start).expect("a page");
        let mut back = Back::attach(memory, journal()).expect("a page");
        // What an earlier back end may have left is sent.
        assert!(back.publish());
        for _ in 0..3 {
            assert!(!back.is_awaited());
            front.ask(&[0; 3]).expect("room");
            let _ = front.publish();
            back.take().expect("an honest peer");
            back.respond(&[0]).expect("a request");
            assert!(!back.is_awaited());
            assert!(back.publish());
            assert!(back.is_awaited());
            front.take().expect("an honest peer");
            assert!(back.is_awaited());
            assert_eq!(front.sleep(), Ok(false));
        }
    }
}

#[test]
fn a_successor_takes_what_has_no_answer() {
    let memory = memory(1024);
    let mut front = Front::new(memory.clone()).expect("a page");
    for number in 0..4 {
        front.ask(&[number; 3]).expect("room");
    }
    assert!(front.publish());
    let mut first = Back::attach(memory.clone(), journal()).expect("a page");
    for _ in 0..3 {
        first.take().expect("an honest peer");
    }
    first.respond(&[0]).expect("a request");
    assert!(first.publish());
    // Written and never shown: it is as if it had not been.
    first.respond(&[1]).expect("a request");
    let mut second = Back::attach(memory, journal()).expect("a page");
    assert_eq!(second.take(), Ok(Some([1; 3])));
}

/// The earlier back end has shown an answer and died before it sent the event that the peer waits for.
#[test]
fn a_successor_owes_an_event() {
    let memory = memory(1024);
    let mut front = Front::new(memory.clone()).expect("a page");
    for number in 0..2 {
        front.ask(&[number; 3]).expect("room");
    }
    assert!(front.publish());
    assert!(!front.sleep().expect("an honest peer"));
    let mut first = Back::attach(memory.clone(), journal()).expect("a page");
    assert!(first.publish());
    assert!(!first.publish());
    first.take().expect("an honest peer");
    first.respond(&[0]).expect("a request");
    assert!(first.publish());
    let mut second = Back::attach(memory, journal()).expect("a page");
    assert!(second.publish());
    // It was that one event.
    second.take().expect("an honest peer");
    second.respond(&[1]).expect("a request");
    assert!(!second.publish());
}

#[test]
fn nothing_is_answered_that_was_not_asked() {
    let memory = memory(1024);
    let mut front = Front::new(memory.clone()).expect("a page");
    let mut back = Back::attach(memory.clone(), journal()).expect("a page");
    assert_eq!(back.respond(&[1]), Err(Unasked));
    memory[2].store(1, Ordering::Relaxed);
    assert!(front.take().is_err());
    front.ask(&[0; 3]).expect("room");
    // Written, not yet shown: nobody can have answered it.
    assert!(front.sleep().is_err());
}

/// Nobody can have made room with answers that were not shown; there is none for them in the journal.
#[test]
fn answers_that_are_not_shown_make_no_room() {
    let memory = memory(16 + 4 * 3);
    let mut front = Front::new(memory.clone()).expect("room");
    let mut back = Back::attach(memory.clone(), journal()).expect("room");
    while front.ask(&[0; 3]).is_ok() {}
    let _ = front.publish();
    while let Some(request) = back.take().expect("an honest peer") {
        back.respond(&[request[0]]).expect("a request");
    }
    memory[0].store(5, Ordering::Relaxed);
    let ahead = Fault {
        theirs: 5,
        ours: 4,
        room: 0,
    };
    assert_eq!(back.take(), Err(ahead));
    let _ = back.publish();
    assert!(back.take().expect("a request").is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u32),
    AskPublish,
    Take,
    Respond,
    RespondPublish,
    Collect,
}

/// By one number, not by `prop_oneof`, which makes generators of random numbers for each step: Miri would do little else.
fn step() -> impl Strategy<Value = Step> {
    (0_u8..20, any::<u32>()).prop_map(|(which, number)| match which {
        0..4 => Step::Ask(number),
        4..6 => Step::AskPublish,
        6..10 => Step::Take,
        10..14 => Step::Respond,
        14..16 => Step::RespondPublish,
        _ => Step::Collect,
    })
}

proptest! {
    #[test]
    fn two_honest_ends_are_queues(
        words in 19_usize..80,
        start: u32,
        steps in prop::collection::vec(step(), 0..STEPS),
    ) {
        let memory = memory(words);
        let mut front = Front::starting_at(memory.clone(), start).expect("an entry fits");
        let mut back = Back::attach(memory, journal()).expect("an entry fits");
        let mut written = VecDeque::new();
        let mut shown = VecDeque::new();
        let mut taken = VecDeque::new();
        let mut answered = VecDeque::new();
        let mut answers = VecDeque::new();
        let mut open = 0;
        for step in steps {
            match step {
                Step::Ask(number) => {
                    let room = open < front.slots();
                    prop_assert_eq!(front.ask(&[number, !number, number ^ 5]).is_ok(), room);
                    if room {
                        written.push_back(number);
                        open += 1;
                    }
                }
                Step::AskPublish => {
                    let _ = front.publish();
                    shown.append(&mut written);
                }
                Step::Take => {
                    let expected = shown.pop_front();
                    let entry = expected.map(|number| [number, !number, number ^ 5]);
                    prop_assert_eq!(back.take(), Ok(entry));
                    taken.extend(expected);
                }
                Step::Respond => {
                    let request = taken.pop_front();
                    let response = request.unwrap_or(0).wrapping_mul(3);
                    prop_assert_eq!(back.respond(&[response]).is_ok(), request.is_some());
                    answered.extend(request.map(|_| response));
                }
                Step::RespondPublish => {
                    let _ = back.publish();
                    answers.append(&mut answered);
                }
                Step::Collect => {
                    let expected: Option<u32> = answers.pop_front();
                    prop_assert_eq!(front.take(), Ok(expected.map(|answer| [answer])));
                    open -= u32::from(expected.is_some());
                }
            }
        }
    }

    #[test]
    fn a_lying_front_end_gets_no_more_than_a_ring(
        start: u32,
        lies in prop::collection::vec((0_usize..83, any::<u32>()), 0..LIES),
        small in prop::collection::vec((0_usize..4, 0_u32..70), 0..LIES),
    ) {
        let memory = memory(83);
        Front::starting_at(memory.clone(), start).expect("an entry fits");
        let mut back = Back::attach(memory.clone(), journal()).expect("an entry fits");
        let near = small.into_iter().map(|(word, ahead)| (word, start.wrapping_add(ahead)));
        for (word, lie) in lies.into_iter().chain(near) {
            memory[word].store(lie, Ordering::Relaxed);
            let mut count = 0;
            while let Ok(Some(_)) = back.take() {
                count += 1;
            }
            prop_assert!(count <= back.slots());
            prop_assert!(back.outstanding() <= back.slots());
            let _ = back.sleep();
            while back.respond(&[1]).is_ok() {}
            let _ = back.publish();
        }
    }

    #[test]
    fn a_lying_back_end_gives_no_more_than_was_asked(
        lies in prop::collection::vec((0_usize..4, any::<u32>()), 0..LIES),
        small in prop::collection::vec((0_usize..4, 0_u32..70), 0..LIES),
    ) {
        let memory = memory(83);
        let mut front = Front::new(memory.clone()).expect("an entry fits");
        let mut open = 0;
        for (word, lie) in lies.into_iter().chain(small) {
            memory[word].store(lie, Ordering::Relaxed);
            while front.ask(&[7; 3]).is_ok() {
                open += 1;
            }
            let _ = front.publish();
            while let Ok(Some(_)) = front.take() {
                prop_assert!(open > 0);
                open -= 1;
            }
            let _ = front.sleep();
        }
    }
}
