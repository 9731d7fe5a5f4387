//! `ox block-attach`, `ox block-detach` and `ox block-list`.

use std::io::Write;

use oxen_config::disk::vdev_number;
use oxen_config::{DiskSpec, DomainConfig};
use serde::Serialize;

use crate::cli::{BlockDetach, BlockList};
use crate::disks::{self, Disk, KINDS};
use crate::failure::{Context, Failure};
use crate::host::{Change, DomainState, Toolstack};
use crate::records::Record;
use crate::{names, output, records, tree};

/// A disk that a domain has.
#[derive(Debug, Serialize)]
struct Row {
    domain: u16,
    vdev: String,
    number: u32,
    /// `ox` or `kernel`.
    backend: &'static str,
    #[serde(skip)]
    back: String,
    state: &'static str,
    read_only: bool,
    target: String,
    /// Why it is not served.
    error: Option<String>,
}

/// Gives a domain a disk, also for its later lives.
pub fn attach(word: &str, spec: &[String], host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = guest(word, host)?;
    let domid = state.domid;
    let text = spec.join(",");
    let spec: DiskSpec = text
        .parse()
        .map_err(|error| Failure::Usage(format!("{error}")))?;
    let disk = Disk::check(&spec)?;
    let number = spec.number().unwrap_or_default();
    let front = disks::front(domid, number);
    let about = || format!("attach {} to domain {domid}", spec.vdev);
    if host.store()?.read(&front).context(about)?.is_some() {
        return Err(Failure::Usage(format!(
            "domain {domid} has a disk {} already; `ox block-list` shows all",
            spec.vdev
        )));
    }
    host.store()?.apply(&disk.creation(domid)).context(about)?;
    if let Err(failure) = disk.wait(host, domid) {
        // It was never there for the guest.
        let _ = host.store()?.apply(&removal(&disk.back(domid), &front));
        return Err(failure);
    }
    change_record(&state, host, |config| config.disks.push(spec.clone()))
}

/// Takes a disk away from a domain, also for its later lives.
pub fn detach(arguments: &BlockDetach, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = guest(&arguments.domain, host)?;
    let domid = state.domid;
    let word = &arguments.device;
    let number = vdev_number(word)
        .ok_or_else(|| Failure::Usage(format!("{word:?} is no disk; write xvda, or a number")))?;
    let rows = rows(domid, host)?;
    let row = rows.into_iter().find(|row| row.number == number);
    let row = row.ok_or_else(|| {
        Failure::Usage(format!(
            "domain {domid} has no disk {word}; `ox block-list` shows all"
        ))
    })?;
    if !arguments.force && !disks::close(host, &row.back)? {
        return Err(Failure::TimedOut(format!(
            "domain {domid} has not let go of {word}; try again, or --force: then what it has not written is lost"
        )));
    }
    host.store()?
        .apply(&removal(&row.back, &disks::front(domid, number)))
        .context(|| format!("detach {word} from domain {domid}"))?;
    change_record(&state, host, |config| {
        config.disks.retain(|disk| disk.number() != Some(number));
    })
}

/// Shows the disks of domains.
pub fn list(
    arguments: &BlockList,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for (state, _) in names::resolve_all(host, &arguments.domains)? {
        all.extend(rows(state.domid, host)?);
    }
    if arguments.json.json {
        return output::json(out, &all);
    }
    let header = [
        "Dom", "Vdev", "Number", "Backend", "State", "Mode", "Target",
    ];
    let cells = all.into_iter().map(|row| {
        let target = match row.error {
            Some(error) => format!("{} ({error})", row.target),
            None => row.target,
        };
        vec![
            row.domain.to_string(),
            row.vdev,
            row.number.to_string(),
            row.backend.to_owned(),
            row.state.to_owned(),
            if row.read_only { "r" } else { "w" }.to_owned(),
            target,
        ]
    });
    output::table(out, &header, &[0, 2], cells)
}

/// The domain that is meant, which must not be this one.
pub(super) fn guest(word: &str, host: &mut dyn Toolstack) -> Result<DomainState, Failure> {
    let state = names::resolve(host, word)?;
    super::not_control_domain(state.domid, "given devices")?;
    Ok(state)
}

pub(super) fn removal(back: &str, front: &str) -> [Change; 3] {
    [back, front, &tree::kernel_error(back)].map(|path| tree::remove(path.to_owned()))
}

fn rows(domid: u16, host: &mut dyn Toolstack) -> Result<Vec<Row>, Failure> {
    let about = || format!("list the disks of domain {domid}");
    let store = host.store()?;
    let mut rows = Vec::new();
    for (kind, backend) in KINDS {
        let names = store.list(&tree::back_ends(kind, domid)).context(about)?;
        for number in names.iter().filter_map(|name| name.parse().ok()) {
            let back = disks::back(kind, domid, number);
            let mut read = |key: &str| store.read(&format!("{back}/{key}")).context(about);
            rows.push(Row {
                domain: domid,
                vdev: read("dev")?.unwrap_or_default(),
                number,
                backend,
                state: state_name(read("state")?.as_deref()),
                read_only: read("mode")?.as_deref() != Some("w"),
                target: read("params")?.unwrap_or_default(),
                error: disks::error(store, &back).context(about)?,
                back,
            });
        }
    }
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}

pub(super) fn state_name(state: Option<&str>) -> &'static str {
    match state {
        Some("1") => "initialising",
        Some("2") => "waiting",
        Some("3") => "initialised",
        Some("4") => "connected",
        Some("5") => "closing",
        Some("6") => "closed",
        _ => "unknown",
    }
}

/// What the domain is made from when it is made again. One without a record lives once.
pub(super) fn change_record(
    state: &DomainState,
    host: &mut dyn Toolstack,
    change: impl FnOnce(&mut DomainConfig),
) -> Result<(), Failure> {
    let about = || format!("write the record of domain {}", state.domid);
    let seen: Option<Record> =
        records::of_domain(&host.records(), state.domid, state.uuid).context(about)?;
    let Some(seen) = seen else {
        return Ok(());
    };
    let held = names::hold(host, seen.name())?;
    let record = held.read().context(about)?;
    if let Some(mut record) = record.filter(|record| record.uuid == seen.uuid) {
        change(&mut record.config);
        held.write(&record).context(about)?;
    }
    Ok(())
}
