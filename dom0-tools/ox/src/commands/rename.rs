//! `ox rename`.

use crate::failure::{Context, Failure};
use crate::host::{Change, Toolstack};
use crate::records::Phase;
use crate::{names, records};

/// Gives a domain another name, also for its later lives.
pub fn run(word: &str, new_name: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = names::resolve(host, word)?;
    let domid = state.domid;
    oxen_config::domain::check_name(new_name)
        .map_err(|why| Failure::Usage(format!("{new_name:?} is no name: {why}")))?;
    let old_name = names::read_name(host.store()?, domid)?;
    if old_name.as_deref() == Some(new_name) {
        return Ok(());
    }
    // Always in the same order, so that two renames cannot wait for each other.
    let mut held: Vec<_> = [old_name.as_deref(), Some(new_name)]
        .into_iter()
        .flatten()
        .collect();
    held.sort_unstable();
    let held = held
        .into_iter()
        .map(|name| names::hold(host, name).map(|held| (name, held)))
        .collect::<Result<Vec<_>, _>>()?;
    let of = |name: &str| held.iter().find(|(other, _)| *other == name);
    let about = || format!("rename domain {domid}");
    if let Some((_, taken)) = of(new_name)
        && taken.read().context(about)?.is_some()
    {
        return Err(Failure::NameTaken {
            name: new_name.to_owned(),
            domid: records::of_name(&host.records(), new_name)
                .context(about)?
                .and_then(|record| record.phase.domid())
                .unwrap_or(domid),
        });
    }
    names::check_free(host, new_name, Some(domid))?;
    let old = old_name.as_deref().and_then(of).map(|(_, held)| held);
    let record = match old {
        Some(old) => old.read().context(about)?,
        None => None,
    };
    // Not while it is being ended or made again: it would come back by its old name.
    let record = record.filter(|record| record.uuid == state.uuid);
    if let Some(record) = &record
        && !matches!(record.phase, Phase::Running { .. } | Phase::Kept { .. })
    {
        return Err(Failure::NameWaits(record.name().to_owned()));
    }
    // If this is killed half-way there are two records: the supervisor keeps the one whose name xenstore has.
    if let (Some(record), Some((_, new))) = (&record, of(new_name)) {
        let mut renamed = record.clone();
        renamed.config.name = new_name.to_owned();
        new.write(&renamed).context(about)?;
    }
    if let Err(failure) = rename_nodes(domid, new_name, host) {
        if let (Some(_), Some((_, new))) = (&record, of(new_name)) {
            new.remove().context(about)?;
        }
        return Err(failure);
    }
    match (record, old) {
        (Some(_), Some(old)) => old.remove().context(about),
        _ => Ok(()),
    }
}

/// Changes the name in xenstore.
pub fn rename_nodes(domid: u16, name: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let home = names::path(domid);
    let store = host.store()?;
    let vm = store
        .read(&format!("{home}/vm"))
        .context(|| format!("read where domain {domid} is in xenstore"))?;
    let paths = [
        Some(format!("{home}/name")),
        vm.map(|vm| format!("{vm}/name")),
    ];
    let changes: Vec<_> = paths
        .into_iter()
        .flatten()
        .map(|path| Change::Write {
            path,
            value: name.to_owned(),
            access: None,
        })
        .collect();
    store
        .apply(&changes)
        .context(|| format!("rename domain {domid}"))
}
