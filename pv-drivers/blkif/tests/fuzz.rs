//! Entries of rings, in any shape. `tests/fuzz` of the workspace says how inputs are made and kept.

use oxen_blkif::{Abi, Body, Request, Wrong};
use oxen_fuzz::Target;

/// Segments of an indirect request at most.
const MOST: u16 = 256;

#[test]
fn requests() {
    Target::new(env!("CARGO_MANIFEST_DIR"), "requests")
        .iterations(100_000)
        .run(request);
}

/// What is taken is within the protocol's bounds and is the same when it is written and read again.
fn request(input: &[u8]) -> String {
    let (abi, input) = match input.split_first() {
        Some((first, rest)) if first % 2 == 1 => (Abi::X86_32, rest),
        Some((_, rest)) => (Abi::X86_64, rest),
        None => return String::new(),
    };
    let entry: Vec<u32> = input
        .chunks(4)
        .map(|chunk| {
            let mut bytes = [0; 4];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(bytes)
        })
        .collect();
    match abi.parse(&entry, MOST) {
        Ok(request) => {
            bounded(&request);
            assert_eq!(abi.parse(&abi.entry(&request), MOST).as_ref(), Ok(&request));
            let mut shape = request;
            (shape.id, shape.sector) = (0, 0);
            format!("{:?}", std::mem::discriminant(&shape.body))
        }
        Err(Wrong { reason, .. }) => format!("{:?}", std::mem::discriminant(&reason)),
    }
}

fn bounded(request: &Request) {
    match &request.body {
        Body::Direct { segments, .. } => {
            for segment in segments {
                assert!(usize::from(segment.offset()) + segment.bytes() <= 4096);
                assert!(segment.sectors() >= 1);
            }
        }
        Body::Indirect { count, pages, .. } => {
            assert!((1..=MOST).contains(count));
            assert_eq!(pages.len(), usize::from(*count).div_ceil(512));
        }
        Body::Discard { .. } => {}
    }
}
