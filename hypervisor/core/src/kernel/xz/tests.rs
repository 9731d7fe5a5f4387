use super::super::testing::generated;
use super::*;
use proptest::prelude::*;

const BRANCHES: &[u8] = include_bytes!("../fixtures/branches.xz");
const BLOCKS: &[u8] = include_bytes!("../fixtures/blocks.xz");
const START: &[u8] = include_bytes!("../fixtures/start.xz");
const NOISE: &[u8] = include_bytes!("../fixtures/noise.xz");
const SHA256: &[u8] = include_bytes!("../fixtures/sha256.xz");
const LZMA: &[u8] = include_bytes!("../fixtures/branches.lzma");

/// Calls and jumps so close together that their displacements overlap.
fn branches() -> Vec<u8> {
    generated(3000, &[0xE8, 0xE9, 0, 0xFF, 1, 0x7F])
}

fn noise() -> Vec<u8> {
    generated(300, &(0..=255).collect::<Vec<u8>>())
}

/// `xz --x86 --check=crc32`, `xz --block-size=1000 --check=crc64`, `xz --x86=start=4096 --lzma2=lc=2,lp=1,pb=1` and
/// `xz --check=none`, the last of which stores its bytes as they are.
#[test]
fn streams_made_by_xz_unpack_to_what_was_packed() {
    for (name, packed, text) in [
        ("branches", BRANCHES, branches()),
        ("blocks", BLOCKS, branches()),
        ("start", START, branches()),
        ("noise", NOISE, noise()),
    ] {
        let mut out = vec![0; text.len()];
        assert_eq!(unpack(packed, &mut out), Ok(()), "{name}");
        assert!(out == text, "{name}");
    }
}

#[test]
fn a_stand_alone_lzma_stream_unpacks() {
    let mut out = vec![0; 3000];
    assert_eq!(unpack_lzma(LZMA, &mut out), Ok(()));
    assert!(out == branches());
    let mut large = vec![0; 3001];
    assert_eq!(unpack_lzma(LZMA, &mut large), Err(KernelError::WrongSize));
}

#[test]
fn a_buffer_of_another_size_is_an_error() {
    for size in [2999, 3001] {
        let mut out = vec![0; size];
        assert_eq!(
            unpack(BRANCHES, &mut out),
            Err(KernelError::WrongSize),
            "{size}"
        );
    }
}

#[test]
fn a_check_that_kernels_do_not_use_is_named() {
    let error = unpack(SHA256, &mut [0; 300]).expect_err("no SHA-256");
    assert_eq!(error, KernelError::UnsupportedVariant(Compression::Xz));
    assert!(error.to_string().starts_with("the xz payload uses"));
}

#[test]
fn every_flipped_bit_of_the_blocks_is_noticed() {
    // The index and the footer, behind the only block, are not looked at.
    let index = BRANCHES.len() - 12 - 12;
    for at in 0..index {
        let mut damaged = BRANCHES.to_vec();
        damaged[at] ^= 1 << (at % 8);
        assert!(unpack(&damaged, &mut vec![0; 3000]).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..4000, value in any::<u8>(), cut in 0usize..4000, which in 0usize..4, size in 0usize..4000) {
        let packed = [BRANCHES, BLOCKS, NOISE, LZMA][which];
        let mut damaged = packed.to_vec();
        let at = at % damaged.len();
        damaged[at] = value;
        damaged.truncate(packed.len().saturating_sub(cut / 8));
        let mut out = vec![0; size];
        let _ = unpack(&damaged, &mut out);
        let _ = unpack_lzma(&damaged, &mut out);
    }

    #[test]
    fn chunks_of_any_content_never_panic(packed in prop::collection::vec(any::<u8>(), 0..300), size in 0usize..10_000) {
        let mut input = &packed[..];
        let _ = lzma2(&mut input, &mut vec![0; size]);
        let mut framed = vec![0x5D, 0, 0, 0x80, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0];
        framed.extend_from_slice(&packed);
        let _ = unpack_lzma(&framed, &mut vec![0; size]);
    }
}
