//! Grant tables of domains: their size, and the first entries of a new one: console and store, so that daemons that are not
//! all-powerful can map them.

use std::io;

use crate::foreign::Mapping;
use crate::layout;
use crate::privcmd::Privcmd;

/// `XENMEM_resource_grant_table`.
const RESOURCE_GRANT_TABLE: u32 = 1;
/// `XENMEM_resource_grant_table_id_shared`.
const SHARED_FRAMES: u32 = 0;
/// Entry of the console ring (`GNTTAB_RESERVED_CONSOLE`).
pub const CONSOLE: u32 = 0;
/// Entry of the store ring (`GNTTAB_RESERVED_XENSTORE`).
pub const STORE: u32 = 1;
/// `GTF_permit_access`.
const PERMIT_ACCESS: u16 = 1;
const ENTRY_SIZE: usize = 8;

const HYPERCALL_GRANT_TABLE_OP: u64 = oxen_abi::numbers::GRANT_TABLE_OP;
const QUERY_SIZE: u64 = oxen_abi::grant::cmd::QUERY_SIZE;

/// There is no such domain, or it ends (`GNTST_bad_domain`).
pub const BAD_DOMAIN: i16 = oxen_abi::grant::Status::BadDomain as i16;

/// `gnttab_query_size`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct QuerySize {
    domain: u16,
    pad: u16,
    frames: u32,
    limit: u32,
    status: i16,
    pad2: u16,
}
layout!(QuerySize, 16, frames = 4, limit = 8, status = 12);

/// Frames of a domain's grant table: those that it has, and how many it may have.
///
/// # Errors
/// The hypervisor's errno; `PermissionDenied` or `NotFound` as the operation's own status says.
pub fn size(xen: &Privcmd, domid: u16) -> io::Result<(u32, u32)> {
    let query = QuerySize {
        domain: domid,
        ..QuerySize::default()
    };
    let buffer = xen.buffer_of(&[query])?;
    let call = [QUERY_SIZE, buffer.address(), 1, 0, 0];
    xen.hypercall(HYPERCALL_GRANT_TABLE_OP, call)?;
    let answer: QuerySize = buffer.read(0);
    match answer.status {
        0 => Ok((answer.frames, answer.limit)),
        BAD_DOMAIN => Err(io::ErrorKind::NotFound.into()),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Grants the console page to `console_domain` and the store page to `store_domain`. The domain must not run yet.
///
/// # Errors
/// The hypervisor's errno; `InvalidInput`: a page number over 32 bits.
pub fn seed(
    xen: &Privcmd,
    domid: u16,
    (console_gfn, console_domain): (u64, u16),
    (store_gfn, store_domain): (u64, u16),
) -> io::Result<()> {
    let entries = entries([(console_gfn, console_domain), (store_gfn, store_domain)])?;
    let table = Mapping::of_resource(xen, domid, RESOURCE_GRANT_TABLE, SHARED_FRAMES, 1)?;
    table.write(0, &entries)
}

/// Version-1 entries (`grant_entry_v1`), the first of a table.
fn entries(grants: [(u64, u16); 2]) -> io::Result<[u8; 2 * ENTRY_SIZE]> {
    let mut bytes = [0; 2 * ENTRY_SIZE];
    for (entry, (gfn, domain)) in bytes.chunks_exact_mut(ENTRY_SIZE).zip(grants) {
        let frame = u32::try_from(gfn).map_err(|_| io::ErrorKind::InvalidInput)?;
        entry[..2].copy_from_slice(&PERMIT_ACCESS.to_le_bytes());
        entry[2..4].copy_from_slice(&domain.to_le_bytes());
        entry[4..].copy_from_slice(&frame.to_le_bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_entries_are_written_as_version_1() {
        let bytes = entries([(0xF_EFFF, 0), (0xF_EFFC, 7)]).expect("small frames");
        assert_eq!(bytes[..8], [1, 0, 0, 0, 0xFF, 0xEF, 0x0F, 0]);
        assert_eq!(bytes[8..], [1, 0, 7, 0, 0xFC, 0xEF, 0x0F, 0]);
        assert!(entries([(1 << 32, 0), (0, 0)]).is_err());
    }
}
