//! What the allocator gives and takes, by examples and against what is owned.

use proptest::prelude::*;

use super::*;

fn allocate(frames: &mut Frames<'_>, order: u32) -> Option<Mfn> {
    frames.allocate(order, Wanted::Any).map(|(block, _)| block)
}

#[test]
fn freed_blocks_join_again() {
    let mut info = vec![FrameInfo::default(); 2048];
    let mut frames = Frames::new(&mut info);
    frames.add(Mfn(512), Mfn(1536));
    let blocks: Vec<_> = (0..1024)
        .map(|_| allocate(&mut frames, 0).expect("frames are left"))
        .collect();
    assert_eq!(frames.free_frames(), 0);
    assert_eq!(allocate(&mut frames, 0), None);
    for block in blocks {
        frames.free(block, 0).expect("it was allocated");
    }
    assert!(allocate(&mut frames, 9).is_some_and(|block| block.is_aligned(9)));
}

#[test]
fn a_double_free_is_an_error() {
    let mut info = vec![FrameInfo::default(); 64];
    let mut frames = Frames::new(&mut info);
    frames.add(Mfn(0), Mfn(64));
    let block = allocate(&mut frames, 2).expect("frames are left");
    assert_eq!(frames.free(block, 1), Err(FreeError::WrongOrder));
    assert_eq!(frames.free(block, 2), Ok(()));
    assert_eq!(frames.free(block, 2), Err(FreeError::NotAllocated));
}

#[test]
fn a_range_is_taken_around_frames_in_use() {
    let mut info = vec![FrameInfo::default(); 64];
    let mut frames = Frames::new(&mut info);
    frames.add(Mfn(0), Mfn(64));
    assert!(frames.take(Mfn(17)).is_some());
    assert!(frames.take(Mfn(17)).is_none());
    let mut taken = 0;
    frames.take_range_each(Mfn(10), Mfn(20), &mut |_, count| taken += count);
    assert_eq!((taken, frames.free_frames()), (9, 54));
    frames.release_part(Mfn(12), 1);
    frames.release_part(Mfn(12), 1);
    assert_eq!(frames.free_frames(), 55);
    assert!(frames.take(Mfn(12)).is_some());
    assert!(
        frames
            .allocate_below(3, Mfn(10))
            .is_some_and(|(block, _)| block.0 + 8 <= 10)
    );
}

#[test]
fn a_run_takes_no_more_than_it_has_and_comes_back_whole() {
    let mut info = vec![FrameInfo::default(); 256];
    let mut frames = Frames::new(&mut info);
    frames.add(Mfn(0), Mfn(256));
    let (first, _) = frames
        .allocate_run(67, Wanted::Any)
        .expect("frames are left");
    assert_eq!(frames.free_frames(), 256 - 67);
    let (second, _) = frames
        .allocate_run(100, Wanted::Any)
        .expect("frames are left");
    assert_eq!(frames.free_run(first, 67), Ok(()));
    assert_eq!(frames.free_run(first, 67), Err(FreeError::NotAllocated));
    assert_eq!(frames.free_run(second, 100), Ok(()));
    assert_eq!(allocate(&mut frames, 8), Some(Mfn(0)));
}

#[test]
fn a_block_comes_back_in_parts() {
    let mut info = vec![FrameInfo::default(); 64];
    let mut frames = Frames::new(&mut info);
    frames.add(Mfn(0), Mfn(64));
    let block = allocate(&mut frames, 5).expect("frames are left");
    // The first frame, which knows of the block, one in the middle, and the rest with one try at what is free.
    assert_eq!(frames.release_part(block, 1), 1);
    assert_eq!(frames.release_part(block + 17, 1), 1);
    assert_eq!(frames.free_frames(), 34);
    assert_eq!(frames.free(block, 5), Err(FreeError::NotAllocated));
    let mut at = block + 1;
    while at.0 < block.0 + 32 {
        at = at + frames.release_part(at, block.0 + 32 - at.0);
    }
    assert_eq!(frames.free_frames(), 64);
    assert!(allocate(&mut frames, 6).is_some());
}

proptest! {
    #[test]
    fn blocks_given_back_in_any_parts_are_owned_once_and_come_back(
        orders in prop::collection::vec(0u32..6, 1..30),
        parts in prop::collection::vec((0u64..256, 1u64..40), 0..200),
    ) {
        let mut info = vec![FrameInfo::default(); 256];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(0), Mfn(256));
        let mut owned = [false; 256];
        let mut orders = orders.into_iter();
        for (first, most) in parts {
            if let Some((order, block)) = orders.next().and_then(|order| Some((order, allocate(&mut frames, order)?))) {
                for frame in block.0..block.0 + (1 << order) {
                    prop_assert!(!std::mem::replace(&mut owned[frame as usize], true));
                }
            }
            // As domains give back: only what they own.
            let most = (first..256).take_while(|&frame| owned[frame as usize]).take(most as usize).count() as u64;
            if most > 0 {
                let done = frames.release_part(Mfn(first), most);
                prop_assert!((1..=most).contains(&done));
                owned[first as usize..][..done as usize].fill(false);
            }
            let in_use = owned.iter().filter(|&&owned| owned).count() as u64;
            prop_assert_eq!(frames.free_frames(), 256 - in_use);
        }
    }

    #[test]
    fn blocks_never_overlap_and_all_frames_come_back(orders in prop::collection::vec(0u32..6, 1..100)) {
        let mut info = vec![FrameInfo::default(); 1000];
        let mut frames = Frames::new(&mut info);
        frames.add(Mfn(3), Mfn(997));
        let mut owned = vec![false; 1000];
        let mut blocks = Vec::new();
        for order in orders {
            if let Some(block) = allocate(&mut frames, order) {
                for frame in block.0..block.0 + (1 << order) {
                    prop_assert!(!std::mem::replace(&mut owned[frame as usize], true));
                }
                blocks.push((block, order));
            }
        }
        for (block, order) in blocks {
            prop_assert_eq!(frames.free(block, order), Ok(()));
        }
        prop_assert_eq!(frames.free_frames(), 994);
    }
}

#[test]
fn what_a_guest_gives_back_serves_the_next() {
    const END: u64 = 1 << 18;
    let mut info = vec![FrameInfo::default(); END as usize];
    let mut frames = Frames::new(&mut info);
    frames.add(Mfn(3000), Mfn(END - 5000));
    let guest = |frames: &mut Frames<'_>| {
        let blocks: Vec<_> = (0..128)
            .map(|_| frames.allocate(9, Wanted::Clean).expect("frames are left"))
            .collect();
        for (block, _) in &blocks {
            frames.free(*block, 9).expect("it was allocated");
        }
        while let Some((piece, order)) = frames.take_dirty(3) {
            frames.put_back(piece, order);
        }
        blocks.iter().filter(|(_, clean)| clean.is_all(9)).count()
    };
    assert_eq!(guest(&mut frames), 0);
    // But for what small blocks beside had of the cleaning.
    assert!(guest(&mut frames) >= 120);
    assert!(guest(&mut frames) >= 120);
}
