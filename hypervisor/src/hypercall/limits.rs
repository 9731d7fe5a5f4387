//! What a domain may have at most: said when it is created, and by `domctl` later.

use oxen_abi::Errno;
use oxen_abi::domctl::create;
use oxen_core::address::PAGE_SIZE;

use super::Outcome;
use super::arguments::{Argument, write_bytes};
use crate::domain::Domain;
use crate::vcpu::Running;
use crate::virt::Vcpu;

const PAGE: u64 = PAGE_SIZE as u64;
/// Frames for a domain's guest-physical map where its builder does not say: these, and enough to map each page that it may
/// own on its own.
const LEAST_TABLES: u64 = 1024;
const PAGES_PER_TABLE: u64 = 256;
/// The least that a map needs: a table of each level for low memory, one for the pages below 4 GiB.
const FEWEST_TABLES: u64 = 8;

/// Whether a request to create a domain (`xen_domctl_createdomain`) asks only for what there is: no trace buffers, no CPU
/// pool beside the one.
pub fn are_known(argument: &Argument<64>) -> bool {
    argument.u32(create::VMTRACE_SIZE) == 0
        && argument.u32(create::CPUPOOL) == 0
        && argument.u32(create::MISC) & !create::MISC_RELAXED_MSRS == 0
}

/// Applies what such a request says of a domain that is new.
pub fn apply(argument: &Argument<64>, domain: &Domain) {
    // The field names the highest port; the table counts them with port 0.
    let ports = argument.u32(create::MAX_EVENT_PORT).saturating_add(1);
    domain.events.set_limit(ports);
    let relaxed = argument.u32(create::MISC) & create::MISC_RELAXED_MSRS != 0;
    domain.control.set_relaxed_msrs(relaxed);
    domain.p2m.lock().limit_tables(LEAST_TABLES);
}

/// `XEN_DOMCTL_max_mem`: most memory, in KiB. A domain that has more already keeps it and gets no more.
pub fn max_memory<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let kib = Argument::<8>::read(vcpu, body)?.u64(0);
    let pages = kib / (PAGE / 1024);
    domain.life.set_max_pages(pages);
    if !domain.privileged {
        let mut map = domain.p2m.lock();
        let enough = LEAST_TABLES.saturating_add(pages / PAGES_PER_TABLE);
        let most = map.most_tables().max(enough);
        map.limit_tables(most);
    }
    Ok(0)
}

/// `XEN_DOMCTL_set_paging_mempool_size`: bytes for a domain's guest-physical map, a whole number of pages.
pub fn set_paging_memory<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let bytes = Argument::<8>::read(vcpu, body)?.u64(0);
    if !bytes.is_multiple_of(PAGE) {
        return Err(Errno::Inval);
    }
    domain
        .p2m
        .lock()
        .limit_tables((bytes / PAGE).max(FEWEST_TABLES));
    Ok(0)
}

/// `XEN_DOMCTL_get_paging_mempool_size`.
pub fn paging_memory<H: Vcpu>(vcpu: &Running<H>, domain: &Domain, body: u64) -> Outcome {
    let bytes = domain.p2m.lock().most_tables().saturating_mul(PAGE);
    write_bytes(vcpu, body, &bytes.to_le_bytes()).map(|()| 0)
}
