//! Entries of grant tables: this domain's own and, seen through the window, those of others.

use oxen_abi::grant::entry;
use oxen_abi::memory::{GRANT_STATUS_INDEX, cmd, space};

use crate::calls::{SELF, memory_op};
use crate::memory::{PAGE, read, window, write};

/// Where this domain has its own table's first frame, and its first status frame.
const OWN_TABLE: u64 = window(0);
const OWN_STATUSES: u64 = window(1);

/// Version-1 entries at an address.
#[derive(Clone, Copy)]
pub struct Table(pub u64);

/// This domain's.
pub const OWN: Table = Table(OWN_TABLE);

/// Maps this domain's table.
pub fn set_up() {
    map(0, OWN_TABLE);
}

/// Maps this domain's status words, which version 2 has.
pub fn set_up_statuses() {
    map(GRANT_STATUS_INDEX, OWN_STATUSES);
}

fn map(index: u64, place: u64) {
    let mut argument = [
        u64::from(SELF) | u64::from(space::GRANT_TABLE) << 32,
        index,
        place / PAGE,
    ];
    memory_op(cmd::ADD_TO_PHYSMAP, &mut argument);
}

impl Table {
    /// Grants a page to a domain; `flags` beside those that say so.
    pub fn grant(self, grant: u32, domain: u16, gfn: u64, flags: u16) {
        let at = self.0 + u64::from(grant) * entry::V1_SIZE as u64;
        write(at, 0);
        write(at + 4, gfn as u32);
        let flags = u32::from(entry::PERMIT_ACCESS | flags);
        write(at, flags | u32::from(domain) << 16);
    }

    /// Grants nothing.
    pub fn revoke(self, grant: u32) {
        write(self.0 + u64::from(grant) * entry::V1_SIZE as u64, 0);
    }

    /// Marks of uses.
    pub fn marks(self, grant: u32) -> u16 {
        let flags = read(self.0 + u64::from(grant) * entry::V1_SIZE as u64) as u16;
        flags & (entry::READING | entry::WRITING)
    }
}

/// Writes a version-2 entry of this domain's.
pub fn write_version_2(grant: u32, flags: u16, domain: u16, second: u32, third: u32) {
    let at = OWN_TABLE + u64::from(grant) * entry::V2_SIZE as u64;
    write(at, 0);
    for (index, word) in [second, third, 0].into_iter().enumerate() {
        write(at + 4 + index as u64 * 4, word);
    }
    write(at, u32::from(flags) | u32::from(domain) << 16);
}

/// The status of a version-2 entry.
pub fn status_version_2(grant: u32) -> u16 {
    let word = read(OWN_STATUSES + u64::from(grant / 2) * 4);
    (word >> (16 * (grant % 2))) as u16
}
