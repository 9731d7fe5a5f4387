//! The end of a domain, and of all that there is of it.

use std::time::Duration;

use uuid::Uuid;

use crate::failure::{Context, Failure};
use crate::host::{DomainState, Toolstack};
use crate::{names, tree};

/// How long the daemons may take to let go of a domain's pages, with which it is gone.
const LETTING_GO: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// The domain of an identity, if it is there.
pub fn find(host: &mut dyn Toolstack, uuid: Uuid) -> Result<Option<DomainState>, Failure> {
    let domains = host
        .xen()?
        .domains()
        .context(|| "list the domains".to_owned())?;
    Ok(domains
        .into_iter()
        .find(|domain| domain.uuid == uuid && domain.domid != 0))
}

/// Destroys the domain of an identity, if it is there, and removes what xenstore has of it. `domid` is the number that it was known by,
/// for where it is gone already. Can be done again, and finishes what was begun.
pub fn end(host: &mut dyn Toolstack, domid: Option<u16>, uuid: Uuid) -> Result<(), Failure> {
    let found = find(host, uuid)?.map(|state| state.domid);
    if let Some(domid) = found {
        host.xen()?
            .destroy(domid)
            .context(|| format!("destroy domain {domid}"))?;
    }
    let known = match found.or(domid) {
        None => nodes_of(host, uuid)?,
        known => known,
    };
    if let Some(domid) = known {
        forget(host, domid, uuid)?;
    }
    if let Some(domid) = found {
        wait(host, domid, uuid)?;
    }
    Ok(())
}

/// The number under which xenstore has something of an identity.
fn nodes_of(host: &mut dyn Toolstack, uuid: Uuid) -> Result<Option<u16>, Failure> {
    let vm = tree::vm_path(uuid);
    let store = host.store()?;
    let about = || "list /local/domain in xenstore".to_owned();
    let entries = store.list("/local/domain").context(about)?;
    for domid in entries
        .iter()
        .filter_map(|entry| names::number(entry).flatten())
    {
        let path = store.read(&format!("{}/vm", names::path(domid)));
        if path.context(about)?.as_deref() == Some(&vm) {
            return Ok(Some(domid));
        }
    }
    Ok(None)
}

/// Removes what xenstore has of a domain. Another domain may have got the number meanwhile: its nodes stay.
fn forget(host: &mut dyn Toolstack, domid: u16, uuid: Uuid) -> Result<(), Failure> {
    let vm = tree::vm_path(uuid);
    let store = host.store()?;
    let own = store
        .read(&format!("{}/vm", names::path(domid)))
        .context(|| format!("read where domain {domid} is in xenstore"))?;
    let changes = if own.is_none_or(|path| path == vm) {
        // xenstored may have let go by itself when the domain died.
        let _ = store.release(domid);
        tree::removal(domid, Some(&vm))
    } else {
        vec![tree::remove(vm)]
    };
    store
        .apply(&changes)
        .context(|| format!("remove xenstore's nodes of domain {domid}"))
}

/// Until the hypervisor has all of its memory back.
fn wait(host: &mut dyn Toolstack, domid: u16, uuid: Uuid) -> Result<(), Failure> {
    let mut waited = Duration::ZERO;
    while find(host, uuid)?.is_some() {
        if waited >= LETTING_GO {
            log::warn!(
                "domain {domid} is dying and keeps some memory until all its pages are unmapped; are xenstored and xenconsoled running?"
            );
            return Ok(());
        }
        host.sleep(LOOK);
        waited += LOOK;
    }
    Ok(())
}
