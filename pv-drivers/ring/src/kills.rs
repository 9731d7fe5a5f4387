//! Back ends that are killed behind each of their stores, and successors that take the ring up.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::{Back, Front, Memory, memory};
use super::*;
use crate::sync::atomic::Ordering;
use crate::sync::life::{acts, killed_after};

/// Words of a ring of four requests, of three words each.
const RING: usize = 16 + 4 * 3;
/// Words of its journal.
const JOURNAL: usize = 2 + 4;

/// How far apart the moments are at which back ends are killed: Miri takes its time.
const STRIDE: usize = if cfg!(miri) { 3 } else { 1 };
/// Lives of a property test.
const LIVES: usize = if cfg!(miri) { 15 } else { 60 };

pub fn entry(number: u32) -> [u32; 3] {
    [number, !number, number ^ 5]
}

pub fn answer(number: u32) -> u32 {
    number.wrapping_mul(3)
}

/// What was found wrong.
type Found = Result<(), String>;

/// A guest that asks and collects, and the memory of its device.
struct Device {
    ring: Memory,
    journal: Memory,
    front: Front,
    asked: u32,
    /// Requests whose answers it has not got, oldest first.
    open: VecDeque<u32>,
    /// An event was sent to the guest.
    event: bool,
}

impl Device {
    fn new(start: u32) -> Self {
        let ring = memory(RING);
        Self {
            front: Front::starting_at(ring.clone(), start).expect("room"),
            ring,
            journal: memory(JOURNAL),
            asked: 0,
            open: VecDeque::new(),
            event: false,
        }
    }

    /// With the journal that somebody else has left.
    fn with_journal(start: u32, words: [u32; JOURNAL]) -> Self {
        let device = Self::new(start);
        for (word, content) in device.journal.iter().zip(words) {
            word.store(content, Ordering::Relaxed);
        }
        device
    }

    fn ask(&mut self, count: u32) {
        for _ in 0..count {
            if self.front.ask(&entry(self.asked)).is_ok() {
                self.open.push_back(self.asked);
                self.asked += 1;
            }
        }
        let _ = self.front.publish();
    }

    /// What a guest does that was sent an event: it takes the answers, and sleeps.
    fn collect(&mut self) -> Found {
        if !std::mem::take(&mut self.event) {
            return Ok(());
        }
        loop {
            while let Some(found) = self.front.take().map_err(|fault| fault.to_string())? {
                let request = self.open.pop_front().ok_or("an answer too many")?;
                if found != [answer(request)] {
                    return Err(format!("{found:?} is the answer to request {request}"));
                }
            }
            if !self.front.sleep().map_err(|fault| fault.to_string())? {
                return Ok(());
            }
        }
    }

    /// A back end's life: it answers all there is, so many requests at a time.
    fn serve(&mut self, batch: usize) -> Found {
        let back = Back::attach(self.ring.clone(), self.journal.clone());
        let mut back = back.map_err(|small| small.to_string())?;
        loop {
            let mut taken = Vec::new();
            while taken.len() < batch
                && let Some(request) = back.take().map_err(|fault| fault.to_string())?
            {
                if request != entry(request[0]) {
                    return Err(format!("{request:?} is no request"));
                }
                taken.push(request[0]);
            }
            for &request in &taken {
                let response = [answer(request)];
                back.respond(&response).map_err(|error| error.to_string())?;
            }
            if back.publish() && acts() {
                self.event = true;
            }
            if taken.is_empty() && !back.sleep().map_err(|fault| fault.to_string())? {
                return Ok(());
            }
        }
    }

    /// A back end that is killed behind so many stores and events. True if it had no more to do.
    fn serve_until(&mut self, acts: u32, batch: usize) -> Result<bool, String> {
        let mut found = Ok(());
        let survived = killed_after(acts, || found = self.serve(batch));
        found.map(|()| survived)
    }

    /// One that is not killed, after which all is answered; and once more.
    fn ends_well(&mut self) -> Found {
        for more in [0, 4] {
            self.ask(more);
            self.serve(4)?;
            self.collect()?;
            if !self.open.is_empty() {
                return Err(format!("requests {:?} were not answered", self.open));
            }
        }
        Ok(())
    }
}

/// Two back ends are killed, one after the other, at each pair of moments; what they did not do a third one does. How many pairs there
/// are; or the first that ended badly.
fn all_deaths(new: impl Fn() -> Device, kept: bool) -> Result<usize, String> {
    let mut pairs = 0;
    for first in (0..).step_by(STRIDE) {
        let mut survived = false;
        for second in (0..).step_by(STRIDE) {
            let mut device = new();
            device.ask(4);
            let ended = (|| {
                survived = device.serve_until(first, 3)?;
                if !kept {
                    device.journal = memory(JOURNAL);
                }
                let survived = device.serve_until(second, 2)?;
                device.ends_well()?;
                Ok(survived)
            })();
            pairs += 1;
            let behind_all = ended
                .map_err(|error: String| format!("killed behind {first} and {second}: {error}"))?;
            if behind_all {
                break;
            }
        }
        if survived {
            return Ok(pairs);
        }
    }
    Ok(pairs)
}

#[test]
fn each_request_is_answered_once_whenever_back_ends_are_killed() {
    // Indices that wrap in the midst of a batch.
    let pairs = all_deaths(|| Device::new(u32::MAX - 1), true).expect("nothing is lost");
    let least = 200 / STRIDE.pow(2);
    assert!(pairs > least, "{pairs}");
}

/// The journal is what does it.
#[test]
fn without_the_journal_answers_are_read_as_requests() {
    let error = all_deaths(|| Device::new(0), false).expect_err("the journal was not kept");
    assert!(error.contains("is no request"), "{error}");
}

#[test]
fn what_another_ring_has_left_in_the_journal_never_counts() {
    let counts = [1, 4, 5, u32::MAX];
    let starts = [1, 0xFFFF_FFFF];
    for &count in counts.iter().step_by(STRIDE) {
        for &start in starts.iter().step_by(STRIDE) {
            let old = [start, count, 7, 7, 7, 7];
            all_deaths(|| Device::with_journal(0, old), true)
                .unwrap_or_else(|error| panic!("{old:?}: {error}"));
        }
    }
}

#[test]
fn a_journal_has_room_for_a_ring_of_responses() {
    assert_eq!(journal_words(RING, 3, 1), Some(JOURNAL));
    assert_eq!(journal_words(1024, 28, 4), Some(2 + 32 * 4));
    assert_eq!(journal_words(1024, 2, 2), Some(2 + 256 * 2));
    assert_eq!(journal_words(16, 2, 2), None);
    let small = Back::attach(memory(RING), memory(JOURNAL - 1));
    assert_eq!(small.err(), Some(TooSmall));
}

proptest! {
    /// Any number of back ends that are killed while the guest goes on.
    #[test]
    fn nothing_is_lost_over_many_lives(
        start: u32,
        lives in prop::collection::vec((0_u32..40, 1_usize..5, 0_u32..5), 1..LIVES),
    ) {
        let mut device = Device::new(start);
        for (acts, batch, more) in lives {
            device.ask(more);
            prop_assert!(device.serve_until(acts, batch).is_ok());
            prop_assert_eq!(device.collect(), Ok(()));
        }
        prop_assert_eq!(device.ends_well(), Ok(()));
    }

    /// A journal that was damaged: as many answers at worst as the ring has requests, in the ring and nowhere else.
    #[test]
    fn any_journal_is_survived(
        start: u32,
        near in 0_u32..3,
        count in prop_oneof![0_u32..7, any::<u32>()],
        words: [u32; 4],
    ) {
        let mut journal = [start.wrapping_add(near), count, 0, 0, 0, 0];
        journal[2..].copy_from_slice(&words);
        let mut device = Device::with_journal(start, journal);
        device.ask(4);
        let before: Vec<u32> = device.ring.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let mut back = Back::attach(device.ring.clone(), device.journal.clone()).expect("room");
        let after: Vec<u32> = device.ring.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let shown = if near == 0 && count <= 4 { count } else { 0 };
        prop_assert_eq!(after[2], start.wrapping_add(shown));
        if shown == 0 {
            prop_assert_eq!(before, after);
        }
        let mut left = 0;
        while let Some(request) = back.take().expect("an honest peer") {
            prop_assert_eq!(request, entry(request[0]));
            left += 1;
        }
        prop_assert_eq!(left, 4 - shown);
        prop_assert_eq!(device.journal[1].load(Ordering::Relaxed), 0);
    }
}
