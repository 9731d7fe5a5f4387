//! Hypercalls that this guest makes.

use oxen_abi::grant::{Status, cmd, map, unmap};
use oxen_abi::{domctl, memory, numbers, sched};
use oxen_guest_runtime::bytes::{put, word};
use oxen_guest_runtime::domain::{domctl, free_pages};
use oxen_guest_runtime::hypercall;
pub use oxen_guest_runtime::hypercall::SELF;

/// Negated, as hypercalls return it.
pub const fn error(errno: oxen_abi::Errno) -> i64 {
    errno.encode() as i64
}

/// What a status field holds.
pub const fn status(status: Status) -> i16 {
    status as i16
}

/// The 16-bit field at `at`.
pub fn half(bytes: &[u8], at: usize) -> i16 {
    i16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// `grant_table_op` on an array of byte structures.
pub fn grant_table_op<const N: usize>(command: u64, elements: &mut [[u8; N]]) -> i64 {
    // SAFETY: the array is exclusively borrowed, and its elements are as large as the command's structure.
    unsafe {
        hypercall::call(
            numbers::GRANT_TABLE_OP,
            command,
            elements.as_mut_ptr() as u64,
            elements.len() as u64,
        )
    }
}

/// The argument that maps a grant.
pub fn map_argument(domain: u16, grant: u32, place: u64, flags: u32) -> [u8; map::SIZE] {
    let mut bytes = [0; map::SIZE];
    put(&mut bytes, map::ADDRESS, &place.to_le_bytes());
    put(&mut bytes, map::FLAGS, &flags.to_le_bytes());
    put(&mut bytes, map::GRANT, &grant.to_le_bytes());
    put(&mut bytes, map::DOMAIN, &domain.to_le_bytes());
    put(&mut bytes, map::STATUS, &77i16.to_le_bytes());
    bytes
}

/// Maps one grant: the status, and the handle.
pub fn map_grant(domain: u16, grant: u32, place: u64, flags: u32) -> (i16, u32) {
    let mut arguments = [map_argument(domain, grant, place, flags)];
    let result = grant_table_op(cmd::MAP_GRANT_REF, &mut arguments);
    assert!(result == 0, "map_grant_ref: {result}");
    let [argument] = arguments;
    (half(&argument, map::STATUS), word(&argument, map::HANDLE))
}

/// The argument that unmaps one.
pub fn unmap_argument(handle: u32, place: u64) -> [u8; unmap::SIZE] {
    let mut bytes = [0; unmap::SIZE];
    put(&mut bytes, unmap::ADDRESS, &place.to_le_bytes());
    put(&mut bytes, unmap::HANDLE, &handle.to_le_bytes());
    put(&mut bytes, unmap::STATUS, &77i16.to_le_bytes());
    bytes
}

/// Unmaps one: the status.
pub fn unmap_grant(handle: u32, place: u64) -> i16 {
    let mut arguments = [unmap_argument(handle, place)];
    let result = grant_table_op(cmd::UNMAP_GRANT_REF, &mut arguments);
    assert!(result == 0, "unmap_grant_ref: {result}");
    half(&arguments[0], unmap::STATUS)
}

/// Whether a domain is there; it may be dying.
pub fn exists(domain: u16) -> bool {
    let body = [0; domctl::info::SIZE];
    let (result, found, _) = domctl(domctl::cmd::GET_INFO, domain, body);
    result == 0 && found == domain
}

/// Frames that the machine has free, once they are `expected` or do not become that.
pub fn free_pages_at_rest(expected: u64) -> u64 {
    for _ in 0..1000 {
        if free_pages() == expected {
            break;
        }
        yield_now();
    }
    free_pages()
}

/// Lets others run.
pub fn yield_now() {
    hypercall::plain(numbers::SCHED_OP, sched::cmd::YIELD, 0);
}

/// A `memory_op` that succeeds.
pub fn memory_op<T>(command: u64, argument: &mut T) {
    let result = hypercall::memory_op(command, argument);
    assert!(result == 0, "memory_op {command}: {result}");
}

/// Takes away what is mapped of others at a frame.
pub fn remove_from_physmap(gfn: u64) -> i64 {
    hypercall::memory_op(
        memory::cmd::REMOVE_FROM_PHYSMAP,
        &mut [u64::from(SELF), gfn],
    )
}
