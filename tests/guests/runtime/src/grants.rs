//! This domain's grant table, of version 1: pages of its own that it grants to others.

use core::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::grant::entry;
use oxen_abi::memory::{cmd, space};

use crate::hypercall::{self, SELF};

/// Where the table's first frame is mapped: where no guest of these has RAM.
const TABLE: u64 = 0x3200_0000;
/// First entry that is not reserved for the console or the store (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const FIRST: u32 = 8;

/// Maps the table.
pub fn set_up() {
    let mut argument = [
        u64::from(SELF) | u64::from(space::GRANT_TABLE) << 32,
        0,
        TABLE / 4096,
    ];
    let result = hypercall::memory_op(cmd::ADD_TO_PHYSMAP, &mut argument);
    assert!(result == 0, "add_to_physmap: {result}");
}

fn word(grant: u32, nth: usize) -> &'static AtomicU32 {
    let at = TABLE as usize + grant as usize * entry::V1_SIZE + nth * 4;
    let pointer = core::ptr::with_exposed_provenance::<AtomicU32>(at);
    // SAFETY: inside the table's first frame for grants below 512, which `set_up` mapped; words of it are only touched so.
    unsafe { &*pointer }
}

/// Grants a page of this domain's to another, for reading and writing.
pub fn grant(grant: u32, domain: u16, address: u64) {
    assert!(grant < 512, "no such entry: {grant}");
    word(grant, 1).store((address / 4096) as u32, Ordering::SeqCst);
    let flags = u32::from(entry::PERMIT_ACCESS) | u32::from(domain) << 16;
    word(grant, 0).store(flags, Ordering::SeqCst);
}

/// Grants it no more.
pub fn revoke(grant: u32) {
    assert!(grant < 512, "no such entry: {grant}");
    word(grant, 0).store(0, Ordering::SeqCst);
}
