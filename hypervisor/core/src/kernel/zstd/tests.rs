use super::super::testing::generated;
use super::*;
use proptest::prelude::*;

const BRANCHES: &[u8] = include_bytes!("../fixtures/branches.zst");
const NOISE: &[u8] = include_bytes!("../fixtures/noise.zst");
const SPARSE: &[u8] = include_bytes!("../fixtures/sparse.zst");

fn branches() -> Vec<u8> {
    generated(3000, &[0xE8, 0xE9, 0, 0xFF, 1, 0x7F])
}

/// Place of the window's size, which is not used.
const WINDOW_AT: usize = 5;

/// Three blocks, mostly dots, so that later blocks go on with the tables of earlier ones.
fn sparse() -> Vec<u8> {
    let mut alphabet = vec![b'.'; 200];
    alphabet.extend_from_slice(b"oxen");
    generated(300_000, &alphabet)
}

/// `zstd -19` from a pipe, `zstd --no-check`, which stores its bytes as they are, and `zstd -19` over several blocks.
#[test]
fn frames_made_by_zstd_unpack_to_what_was_packed() {
    let noise = generated(300, &(0..=255).collect::<Vec<u8>>());
    for (name, packed, text) in [
        ("branches", BRANCHES, branches()),
        ("noise", NOISE, noise),
        ("sparse", SPARSE, sparse()),
    ] {
        let mut out = vec![0; text.len()];
        assert_eq!(unpack(packed, &mut out), Ok(()), "{name}");
        assert!(out == text, "{name}");
    }
}

#[test]
fn a_buffer_of_another_size_is_an_error() {
    for size in [0, 2999, 3001] {
        let mut out = vec![0; size];
        assert_eq!(
            unpack(BRANCHES, &mut out),
            Err(KernelError::WrongSize),
            "{size}"
        );
    }
}

#[test]
fn a_flipped_bit_changes_nothing_unnoticed() {
    // A few bits only pad a table's description; flipping them is harmless.
    const MOST_HARMLESS: usize = 4;
    for (packed, text, step) in [(BRANCHES, branches(), 1), (SPARSE, sparse(), 97)] {
        let mut harmless = 0;
        for at in (0..packed.len())
            .step_by(step)
            .filter(|&at| at != WINDOW_AT)
        {
            let mut damaged = packed.to_vec();
            damaged[at] ^= 1 << (at % 8);
            let mut out = vec![0; text.len()];
            if unpack(&damaged, &mut out).is_ok() {
                assert!(out == text, "byte {at}");
                harmless += 1;
            }
        }
        assert!(harmless <= MOST_HARMLESS);
    }
}

#[test]
fn a_frame_that_needs_a_dictionary_is_not_supported() {
    let mut frame = BRANCHES.to_vec();
    frame[4] |= 1;
    frame.insert(6, 7);
    let refused = unpack(&frame, &mut [0; 3000]);
    assert_eq!(
        refused,
        Err(KernelError::UnsupportedVariant(Compression::Zstd))
    );
}

#[test]
fn a_run_needs_only_its_byte() {
    // Magic number, no content size, window; then a last block of 1000 times 'x'.
    let mut frame = MAGIC.to_vec();
    frame.extend_from_slice(&[0, 0x88]);
    frame.extend_from_slice(&(1000u32 << 3 | 1 << 1 | 1).to_le_bytes()[..3]);
    frame.push(b'x');
    let mut out = vec![0; 1000];
    assert_eq!(unpack(&frame, &mut out), Ok(()));
    assert!(out.iter().all(|&byte| byte == b'x'));
}

/// A frame with one packed block of that content.
fn frame_of(content: &[u8]) -> Vec<u8> {
    let mut frame = MAGIC.to_vec();
    frame.extend_from_slice(&[0, 0x88]);
    frame.extend_from_slice(&((content.len() as u32) << 3 | 2 << 1 | 1).to_le_bytes()[..3]);
    frame.extend_from_slice(content);
    frame
}

#[test]
fn a_code_behind_its_alphabet_is_corrupt() {
    // No literals; one sequence, with three tables of one code each, the middle one for offsets.
    for (codes, known) in [([0, 31, 0], true), ([0, 32, 0], false), ([36, 0, 0], false)] {
        let mut content = vec![0, 1, 0b0101_0100];
        content.extend_from_slice(&codes);
        content.extend_from_slice(&[0, 0, 0, 0x80]);
        let mut frame = &frame_of(&content)[6..];
        let (_, kind, size) = block_header(&mut frame).expect("a block");
        let mut decoder = Decoder::new();
        let result = decoder.block(kind, size, &mut frame, &mut [0; 100], 0);
        assert_eq!(result, Err(CORRUPT), "nothing to refer to");
        assert_eq!(decoder.sequences.has_tables(), known, "{codes:?}");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..10_000, value in any::<u8>(), cut in 0usize..100, which in 0usize..2, size in 0usize..4000) {
        let packed = [BRANCHES, NOISE][which];
        let mut damaged = packed.to_vec();
        let at = at % damaged.len();
        damaged[at] = value;
        damaged.truncate(packed.len() - cut % packed.len());
        let _ = unpack(&damaged, &mut vec![0; size]);
    }

    #[test]
    fn blocks_of_any_content_never_panic(content in prop::collection::vec(any::<u8>(), 0..400), size in 0usize..10_000) {
        let _ = unpack(&frame_of(&content), &mut vec![0; size]);
    }

    #[test]
    fn tables_of_any_content_never_panic(description in prop::collection::vec(any::<u8>(), 0..60), literals in 0u8..32) {
        // Raw literals, then sequences whose three tables are all described.
        let mut content = vec![literals << 3];
        content.extend((0..literals).map(|byte| byte ^ 0x5A));
        content.extend_from_slice(&[9, 0b1010_1000]);
        content.extend_from_slice(&description);
        let _ = unpack(&frame_of(&content), &mut vec![0; 5000]);
    }

    #[test]
    fn codes_of_any_weights_never_panic(weights in prop::collection::vec(any::<u8>(), 1..140), size in 0usize..1024) {
        if let Some((codes, used)) = Codes::read(&weights) {
            let _ = codes.decode(&weights[used..], &mut vec![0; size]);
        }
    }
}
