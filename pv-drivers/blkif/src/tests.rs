//! Layouts as the public header has them, and requests that survive the way there and back.

use proptest::prelude::*;

use super::*;

const MOST: u16 = 256;
/// Segments of a property test: Miri takes its time.
const SEGMENTS: usize = if cfg!(miri) { 30 } else { 600 };

/// A request's bytes, written down by hand.
fn words(bytes: &[(usize, &[u8])]) -> [u32; REQUEST_WORDS_64] {
    let mut all = [0_u8; 4 * REQUEST_WORDS_64];
    for (at, part) in bytes {
        all[*at..at + part.len()].copy_from_slice(part);
    }
    let (chunks, _) = all.as_chunks::<4>();
    std::array::from_fn(|nth| u32::from_le_bytes(chunks[nth]))
}

fn segment(reference: u32, first: u8, last: u8) -> Segment {
    Segment::new(reference, first, last).expect("sectors of a page")
}

#[test]
fn a_write_is_read_as_both_layouts_have_it() {
    let write = Request {
        id: 0x1122_3344_5566_7788,
        sector: 0x0102_0304_0506,
        body: Body::Direct {
            kind: Kind::Write,
            segments: [segment(9, 0, 7), segment(10, 2, 2)].into_iter().collect(),
        },
    };
    let (id, sector) = (write.id.to_le_bytes(), write.sector.to_le_bytes());
    // operation, nr_segments, handle
    let head: &[u8] = &[1, 2, 0xAA, 0xBB];
    let first: &[u8] = &[9, 0, 0, 0, 0, 7];
    let second: &[u8] = &[10, 0, 0, 0, 2, 2];
    let long = words(&[
        (0, head),
        (8, &id),
        (16, &sector),
        (24, first),
        (32, second),
    ]);
    assert_eq!(Abi::X86_64.parse(&long, MOST), Ok(write.clone()));
    let short = words(&[
        (0, head),
        (4, &id),
        (12, &sector),
        (20, first),
        (28, second),
    ]);
    assert_eq!(Abi::X86_32.parse(&short, MOST), Ok(write));
}

#[test]
fn indirect_requests_and_discards_are_read_as_both_layouts_have_them() {
    // operation, indirect_op, nr_segments
    let head: &[u8] = &[6, 0, 1, 2];
    let (one, two): (&[u8], &[u8]) = (&[77, 0, 0, 0], &[78, 0, 0, 0]);
    let expected = Body::Indirect {
        kind: Kind::Read,
        count: 513,
        pages: [77, 78].into_iter().collect(),
    };
    let long = words(&[(0, head), (28, one), (32, two)]);
    assert_eq!(
        Abi::X86_64.parse(&long, 1024).expect("right").body,
        expected
    );
    let short = words(&[(0, head), (24, one), (28, two)]);
    assert_eq!(
        Abi::X86_32.parse(&short, 1024).expect("right").body,
        expected
    );

    let expected = Body::Discard {
        sectors: 4096,
        secure: true,
    };
    let count: &[u8] = &[0, 16, 0, 0, 0, 0, 0, 0];
    let long = words(&[(0, &[5, 1]), (24, count)]);
    assert_eq!(
        Abi::X86_64.parse(&long, MOST).expect("right").body,
        expected
    );
    let short = words(&[(0, &[5, 1]), (20, count)]);
    assert_eq!(
        Abi::X86_32.parse(&short, MOST).expect("right").body,
        expected
    );
}

#[test]
fn a_response_is_written_as_the_header_has_it() {
    let response = Response {
        id: 0x1122_3344_5566_7788,
        operation: 3,
        status: Status::NotSupported,
    };
    for abi in [Abi::X86_64, Abi::X86_32] {
        let entry = abi.answer(&response);
        assert_eq!(entry, [0x5566_7788, 0x1122_3344, 0xFFFE_0003, 0]);
        assert_eq!(abi.parse_answer(&entry), Some(response));
    }
    assert_eq!(Abi::X86_64.parse_answer(&[0, 0, 0x0001_0000]), None);
}

#[test]
fn what_cannot_be_done_is_named() {
    let reason = |bytes: &[(usize, &[u8])]| {
        Abi::X86_64
            .parse(&words(bytes), MOST)
            .map(|_| ())
            .map_err(|wrong| wrong.reason)
    };
    assert_eq!(reason(&[(0, &[4])]), Err(Reason::Operation));
    assert_eq!(reason(&[(0, &[0, 12])]), Err(Reason::SegmentCount(12)));
    assert_eq!(reason(&[(0, &[1, 0])]), Err(Reason::SegmentCount(0)));
    for flushing in [2, 3] {
        assert_eq!(reason(&[(0, &[flushing, 0])]), Ok(()));
    }
    assert_eq!(
        reason(&[(0, &[6, 3, 1, 0])]),
        Err(Reason::IndirectOperation(3))
    );
    assert_eq!(
        reason(&[(0, &[6, 0, 1, 1])]),
        Err(Reason::SegmentCount(257))
    );
    for (first, last) in [(0, 8), (3, 2), (255, 255)] {
        let segment = [0, 0, 0, 0, first, last];
        assert_eq!(
            reason(&[(0, &[0, 1]), (24, &segment)]),
            Err(Reason::Segment { first, last })
        );
    }
}

#[test]
fn layouts_are_known_by_name() {
    for abi in [Abi::X86_64, Abi::X86_32] {
        assert_eq!(Abi::from_name(abi.name()), Some(abi));
    }
    assert_eq!(Abi::from_name("arm-abi"), None);
}

fn a_segment() -> impl Strategy<Value = Segment> {
    (any::<u32>(), 0..8_u8, 0..8_u8)
        .prop_map(|(reference, a, b)| segment(reference, a.min(b), a.max(b)))
}

fn body() -> impl Strategy<Value = Body> {
    const KINDS: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Barrier, Kind::Flush];
    let kind = prop::sample::select(&KINDS[..]);
    let few = prop::collection::vec(a_segment(), 1..=DIRECT_SEGMENTS);
    prop_oneof![
        (kind, few).prop_map(|(kind, segments)| Body::Direct {
            kind,
            segments: segments.into_iter().collect(),
        }),
        (any::<bool>(), 1..=4096_u16, any::<[u32; 8]>()).prop_map(|(read, count, pages)| {
            Body::Indirect {
                kind: if read { Kind::Read } else { Kind::Write },
                count,
                pages: (pages.into_iter())
                    .take(usize::from(count).div_ceil(SEGMENTS_PER_PAGE))
                    .collect(),
            }
        }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(sectors, secure)| Body::Discard { sectors, secure }),
    ]
}

proptest! {
    #[test]
    fn requests_survive_the_way(id: u64, sector: u64, body in body(), long: bool) {
        let request = Request { id, sector, body };
        let abi = if long { Abi::X86_64 } else { Abi::X86_32 };
        let entry = abi.entry(&request);
        let size = if long { REQUEST_WORDS_64 } else { REQUEST_WORDS_32 };
        prop_assert_eq!(abi.parse(&entry[..size], u16::MAX), Ok(request));
    }

    #[test]
    fn segments_survive_the_way(all in prop::collection::vec(a_segment(), 0..SEGMENTS)) {
        let words = all.iter().flat_map(|segment| segment.words());
        let page: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        let back: Result<Vec<_>, _> = segments(&page).collect();
        prop_assert_eq!(back, Ok(all));
    }
}
