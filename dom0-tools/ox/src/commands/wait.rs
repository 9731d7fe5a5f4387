//! Waiting for what becomes of a domain.

use std::time::Duration;

use uuid::Uuid;

use crate::failure::{Context, Failure};
use crate::host::{DomainState, Toolstack};
use crate::records::Phase;
use crate::{ending, records};

/// How often a state is looked at while waiting for it.
pub const POLL: Duration = Duration::from_millis(100);

/// Whether a domain has stopped, or is gone.
pub fn has_stopped(domid: u16, host: &mut dyn Toolstack) -> Result<bool, Failure> {
    let state = host.xen()?.domain(domid);
    let state = state.context(|| format!("look at domain {domid}"))?;
    Ok(state.is_none_or(|state| state.shutdown.is_some() || state.dying))
}

/// Until a domain has stopped.
pub fn until_stopped(
    target: &DomainState,
    limit: Option<Duration>,
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let domid = target.domid;
    let late = format!("domain {domid} has not stopped");
    until(limit, &late, host, |host| has_stopped(domid, host))
}

/// Until a domain is gone, or stays as it is by its configuration's wish.
pub fn until_ended(
    target: &DomainState,
    limit: Option<Duration>,
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let (domid, uuid) = (target.domid, target.uuid);
    let late = format!("domain {domid} is not gone");
    until(limit, &late, host, |host| {
        let state = ending::find(host, uuid)?.filter(|state| state.domid == domid);
        if state.is_none() {
            return Ok(true);
        }
        let record = records::of_domain(&host.records(), domid, uuid);
        let record = record.context(|| "read the records".to_owned())?;
        let stays = record.is_none_or(|record| matches!(record.phase, Phase::Kept { .. }))
            || !host.is_supervised();
        Ok(stays && has_stopped(domid, host)?)
    })
}

/// Until a domain has been made again, or it is clear that it will not be.
pub fn until_started_again(
    target: &DomainState,
    limit: Option<Duration>,
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let (domid, uuid) = (target.domid, target.uuid);
    let late = format!("domain {domid} has not started again");
    until(limit, &late, host, |host| {
        let record = of_identity(uuid, host)?;
        Ok(match record.map(|record| record.phase) {
            Some(Phase::Running { domid: now, .. }) if now != domid => true,
            Some(Phase::Running { .. }) => !host.is_supervised() && has_stopped(domid, host)?,
            Some(Phase::Restarting { .. } | Phase::Renaming { .. }) => false,
            Some(Phase::Making | Phase::Kept { .. } | Phase::Ending { .. }) | None => {
                has_stopped(domid, host)?
            }
        })
    })
}

/// Until a domain is gone for good: restarts do not count.
pub fn until_gone(name: &str, uuid: Uuid, host: &mut dyn Toolstack) -> Result<(), Failure> {
    until(None, name, host, |host| {
        Ok(of_identity(uuid, host)?.is_none() && ending::find(host, uuid)?.is_none())
    })
}

fn of_identity(uuid: Uuid, host: &mut dyn Toolstack) -> Result<Option<records::Record>, Failure> {
    let all = records::all(&host.records()).context(|| "read the records".to_owned())?;
    Ok(all.into_iter().find(|record| record.uuid == uuid))
}

fn until(
    limit: Option<Duration>,
    late: &str,
    host: &mut dyn Toolstack,
    mut done: impl FnMut(&mut dyn Toolstack) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut waited = Duration::ZERO;
    while !done(host)? {
        if limit.is_some_and(|limit| waited >= limit) {
            return Err(Failure::TimedOut(format!(
                "{late} after {} s; `ox list` shows how it is, `ox destroy` does not ask",
                waited.as_secs()
            )));
        }
        host.sleep(POLL);
        waited += POLL;
    }
    Ok(())
}
