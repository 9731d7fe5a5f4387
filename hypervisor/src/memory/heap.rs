//! The heap: small blocks from a linked list of fixed size, large ones straight from the frame allocator, and so are small
//! ones when the list is full: what domains need of it together is no fixed amount.
//!
//! Lists grow with `try_reserve`, single blocks are made with [`try_box`]. For blocks that the library makes without a way
//! to fail, such as those behind an `Arc`, [`with_room`] has frames kept.

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use arrayvec::ArrayVec;
use linked_list_allocator::Heap;
use oxen_abi::Errno;
use oxen_core::address::{Mfn, PAGE_SIZE};
use oxen_core::id::CpuId;
use spin::Mutex;

use super::frames;
use super::layout as map;
use crate::cpu;

/// Blocks of at least this many bytes are whole frames.
const LARGE: usize = 32 * 1024;
/// Bytes of the list's storage, in the image so that the heap works before the frame allocator does.
const SMALL_POOL: usize = 1 << 20;

#[repr(C, align(4096))]
struct Pool([u8; SMALL_POOL]);

static mut POOL: Pool = Pool([0; SMALL_POOL]);

struct HypervisorHeap {
    small: Mutex<Heap>,
}

#[global_allocator]
static HEAP: HypervisorHeap = HypervisorHeap {
    small: Mutex::new(Heap::empty()),
};

/// Makes the heap usable.
pub fn init() {
    // SAFETY: the pool is used by nothing else, and this runs once, on the boot CPU.
    unsafe { HEAP.small.lock().init((&raw mut POOL).cast(), SMALL_POOL) };
}

/// A value in a block of its own.
///
/// # Errors
/// `NoMem`.
pub fn try_box<T>(value: T) -> Result<Box<T>, Errno> {
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout is not of size 0. The block is T's, and is written before the box has it.
    unsafe {
        let block = alloc::alloc::alloc(Layout::new::<T>()).cast::<T>();
        if block.is_null() {
            return Err(Errno::NoMem);
        }
        block.write(value);
        Ok(Box::from_raw(block))
    }
}

/// Most blocks that [`with_room`] keeps frames for.
pub const MOST_KEPT: usize = 136;

/// Frames for a CPU's blocks of at most a page each, for when there are no others.
struct Kept {
    cpu: CpuId,
    frames: ArrayVec<Mfn, MOST_KEPT>,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// Does something in which the calling CPU allocates at most so many blocks, of a page at most each, in a way that cannot
/// fail. `None`, with nothing done, if there is no memory for all of them.
pub fn with_room<R>(blocks: usize, act: impl FnOnce() -> R) -> Option<R> {
    /// One at a time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let kept: ArrayVec<Mfn, MOST_KEPT> = (0..blocks.min(MOST_KEPT))
        .map_while(|_| frames::allocate(0))
        .collect();
    let enough = kept.len() == blocks;
    let cpu = cpu::current().id();
    *KEPT.lock() = Some(Kept { cpu, frames: kept });
    let result = enough.then(act);
    let kept = KEPT.lock().take();
    for frame in kept.into_iter().flat_map(|kept| kept.frames) {
        frames::free(frame, 0);
    }
    result
}

/// A kept frame for a block, if the calling CPU is the one that they are kept for.
fn kept(layout: &Layout) -> Option<Mfn> {
    if layout.size().max(layout.align()) > PAGE_SIZE {
        return None;
    }
    let mut kept = KEPT.lock();
    let kept = kept.as_mut()?;
    (kept.cpu == cpu::current().id())
        .then(|| kept.frames.pop())
        .flatten()
}

/// Bytes of the small pool in use and free.
pub fn small_usage() -> (usize, usize) {
    let heap = HEAP.small.lock();
    (heap.used(), heap.free())
}

// SAFETY: blocks come from the locked list or from whole frames that nobody else has; both honour size and alignment.
unsafe impl GlobalAlloc for HypervisorHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LARGE || layout.align() > PAGE_SIZE {
            return large(&layout).map_or(null_mut(), map::direct_map_frame);
        }
        let small = self.small.lock().allocate_first_fit(layout);
        small.map_or_else(
            |()| {
                let frame = large(&layout).or_else(|| kept(&layout));
                frame.map_or(null_mut(), map::direct_map_frame)
            },
            NonNull::as_ptr,
        )
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !is_in_pool(pointer) {
            if let Some(address) = map::direct_map_to_phys(pointer as u64) {
                frames::free_run(address.frame(), frames_of(&layout));
            }
        } else if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that the block came from `alloc` with this layout.
            unsafe { self.small.lock().deallocate(pointer, layout) };
        }
    }
}

/// Whether a block came from the list.
fn is_in_pool(pointer: *mut u8) -> bool {
    let start = (&raw const POOL).addr();
    (start..start + SMALL_POOL).contains(&pointer.addr())
}

fn large(layout: &Layout) -> Option<Mfn> {
    // Runs begin on a boundary of their size rounded up to a power of two, which covers every alignment below it.
    frames::allocate_run(frames_of(layout))
}

fn frames_of(layout: &Layout) -> u64 {
    layout.size().max(layout.align()).div_ceil(PAGE_SIZE) as u64
}
