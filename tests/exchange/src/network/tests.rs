use super::*;

const ENDS: (Mac, Mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

fn frames(message: Message, whole: bool, blank: bool) -> Vec<Vec<u8>> {
    let mut frame = [0; FRAME];
    parts(message, whole)
        .map(|part| {
            let length = put(&mut frame, ENDS, part, blank);
            frame[..length].to_vec()
        })
        .collect()
}

fn ask(number: u16) -> Message {
    Message {
        number,
        answer: false,
    }
}

#[test]
fn messages_come_whole_or_in_packets_with_and_without_checksums() {
    for (whole, blank) in [(false, false), (false, true), (true, true)] {
        let mut side = Side::answering(ENDS.1);
        for number in 0..26 {
            let frames = frames(ask(number), whole, blank);
            let (last, others) = frames.split_last().expect("a frame");
            for frame in others {
                assert_eq!(side.take(frame, blank), Ok(None));
            }
            // Short frames are filled up on a wire.
            let mut last = last.clone();
            last.resize(last.len().max(60), 0);
            assert_eq!(
                side.take(&last, blank),
                Ok(Some((ask(number), ENDS.0))),
                "{number}"
            );
        }
        assert_eq!(side.count().messages, 26);
        assert_eq!(side.count().large > 0, whole);
        assert_eq!(side.count().blank > 0, blank);
    }
}

#[test]
fn what_is_left_in_one_piece_is_said_to_be_large() {
    for number in 0..13 {
        for message in [false, true].map(|answer| Message { number, answer }) {
            for whole in [false, true] {
                let parts = parts(message, whole);
                assert!(parts.into_iter().all(|part| {
                    let length = put(&mut [0; FRAME], ENDS, part, true);
                    part.is_large() == (length > 1514)
                }));
            }
        }
    }
}

#[test]
fn each_byte_counts() {
    for number in 0..13 {
        for frame in &frames(ask(number), false, false)[..1] {
            let headers = 12..frame.len().min(80);
            for at in headers.chain((80..frame.len()).step_by(101)) {
                let mut spoilt = frame.clone();
                spoilt[at] ^= 0x40;
                let mut side = Side::answering(ENDS.1);
                side.inbox = Inbox::new(ask(number));
                let taken = side.take(&spoilt, false);
                assert!(!matches!(taken, Ok(Some(_))), "byte {at} of {number}");
            }
        }
    }
}

#[test]
fn content_counts_without_a_checksum_too() {
    let mut frame = frames(ask(2), false, true).remove(0);
    *frame.last_mut().expect("bytes") ^= 1;
    assert_eq!(
        Side::answering(ENDS.1).take(&frame, true),
        Ok(None),
        "message 2 is not waited for yet"
    );
    let mut side = Side::answering(ENDS.1);
    side.inbox = Inbox::new(ask(2));
    assert_eq!(side.take(&frame, true), Err(Wrong::Content(ask(2), 1471)));
}

#[test]
fn what_was_lost_is_asked_again() {
    let mut side = Side::answering(ENDS.1);
    side.inbox = Inbox::new(ask(3));
    let frames = frames(ask(3), false, false);
    assert!(frames.len() > 3);
    for (nth, frame) in frames.iter().enumerate() {
        if nth != 1 {
            assert_eq!(side.take(frame, false), Ok(None));
        }
    }
    // All of it again: what there is already is not taken twice.
    let (last, others) = frames.split_last().expect("frames");
    for frame in others {
        assert_eq!(side.take(frame, false), Ok(None));
    }
    assert_eq!(side.take(last, false), Ok(Some((ask(3), ENDS.0))));
    // Its answer was lost.
    assert_eq!(side.take(&frames[0], false), Ok(None));
    assert_eq!(side.take(last, false), Ok(Some((ask(3), ENDS.0))));
    assert_eq!(side.count().messages, 1);
}

#[test]
fn strangers_are_not_heard() {
    let mut side = Side::answering(ENDS.1);
    for frame in [&[][..], &[0; 60], &[0xFF; 200]] {
        assert_eq!(side.take(frame, false), Ok(None));
    }
    for frame in frames(ask(0), false, false) {
        assert_eq!(Side::answering(ENDS.0).take(&frame, false), Ok(None));
    }
    let answer = Message {
        number: 0,
        answer: true,
    };
    let mut asking = Side::asking(ENDS.1);
    let mut taken = Ok(None);
    for frame in frames(answer, false, false) {
        assert_eq!(side.take(&frame, false), Ok(None));
        taken = asking.take(&frame, false);
    }
    assert_eq!(taken, Ok(Some((answer, ENDS.0))));
}
