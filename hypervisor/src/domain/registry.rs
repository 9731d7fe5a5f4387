//! All domains, by number.

use alloc::sync::Arc;
use alloc::vec::Vec;

use oxen_abi::Errno;
use oxen_core::id::DomainId;
use spin::{Once, RwLock};

use super::Domain;

static DOM0: Once<Arc<Domain>> = Once::new();
/// In the order of their numbers.
static DOMAINS: RwLock<Vec<Arc<Domain>>> = RwLock::new(Vec::new());

/// The control domain, once it is built.
pub fn dom0() -> Option<&'static Arc<Domain>> {
    DOM0.get()
}

/// Makes the control domain known.
pub fn set_dom0(domain: Arc<Domain>) {
    DOMAINS.write().insert(0, domain.clone());
    DOM0.call_once(|| domain);
}

/// The domain of that number.
pub fn get(id: DomainId) -> Option<Arc<Domain>> {
    let domains = DOMAINS.read();
    let place = domains.binary_search_by_key(&id, |domain| domain.id).ok()?;
    domains.get(place).cloned()
}

/// The first domain whose number is not below `id`.
pub fn first_from(id: DomainId) -> Option<Arc<Domain>> {
    let domains = DOMAINS.read();
    let place = domains.partition_point(|domain| domain.id < id);
    domains.get(place).cloned()
}

/// All of them, by number. The list may change meanwhile.
pub fn all() -> impl Iterator<Item = Arc<Domain>> {
    core::iter::successors(first_from(DomainId::DOM0), |domain| {
        first_from(DomainId(domain.id.0.checked_add(1)?))
    })
}

/// Adds a domain under the number that is asked for, or under the lowest that is free above the last one given.
///
/// # Errors
/// `Exist` for a number in use, `NoMem`, and whatever `make` fails with.
pub fn insert(
    asked: Option<DomainId>,
    make: impl FnOnce(DomainId) -> Result<Arc<Domain>, Errno>,
) -> Result<Arc<Domain>, Errno> {
    static LAST: spin::Mutex<DomainId> = spin::Mutex::new(DomainId::DOM0);
    let mut last = LAST.lock();
    let is_free = |id: DomainId| get(id).is_none();
    let id = match asked {
        Some(id) if is_free(id) => id,
        Some(_) => return Err(Errno::Exist),
        None => {
            let all = 1..DomainId::FIRST_RESERVED.0;
            // Numbers are used again as late as possible, so that stale ones are noticed.
            let id = (last.0 + 1..all.end)
                .chain(all)
                .map(DomainId)
                .find(|&id| is_free(id))
                .ok_or(Errno::NoMem)?;
            *last = id;
            id
        }
    };
    let domain = make(id)?;
    let mut domains = DOMAINS.write();
    domains.try_reserve(1).map_err(|_| Errno::NoMem)?;
    let place = domains.partition_point(|other| other.id < id);
    domains.insert(place, domain.clone());
    Ok(domain)
}

/// Forgets a domain; not another one that has its number by now.
pub fn remove(gone: &Domain) {
    DOMAINS
        .write()
        .retain(|domain| !core::ptr::eq(&raw const **domain, gone));
}
