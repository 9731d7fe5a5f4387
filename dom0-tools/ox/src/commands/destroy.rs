//! `ox destroy`.

use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::{names, tree};

/// Destroys a domain, and removes what xenstore has of it, also when only that is left.
pub fn run(word: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let domid = match names::resolve(host, word) {
        Ok(state) => state.domid,
        Err(Failure::NoDomain(_)) => return leftover(word, host),
        Err(failure) => return Err(failure),
    };
    super::not_control_domain(domid, "destroyed")?;
    host.xen()?
        .destroy(domid)
        .context(|| format!("destroy domain {domid}"))?;
    forget(host, domid)
}

/// A tool that was killed may have left the nodes of a domain that is gone.
fn leftover(word: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let store = host.store()?;
    let domid = match names::number(word) {
        Some(domid) => domid,
        None => names::with_name(store, word)?.first().copied(),
    };
    let nobody = || Failure::NoDomain(word.to_owned());
    let domid = domid.filter(|domid| *domid != 0).ok_or_else(nobody)?;
    let entries = store
        .list("/local/domain")
        .context(|| "list /local/domain in xenstore".to_owned())?;
    if !entries.contains(&domid.to_string()) {
        return Err(nobody());
    }
    log::info!("domain {domid} was gone already; removing what xenstore still had of it");
    forget(host, domid)
}

fn forget(host: &mut dyn Toolstack, domid: u16) -> Result<(), Failure> {
    let store = host.store()?;
    let vm = store
        .read(&format!("{}/vm", names::path(domid)))
        .context(|| format!("read where domain {domid} is in xenstore"))?
        // Only dom0 can write this node, but a path that is removed with all below it is worth a look.
        .filter(|vm| {
            vm.strip_prefix("/vm/")
                .is_some_and(|uuid| !uuid.is_empty() && !uuid.contains('/'))
        });
    // xenstored may have let go by itself when the domain died.
    let _ = store.release(domid);
    store
        .apply(&tree::removal(domid, vm.as_deref()))
        .context(|| format!("remove xenstore's nodes of domain {domid}"))
}
