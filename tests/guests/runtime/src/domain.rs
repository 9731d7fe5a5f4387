//! Other domains, as a control domain makes them: by `domctl`, with their memory seen by foreign mappings.

use oxen_abi::domctl::{self, cmd, context, create};
use oxen_abi::{Errno, memory, numbers, sysctl};

use crate::bytes::{long, put};
use crate::hypercall::{self, SELF};

const PAGE: u64 = 4096;
/// Place of EBP in a context's general registers.
pub const EBP: usize = 4;
/// Place of ESI there.
pub const ESI: usize = 5;

/// A `domctl` with its body; returns the result and the structure.
pub fn domctl<const N: usize>(command: u32, domain: u16, body: [u8; N]) -> (i64, u16, [u8; N]) {
    #[repr(C, align(8))]
    struct Argument<const N: usize> {
        command: u32,
        version: u32,
        domain: u16,
        pad: [u16; 3],
        body: [u8; N],
    }
    let mut argument = Argument {
        command,
        version: domctl::INTERFACE_VERSION,
        domain,
        pad: [0; 3],
        body,
    };
    let pointer = &raw mut argument as u64;
    // SAFETY: the argument is a local, as large as the command's structure.
    let result = unsafe { hypercall::call(numbers::DOMCTL, pointer, 0, 0) };
    // SAFETY: as above; the hypervisor may have written it.
    let argument = unsafe { (&raw const argument).read_volatile() };
    (result, argument.domain, argument.body)
}

/// Frames that the machine has free, those to be scrubbed with them.
pub fn free_pages() -> u64 {
    #[repr(C, align(8))]
    struct Argument([u32; 2], [u8; sysctl::physinfo::SIZE]);
    let header = [sysctl::cmd::PHYSINFO, sysctl::INTERFACE_VERSION];
    let mut argument = Argument(header, [0; sysctl::physinfo::SIZE]);
    let pointer = &raw mut argument as u64;
    // SAFETY: the argument is a local, as large as the command's structure.
    let result = unsafe { hypercall::call(numbers::SYSCTL, pointer, 0, 0) };
    assert!(result == 0, "physinfo: {result}");
    // SAFETY: as above.
    let argument = unsafe { (&raw const argument).read_volatile() };
    [sysctl::physinfo::FREE_PAGES, sysctl::physinfo::SCRUB_PAGES]
        .map(|offset| long(&argument.1, offset))
        .iter()
        .sum()
}

/// Limits that a domain is made with.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Frames of its grant table; -1 for what the hypervisor thinks right.
    pub frames: i32,
    /// Frames of its mapping handles; -1 likewise.
    pub maptrack_frames: i32,
    /// Newest version of grant entries; 0 likewise.
    pub version: u32,
}

/// None but the hypervisor's own.
pub const DEFAULT: Limits = Limits {
    frames: -1,
    maptrack_frames: -1,
    version: 0,
};

/// Only the call that makes a domain, with one vCPU and no memory: the result, and its number.
pub fn create(limits: Limits) -> (i64, u16) {
    const MOST_PORT: u32 = 1023;
    let mut body = [0; 64];
    let flags = create::FLAG_HVM | create::FLAG_HAP;
    for (at, value) in [
        (create::FLAGS, flags.to_le_bytes()),
        (create::MAX_VCPUS, 1u32.to_le_bytes()),
        (create::MAX_EVENT_PORT, MOST_PORT.to_le_bytes()),
        (create::MAX_GRANT_FRAMES, limits.frames.to_le_bytes()),
        (
            create::MAX_MAPTRACK_FRAMES,
            limits.maptrack_frames.to_le_bytes(),
        ),
        (create::GRANT_OPTIONS, limits.version.to_le_bytes()),
        (create::EMULATION, create::EMULATE_LOCAL_APIC.to_le_bytes()),
    ] {
        put(&mut body, at, &value);
    }
    let (result, id, _) = domctl(cmd::CREATE, 0, body);
    (result, id)
}

/// Gives a domain memory, at the frames of the list.
pub fn populate(id: u16, frames: &[u64]) {
    let count = frames.len() as u64;
    let kib = count * PAGE / 1024;
    let (result, ..) = domctl(cmd::MAX_MEM, id, kib.to_le_bytes());
    assert!(result == 0, "max_mem: {result}");
    // xen_memory_reservation: list, count, order and flags, domain.
    let mut reservation = [frames.as_ptr() as u64, count, 0, id.into()];
    let made = hypercall::memory_op(memory::cmd::POPULATE_PHYSMAP, &mut reservation);
    assert!(made == count as i64, "populate_physmap: {made}");
}

/// Maps a domain's frames, at most 16, at places of the caller's, by frame too.
pub fn map_foreign(id: u16, frames: &[u64], places: &[u64]) {
    let mut errors = [1i32; 16];
    assert!(frames.len() == places.len() && frames.len() <= errors.len());
    let mut batch = [
        u64::from(SELF)
            | u64::from(memory::space::GMFN_FOREIGN) << 16
            | (frames.len() as u64) << 32
            | u64::from(id) << 48,
        frames.as_ptr() as u64,
        places.as_ptr() as u64,
        errors.as_mut_ptr() as u64,
    ];
    let result = hypercall::memory_op(memory::cmd::ADD_TO_PHYSMAP_BATCH, &mut batch);
    assert!(result == 0, "add_to_physmap_batch: {result}");
}

/// Has the vCPU of a domain run 32-bit code without paging at `start`, with these general registers, by their places in a
/// context.
pub fn start(id: u16, start: u64, general: &[(usize, u64)]) {
    const RECORDS: usize = 3 * context::DESCRIPTOR + context::HEADER_SIZE + context::CPU_SIZE;
    let mut bytes = [0; RECORDS];
    let mut at = 0;
    let mut record = |kind: u16, length: usize| {
        put(&mut bytes, at, &kind.to_le_bytes());
        put(&mut bytes, at + 4, &(length as u32).to_le_bytes());
        at += context::DESCRIPTOR + length;
        at - length
    };
    let header = record(context::HEADER, context::HEADER_SIZE);
    let cpu = record(context::CPU, context::CPU_SIZE);
    record(context::END, 0);
    put(&mut bytes, header, &context::MAGIC.to_le_bytes());
    put(&mut bytes, header + 4, &context::VERSION.to_le_bytes());
    // Flat segments, then the task segment; no local table.
    for segment in 0..7 {
        let (limit, rights) = match segment {
            0 => (u32::MAX, 0xC9Bu32),
            6 => (0x67, 0x8B),
            _ => (u32::MAX, 0xC93),
        };
        let at = cpu + 4 * segment;
        put(&mut bytes, at + context::LIMITS, &limit.to_le_bytes());
        put(&mut bytes, at + context::RIGHTS, &rights.to_le_bytes());
    }
    put(&mut bytes, cpu + context::RIP, &start.to_le_bytes());
    put(&mut bytes, cpu + context::CR0, &1u64.to_le_bytes());
    for (place, value) in general {
        let at = cpu + context::GENERAL + 8 * place;
        put(&mut bytes, at, &value.to_le_bytes());
    }
    let mut body = [0; 16];
    put(&mut body, 0, &(RECORDS as u32).to_le_bytes());
    put(&mut body, 8, &(bytes.as_ptr() as u64).to_le_bytes());
    let (set, ..) = domctl(cmd::SET_HVM_CONTEXT, id, body);
    let (unpaused, ..) = domctl(cmd::UNPAUSE, id, []);
    assert!((set, unpaused) == (0, 0), "start: {set}, {unpaused}");
}

/// Ends a domain; it lingers while others use its pages.
pub fn destroy(id: u16) {
    let again = [Errno::Restart, Errno::Again].map(|errno| errno.encode() as i64);
    let result = loop {
        let (result, ..) = domctl(cmd::DESTROY, id, []);
        if !again.contains(&result) {
            break result;
        }
    };
    assert!(result == 0, "destroydomain: {result}");
}
