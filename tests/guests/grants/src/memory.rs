//! Places in this guest's address space, which is mapped one to one, and access to what others write there too.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use oxen_guest_runtime::cpu;

/// Where no RAM of this domain is: the machine has 1 GiB, the domain a quarter of it.
const HOLE: u64 = 0x3000_0000;
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The n-th page of the part for grants that are mapped.
pub const fn hole(index: u64) -> u64 {
    HOLE + index * PAGE
}

/// The n-th page of the part for other domains' memory and tables.
pub const fn window(index: u64) -> u64 {
    HOLE + 0x100_0000 + index * PAGE
}

/// Pages of this domain's own.
#[repr(C, align(4096))]
pub struct Pages([[u8; PAGE as usize]; 4]);

static mut OWN: Pages = Pages([[0; PAGE as usize]; 4]);

/// Address of the n-th of them.
pub fn own(index: u64) -> u64 {
    &raw mut OWN as u64 + index * PAGE
}

fn place(address: u64) -> &'static AtomicU32 {
    let pointer = core::ptr::with_exposed_provenance::<AtomicU32>(address as usize);
    // SAFETY: callers pass addresses of the places above, while something is mapped there; words are only touched so.
    unsafe { &*pointer }
}

/// Tries to write a word where that is a protection fault; whether it was one.
pub fn is_write_refused(address: u64, value: u32) -> bool {
    let before = cpu::protection_faults(0);
    // SAFETY: an address of the places above; the handler passes over two bytes, as many as the instruction has.
    unsafe {
        asm!("mov [rax], ecx", in("rax") address, in("ecx") value, options(nostack));
    }
    cpu::protection_faults(0) == before + 1
}

/// Reads a word.
pub fn read(address: u64) -> u32 {
    place(address).load(Ordering::SeqCst)
}

/// Writes a word.
pub fn write(address: u64, value: u32) {
    place(address).store(value, Ordering::SeqCst);
}
