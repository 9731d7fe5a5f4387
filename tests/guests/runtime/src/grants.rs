//! This domain's grant table, of version 1: pages of its own that it grants to others. And what it maps of the grants that it gets.

use core::sync::atomic::{AtomicU32, Ordering};

use oxen_abi::grant::{self, entry, map, unmap};
use oxen_abi::memory::{cmd, space};
use oxen_abi::numbers;

use crate::bytes::{put, word as word_at};
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

/// Maps a page that a domain grants, for reading and writing, at an address where nothing is. What [`unmap`] takes.
pub fn map(domain: u16, grant: u32, address: u64) -> u32 {
    let mut argument = [0; map::SIZE];
    put(&mut argument, map::ADDRESS, &address.to_le_bytes());
    put(&mut argument, map::FLAGS, &map::FLAG_HOST.to_le_bytes());
    put(&mut argument, map::GRANT, &grant.to_le_bytes());
    put(&mut argument, map::DOMAIN, &domain.to_le_bytes());
    done(grant::cmd::MAP_GRANT_REF, &mut argument, map::STATUS);
    word_at(&argument, map::HANDLE)
}

/// Unmaps it from the address.
pub fn unmap(handle: u32, address: u64) {
    let mut argument = [0; unmap::SIZE];
    put(&mut argument, unmap::ADDRESS, &address.to_le_bytes());
    put(&mut argument, unmap::HANDLE, &handle.to_le_bytes());
    done(grant::cmd::UNMAP_GRANT_REF, &mut argument, unmap::STATUS);
}

fn done(command: u64, argument: &mut [u8], status_at: usize) {
    // SAFETY: the argument is as large as the command's structure, and what is mapped is seen through atomics only.
    let result = unsafe {
        let pointer = argument.as_mut_ptr() as u64;
        hypercall::call(numbers::GRANT_TABLE_OP, command, pointer, 1)
    };
    let status = [argument[status_at], argument[status_at + 1]];
    assert!(
        (result, status) == (0, [0, 0]),
        "grant_table_op {command}: {result}, {status:?}"
    );
}
