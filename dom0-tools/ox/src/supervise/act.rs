//! The steps by which a domain comes to its end, or to its next life. Each leads from one record to the next, and can be done again
//! if the supervisor is killed in it.

use oxen_config::Action;
use uuid::Uuid;

use super::due::{ATTEMPTS, Due, action, due, in_vain, pause};
use super::journal::{Journal, Note};
use crate::commands::rename::rename_nodes;
use crate::dump::{dump, stamp};
use crate::failure::{Context, Failure};
use crate::host::{Change, Toolstack};
use crate::make::make;
use crate::records::{Held, Phase, Record};
use crate::{ending, names, tree};

/// Does what is due about the domain whose name is held.
pub fn act(held: &Held, host: &mut dyn Toolstack, journal: &Journal) -> Result<(), Failure> {
    loop {
        let record = held.read().context(|| "read a record".to_owned())?;
        let Some(record) = record else {
            return Ok(());
        };
        let domains = host.xen()?.domains();
        let domains = domains.context(|| "list the domains".to_owned())?;
        if due(&record, &domains, now(host)) != Due::Now {
            return Ok(());
        }
        let about = || format!("keep the record of {}", record.name());
        match step(&record, host, journal)? {
            Some(next) => held.write(&next).context(about)?,
            None => held.remove().context(about)?,
        }
    }
}

/// One step; gives the record that comes of it, or none if nothing is left.
fn step(
    record: &Record,
    host: &mut dyn Toolstack,
    journal: &Journal,
) -> Result<Option<Record>, Failure> {
    let note = |event| Note::about(record, event);
    let with = |phase| {
        Some(Record {
            phase,
            ..record.clone()
        })
    };
    match &record.phase {
        Phase::Making => {
            journal.write(note("taken-back").why("the tool that was making it was killed"));
            ending::end(host, None, record.uuid)?;
            Ok(None)
        }
        Phase::Running { domid, since } => stopped(record, *domid, *since, host, journal),
        Phase::Kept { domid } | Phase::Ending { domid } => {
            ending::end(host, Some(*domid), record.uuid)?;
            journal.write(note("ended"));
            Ok(None)
        }
        Phase::Renaming {
            domid,
            name,
            uuid,
            not_before,
        } => {
            preserve(*domid, name, record.uuid, *uuid, host)?;
            journal.write(note("renamed").to(name));
            Ok(with(Phase::Restarting {
                old: None,
                not_before: *not_before,
            }))
        }
        Phase::Restarting {
            old: Some(domid),
            not_before,
        } => {
            ending::end(host, Some(*domid), record.uuid)?;
            if *not_before > now(host) {
                let seconds = not_before.saturating_sub(now(host));
                let lives = record.in_vain;
                journal.write(note("waits").why(&format!(
                    "{lives} lives in a row were short; the next one begins in {seconds} s"
                )));
            }
            Ok(with(Phase::Restarting {
                old: None,
                not_before: *not_before,
            }))
        }
        Phase::Restarting { old: None, .. } => restart(record, host, journal),
    }
}

/// A domain has stopped, or is gone without our doing.
fn stopped(
    record: &Record,
    domid: u16,
    since: u64,
    host: &mut dyn Toolstack,
    journal: &Journal,
) -> Result<Option<Record>, Failure> {
    let state = ending::find(host, record.uuid)?.filter(|state| state.domid == domid);
    let reason = state.and_then(|state| if state.dying { None } else { state.shutdown });
    let Some(reason) = reason else {
        journal.write(Note::about(record, "gone").why("somebody else destroyed it"));
        ending::end(host, Some(domid), record.uuid)?;
        return Ok(None);
    };
    let wanted = action(&record.config.actions, reason);
    journal.write(Note::about(record, "stopped").reason(reason).action(wanted));
    let now = now(host);
    let mut next = record.clone();
    next.in_vain = in_vain(record.in_vain, since, now);
    let not_before = now + pause(next.in_vain);
    if matches!(wanted, Action::CoredumpDestroy | Action::CoredumpRestart) {
        keep_memory(record, domid, host, journal);
    }
    next.phase = match wanted {
        Action::Destroy | Action::CoredumpDestroy => Phase::Ending { domid },
        Action::Preserve => Phase::Kept { domid },
        Action::Restart | Action::CoredumpRestart => Phase::Restarting {
            old: Some(domid),
            not_before,
        },
        Action::SoftReset => {
            journal
                .write(Note::about(record, "restarts").why(
                    "a soft reset, which keeps its memory, is not implemented: it boots anew",
                ));
            Phase::Restarting {
                old: Some(domid),
                not_before,
            }
        }
        Action::RenameRestart => Phase::Renaming {
            domid,
            name: format!("{}-{}", record.name(), stamp(host.unix_time())),
            uuid: Uuid::new_v4(),
            not_before,
        },
    };
    Ok(Some(next))
}

/// Makes a domain again.
fn restart(
    record: &Record,
    host: &mut dyn Toolstack,
    journal: &Journal,
) -> Result<Option<Record>, Failure> {
    // What a supervisor that was killed had made of it.
    ending::end(host, None, record.uuid)?;
    let mut next = record.clone();
    match make(host, &record.config, record.uuid, false) {
        Ok(domid) => {
            next.restarts = next.restarts.saturating_add(1);
            next.phase = Phase::Running {
                domid,
                since: now(host),
            };
            journal.write(Note::about(&next, "started"));
            Ok(Some(next))
        }
        Err(failure) => {
            next.in_vain = next.in_vain.saturating_add(1);
            journal.write(Note::about(record, "not-started").why(&failure.to_string()));
            if next.in_vain > ATTEMPTS {
                journal.write(Note::about(record, "given-up").why(
                    "it could not be made again for too many times; `ox create` starts it when that is mended",
                ));
                return Ok(None);
            }
            next.phase = Phase::Restarting {
                old: None,
                not_before: now(host) + pause(next.in_vain).max(1),
            };
            Ok(Some(next))
        }
    }
}

/// Gives a domain that has stopped another name and another identity, so that it can be looked at beside its next life.
fn preserve(
    domid: u16,
    name: &str,
    old: Uuid,
    new: Uuid,
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let about = || format!("rename domain {domid} to {name}");
    let vm = tree::vm_path(new);
    let value = |path: &str, value: String| Change::Write {
        path: path.to_owned(),
        value,
        access: None,
    };
    let store = host.store()?;
    let started = store
        .read(&format!("{}/start_time", tree::vm_path(old)))
        .context(about)?;
    let mut changes = vec![
        value(&vm, String::new()),
        value(&format!("{vm}/uuid"), new.to_string()),
        value(&format!("{vm}/name"), name.to_owned()),
        value(&format!("{}/vm", names::path(domid)), vm.clone()),
        tree::remove(tree::vm_path(old)),
    ];
    changes.extend(started.map(|time| value(&format!("{vm}/start_time"), time)));
    store.apply(&changes).context(about)?;
    rename_nodes(domid, name, host)?;
    host.xen()?.set_uuid(domid, new).context(about)
}

/// A dump that fails is no reason to keep the domain from its next life.
fn keep_memory(record: &Record, domid: u16, host: &mut dyn Toolstack, journal: &Journal) {
    journal.write(match dump(host, domid, record.name(), None) {
        Ok(path) => Note::about(record, "dumped").to(&path.display().to_string()),
        Err(failure) => Note::about(record, "not-dumped").why(&failure.to_string()),
    });
}

fn now(host: &dyn Toolstack) -> u64 {
    host.uptime().unwrap_or(0)
}
