//! The machine's frames, behind one lock.

use core::ops::Range;
use core::sync::atomic::AtomicU32;

use oxen_abi::Errno;
use oxen_core::address::{Mfn, PAGE_SIZE};
use oxen_core::memory::claims::{Claim, Claims};
use oxen_core::memory::frames::{Clean, FrameInfo, Frames, Wanted};
use oxen_core::memory::ranges::RangeSet;
use spin::{Mutex, Once};

use super::{holds, layout, scrub};
use crate::time::Stretch;

static FRAMES: Mutex<Option<Frames<'static>>> = Mutex::new(None);
/// What is kept for domains that are being built. Locked before [`FRAMES`].
static CLAIMS: Mutex<Claims> = Mutex::new(Claims::new());
static RAM: Once<Ram> = Once::new();

/// Physical addresses of the machine's RAM.
struct Ram {
    all: RangeSet,
    /// The largest range, which is looked at first: most frames are there.
    largest: Range<u64>,
}

/// Bytes of state for frames below `end`.
pub const fn storage_size(end: Mfn) -> u64 {
    let of_a_frame = size_of::<FrameInfo>() + size_of::<AtomicU32>();
    (end.0 * of_a_frame as u64).next_multiple_of(PAGE_SIZE as u64)
}

/// Starts the allocator with its state at `storage`, and nothing free.
///
/// # Safety
/// `storage` is RAM in the direct map of `storage_size(end)` bytes that nothing else uses.
pub unsafe fn init(storage: oxen_core::address::HostPhys, end: Mfn) {
    let pointer = layout::direct_map(storage);
    // SAFETY: by the caller's promise; zero is a valid FrameInfo and a valid count. The counts lie behind the FrameInfos,
    // which keeps them aligned.
    let (info, counts) = unsafe {
        pointer.write_bytes(0, storage_size(end) as usize);
        let info = pointer.cast::<FrameInfo>();
        let counts = info.add(end.0 as usize).cast::<AtomicU32>();
        (
            core::slice::from_raw_parts_mut(info, end.0 as usize),
            core::slice::from_raw_parts(counts, end.0 as usize),
        )
    };
    holds::init(counts);
    *FRAMES.lock() = Some(Frames::new(info));
}

/// Hands in frames that nobody uses.
pub fn add(first: Mfn, end: Mfn) {
    with(|frames| frames.add(first, end));
}

/// The frame behind the last one of RAM.
pub fn end() -> Mfn {
    let last = RAM.get().and_then(|ram| ram.all.iter().last());
    Mfn(last.map_or(0, |range| range.end / PAGE_SIZE as u64))
}

/// Frames of RAM in the machine, the hypervisor's own among them.
pub fn of_machine() -> u64 {
    RAM.get()
        .map_or(0, |ram| ram.all.total() / PAGE_SIZE as u64)
}

/// Remembers which physical ranges are RAM, for [`is_ram`].
pub fn set_ram(all: RangeSet) {
    let size = |range: &Range<u64>| range.end - range.start;
    let largest = all.iter().max_by_key(size).unwrap_or_default();
    RAM.call_once(|| Ram { all, largest });
}

/// Whether the frame is RAM of the machine, in the direct map.
pub fn is_ram(frame: Mfn) -> bool {
    let address = frame.address().0;
    (RAM.get()).is_some_and(|ram| ram.largest.contains(&address) || ram.all.contains(address))
}

/// A block of 2^order frames, with whatever they hold.
pub fn allocate(order: u32) -> Option<Mfn> {
    find(|frames| frames.allocate(order, Wanted::Any)).map(|(first, _)| first)
}

/// Exactly `count` contiguous frames, with whatever they hold.
pub fn allocate_run(count: u64) -> Option<Mfn> {
    find(|frames| frames.allocate_run(count, Wanted::Any)).map(|(first, _)| first)
}

/// The same, zeroed.
pub fn allocate_run_zeroed(count: u64) -> Option<Mfn> {
    let (first, is_clean) = find(|frames| frames.allocate_run(count, Wanted::Clean))?;
    if !is_clean {
        zero(first, count);
    }
    Some(first)
}

/// Gives a run back.
pub fn free_run(first: Mfn, count: u64) {
    if let Some(Err(error)) = with(|frames| frames.free_run(first, count)) {
        panic!("freeing {count} frames at {first}: {error:?}");
    }
    scrub::set_due();
}

/// Gives a block back.
pub fn free(block: Mfn, order: u32) {
    if let Some(Err(error)) = with(|frames| frames.free(block, order)) {
        panic!("freeing frame {block}, order {order}: {error:?}");
    }
    scrub::set_due();
}

/// Keeps memory for a domain that owns `owned` frames and shall come to own `wanted`, see [`Claims::set`].
///
/// # Errors
/// Those of [`Claims::set`].
pub fn claim(claim: &mut Claim, wanted: u64, owned: u64) -> Result<(), Errno> {
    let mut claims = CLAIMS.lock();
    claims.set(claim, wanted, owned, free_count())
}

/// Free frames that are kept for someone.
pub fn claimed() -> u64 {
    CLAIMS.lock().outstanding()
}

/// A block of 2^order frames for the domain of the claim; `None` also if what is left is kept for others. The
/// hypervisor's own needs do not ask: a domain's tables come from what others have claimed rather than not at all.
fn allocate_claimed(order: u32, claim: &mut Claim) -> Option<(Mfn, Clean)> {
    let mut claims = CLAIMS.lock();
    let found = find(|frames| {
        claims
            .allow(*claim, 1 << order, frames.free_frames())
            .then(|| frames.allocate(order, Wanted::Clean))
            .flatten()
    })?;
    claims.taken(claim, 1 << order);
    Some(found)
}

/// A block on its way to a domain. What of it is dirty is cleared in stretches, as a large one takes long; given back when
/// dropped.
pub struct Block {
    first: Mfn,
    order: u32,
    /// What was clean of it when it was taken.
    clean: Clean,
    /// Frames that are clear by now.
    clear: u64,
}

impl Block {
    /// 2^order frames for the domain of the claim; `None` also if what is left is kept for others.
    pub fn new(order: u32, claim: &mut Claim) -> Option<Self> {
        let (first, clean) = allocate_claimed(order, claim)?;
        Some(Self {
            first,
            order,
            clean,
            clear: 0,
        })
    }

    /// Its frames, as a power of two.
    pub const fn order(&self) -> u32 {
        self.order
    }

    /// Goes on clearing until the stretch is over, by a bounded part at least; whether all of it is clear.
    pub fn clear(&mut self, stretch: &Stretch) -> bool {
        const PART: u64 = 32;
        while let Some((first, count)) = self.next_dirty() {
            let count = count.min(PART);
            zero(first, count);
            self.clear = first + count - self.first;
            if stretch.is_over() {
                return self.next_dirty().is_none();
            }
        }
        true
    }

    /// The next frames that are to be cleared, and how many they are.
    fn next_dirty(&self) -> Option<(Mfn, u64)> {
        let &Self {
            first,
            order,
            clean,
            clear,
        } = self;
        let left = (1 << order) - clear;
        if clean.is_all(order) || left == 0 {
            return None;
        }
        if clean == Clean::NONE {
            return Some((first + clear, left));
        }
        with(|frames| frames.dirty_part(first, order, clean, first + clear)).flatten()
    }

    /// Its first frame.
    pub const fn first(&self) -> Mfn {
        self.first
    }

    /// It is the domain's from now on.
    pub fn give(self) {
        core::mem::forget(self);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        free(self.first, self.order);
    }
}

/// One zeroed frame.
pub fn allocate_zeroed() -> Option<Mfn> {
    find(|frames| frames.allocate(0, Wanted::Clean)).map(cleared)
}

/// One zeroed frame for something that the boot cannot go on without.
pub fn allocate_zeroed_or_panic(purpose: &str) -> Mfn {
    allocate_zeroed().unwrap_or_else(|| panic!("no memory left for {purpose}"))
}

/// One zeroed frame below 4 GiB.
pub fn allocate_below_4g_zeroed() -> Mfn {
    const LIMIT: Mfn = Mfn(1 << 20);
    find(|frames| frames.allocate_below(0, LIMIT))
        .map(cleared)
        .expect("no memory left below 4 GiB")
}

/// Free frames.
pub fn free_count() -> u64 {
    with(|frames| frames.free_frames()).unwrap_or(0)
}

/// All frames, free or not.
pub fn total_count() -> u64 {
    with(|frames| frames.total_frames()).unwrap_or(0)
}

/// Free frames that are dirty and to be scrubbed.
pub fn to_scrub() -> u64 {
    with(|frames| frames.to_scrub()).unwrap_or(0)
}

/// A frame that was just taken, zeroed if it is not.
fn cleared((frame, clean): (Mfn, Clean)) -> Mfn {
    if !clean.is_all(0) {
        zero(frame, 1);
    }
    frame
}

/// Zeroes frames that were just taken from the allocator.
pub(super) fn zero(first: Mfn, count: u64) {
    // SAFETY: the frames were just allocated, so nobody else uses them; they lie in the direct map.
    unsafe { layout::direct_map_frame(first).write_bytes(0, PAGE_SIZE * count as usize) };
}

pub(super) fn with<R>(operation: impl FnOnce(&mut Frames<'static>) -> R) -> Option<R> {
    FRAMES.lock().as_mut().map(operation)
}

/// Takes frames. What is wanted may be just being cleared: then it is there soon.
fn find<R>(operation: impl Fn(&mut Frames<'static>) -> Option<R>) -> Option<R> {
    let try_once = || {
        with(|frames| operation(frames).ok_or_else(|| frames.is_scrubbing())).unwrap_or(Err(false))
    };
    match try_once() {
        Ok(found) => Some(found),
        Err(false) => None,
        Err(true) => scrub::wait_for_pieces(try_once),
    }
}

/// Takes back one frame of a domain's, which may have been part of a larger block.
pub fn give_back(frame: Mfn) {
    give_back_run(frame, 1);
}

/// Takes back frames of a domain's that lie together, in the blocks they were allocated in or in parts of them.
pub fn give_back_run(first: Mfn, count: u64) {
    let mut done = 0;
    while done < count {
        // One block at a time, so that others are not kept from the allocator.
        let Some(part) = with(|frames| frames.release_part(first + done, count - done)) else {
            return;
        };
        done += part;
    }
    scrub::set_due();
}

/// Takes one free frame by its number and clears it, unless all that is left is kept for domains being built.
pub fn take_zeroed(frame: Mfn) -> bool {
    let claims = CLAIMS.lock();
    let taken = find(|frames| {
        claims
            .allow(Claim::default(), 1, frames.free_frames())
            .then(|| frames.take(frame))
            .flatten()
    });
    drop(claims);
    if taken == Some(false) {
        zero(frame, 1);
    }
    taken.is_some()
}

/// Claims what is free in a range for good; calls `each` with the runs that were.
pub fn take_range(first: Mfn, end: Mfn, mut each: impl FnMut(Mfn, u64)) {
    with(|frames| frames.take_range_each(first, end, &mut each));
}
