//! `ox destroy`.

use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::records::{self, Phase, Record};
use crate::{ending, names, tree};

/// Destroys a domain with all that there is of it, also when only its record or its nodes in xenstore are left.
pub fn run(word: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = match names::resolve(host, word) {
        Ok(state) => state,
        Err(Failure::NoDomain(_)) => return leftover(word, host),
        Err(failure) => return Err(failure),
    };
    super::not_control_domain(state.domid, "destroyed")?;
    let record = records::of_domain(&host.records(), state.domid, state.uuid)
        .context(|| "read the records".to_owned())?;
    match record {
        Some(record) => with_record(&record, host),
        None => ending::end(host, Some(state.domid), state.uuid),
    }
}

/// Ends a domain that has a record. The supervisor may be at work on it: whatever it makes of it is ended then.
fn with_record(seen: &Record, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let name = seen.name();
    let about = || format!("end {name}");
    let held = names::hold(host, name)?;
    let record = held.read().context(about)?;
    let Some(mut record) = record.filter(|record| record.uuid == seen.uuid) else {
        // It ended while the lock was waited for, or it has another name now: then its number leads to it.
        return ending::end(host, seen.phase.domid(), seen.uuid);
    };
    if let Some(domid) = record.phase.domid() {
        record.phase = Phase::Ending { domid };
        held.write(&record).context(about)?;
    }
    ending::end(host, record.phase.domid(), record.uuid)?;
    held.remove().context(about)
}

/// A domain may wait to be started again, or a tool that was killed may have left the nodes of one that is gone.
fn leftover(word: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let record = records::of_name(&host.records(), word);
    if let Some(record) = record.context(|| format!("read the record of {word}"))? {
        log::info!("{word} does not run; it will not be started again");
        return with_record(&record, host);
    }
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
