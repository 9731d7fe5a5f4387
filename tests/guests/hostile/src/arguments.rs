//! What the calls pass: numbers at boundaries, pointers to good and bad places.
//!
//! Of the guest's memory, the image (code, stacks, page tables) is never named, nor are the frames of the arena; pointers
//! lead into the arena, to pages that are not mapped or not writable, to devices, and to frames that calls may take away.

use oxen_guest_runtime::cpu;
use oxen_guest_runtime::hypercall::SELF;

use crate::random::Random;

const LARGE_PAGE: u64 = 2 << 20;
/// Where pointers lead that are meant to be good: the last 32 pages before an unmapped one.
const ARENA: u64 = 32 << 20;
const ARENA_PAGES: u64 = 32;
const ARENA_START: u64 = ARENA + LARGE_PAGE - ARENA_PAGES * 4096;
const ARENA_END: u64 = ARENA + LARGE_PAGE;
/// Mapped nowhere.
const UNMAPPED: u64 = ARENA_END;
const READ_ONLY: u64 = UNMAPPED + LARGE_PAGE;
/// RAM that calls may take away: from here to the guest's end.
const SPARE: u64 = 48 << 20;
const SPARE_END: u64 = 64 << 20;
/// Neither frame numbers nor addresses in here are ever passed, so that no call takes away what the guest needs. It begins
/// so far below that not even a large extent reaches in.
const KEPT_FRAMES: core::ops::Range<u64> = 0xE00..0x2800;
const KEPT_ADDRESSES: core::ops::Range<u64> = 14 << 20..ARENA;

/// Numbers where checks are likely to be off by one.
const BOUNDARIES: [u64; 40] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    511,
    512,
    1023,
    1024,
    2047,
    0x7FEF,
    0x7FF0,
    0x7FF1,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x1_0000,
    0x1_FFFF,
    0x2_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    0xFFFF_FFFF_FFFF_F000,
    u64::MAX,
];

/// Bad pointers of other kinds: null, what is not canonical, the ends of the address space, devices.
const BAD_POINTERS: [u64; 10] = [
    0,
    1,
    0x7FFF_FFFF_FFFF,
    0x8000_0000_0000,
    0xFFFF_7FFF_FFFF_FFFF,
    0xFFFF_8000_0000_0000,
    0xFFFF_FFFF_FFFF_FFF8,
    u64::MAX,
    0xFEE0_0000,
    0xFEE0_0FFC,
];

/// Makes the places that pointers lead to.
pub fn prepare() {
    unsafe extern "C" {
        static mut page_directory: [u64; 512];
    }
    const WRITABLE: u64 = 1 << 1;
    let entry = |address: u64| {
        let index = (address / LARGE_PAGE) as usize;
        (&raw mut page_directory).cast::<u64>().wrapping_add(index)
    };
    // SAFETY: the runtime's own page tables, which map the whole first GiB by large pages; nothing uses these two.
    unsafe {
        entry(UNMAPPED).write_volatile(0);
        let read_only = entry(READ_ONLY).read_volatile() & !WRITABLE;
        entry(READ_ONLY).write_volatile(read_only);
    }
    cpu::flush_translations();
}

/// A number that may mean anything: a port, a domain, a frame, a count.
pub fn number(random: &mut Random) -> u64 {
    let number = match random.below(9) {
        0..3 => random.pick(&BOUNDARIES),
        3 => random.below(8),
        4 => random.below(1100),
        5 => random.next() >> random.below(64),
        // This domain, with a parameter, a space, a port or a kind behind it: many structures begin so.
        6 => u64::from(SELF) | random.below(64) << 32,
        7 => (SPARE >> 12) + random.below((SPARE_END - SPARE) >> 12),
        _ => random.pick(&BOUNDARIES) | random.pick(&BOUNDARIES) << 32,
    };
    harmless(number)
}

/// The number, or another in place of one that would name what is kept.
fn harmless(number: u64) -> u64 {
    if KEPT_FRAMES.contains(&number) || KEPT_ADDRESSES.contains(&number) {
        return number & 0xFF;
    }
    number
}

/// Where a pointer into the arena is not aligned, what the call finds there is made of parts of two words: of such numbers,
/// too, none may name what is kept.
pub fn make_harmless(at: u64) {
    /// As many as the largest array takes.
    const WORDS: u64 = 512;
    if at & 7 == 0 || !(ARENA_START..ARENA_END).contains(&at) {
        return;
    }
    let places = (0..WORDS).map(|index| at + index * 8);
    for place in places.take_while(|place| place + 8 <= ARENA_END) {
        let word = core::ptr::with_exposed_provenance_mut::<u64>(place as usize);
        // SAFETY: the arena is identity-mapped memory that holds no objects.
        unsafe { word.write_unaligned(harmless(word.read_unaligned())) };
    }
}

/// Where a structure might be.
pub fn pointer(random: &mut Random) -> u64 {
    match random.below(16) {
        // Close together, so that structures and what they point to overlap.
        0..8 => ARENA_START + random.below(ARENA_PAGES * 4096 / 8) * 8,
        8 => ARENA_START + random.below(ARENA_PAGES * 4096),
        // Across the end of what is mapped.
        9 => ARENA_END - random.below(64),
        10 => UNMAPPED + random.below(LARGE_PAGE),
        11 => READ_ONLY + random.below(LARGE_PAGE / 8) * 8,
        12 | 13 => SPARE + random.below((SPARE_END - SPARE) / 8) * 8,
        14 => random.pick(&BAD_POINTERS),
        _ => random.next() | 1 << 40,
    }
}

/// A pointer that no structure can be read from.
pub fn bad_pointer(random: &mut Random) -> u64 {
    UNMAPPED + random.below(LARGE_PAGE - 4096)
}

/// Either.
pub fn any(random: &mut Random) -> u64 {
    if random.one_in(2) {
        number(random)
    } else {
        pointer(random)
    }
}

/// Writes a word behind a pointer to a word of the arena; elsewhere nothing happens.
pub fn put(at: u64, value: u64) {
    if at & 7 == 0 && (ARENA_START..ARENA_END).contains(&at) {
        // SAFETY: the arena is identity-mapped memory that holds no objects.
        unsafe { core::ptr::with_exposed_provenance_mut::<u64>(at as usize).write_volatile(value) };
    }
}

/// Fills the memory behind a pointer into the arena with numbers, some of them pointers; elsewhere nothing happens.
pub fn fill(random: &mut Random, at: u64, pointers: bool) {
    const WORDS: u64 = 18;
    let first = at & !7;
    if !(ARENA_START..ARENA_END).contains(&first) {
        return;
    }
    for index in 0..WORDS {
        let place = first + index * 8;
        if place >= ARENA_END {
            return;
        }
        let value = if pointers && random.one_in(3) {
            // Lists in the arena are read in whole words, see `make_harmless`.
            pointer(random) & !7
        } else {
            number(random)
        };
        // SAFETY: the arena is identity-mapped memory that holds no objects.
        unsafe {
            core::ptr::with_exposed_provenance_mut::<u64>(place as usize).write_volatile(value);
        }
    }
}
