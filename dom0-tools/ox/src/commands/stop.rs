//! `ox shutdown` and `ox reboot`: asking a guest through xenstore.

use std::time::Duration;

use super::{not_control_domain, wait, write_nodes};
use crate::cli::Stop;
use crate::failure::{Context, Failure};
use crate::host::{DomainState, Toolstack};
use crate::names;

/// How long a guest may take to take a request, if the user does not say.
const ANSWER: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Power off.
    PowerOff,
    /// Reboot.
    Reboot,
}

impl Request {
    /// The word that guests read.
    fn word(self) -> &'static str {
        match self {
            Request::PowerOff => "poweroff",
            Request::Reboot => "reboot",
        }
    }
}

/// Asks; and waits, if that is wanted.
pub fn run(stop: &Stop, request: Request, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let targets: Vec<_> = match &stop.domain {
        Some(word) => vec![names::resolve(host, word)?],
        None => names::resolve_all(host, &[])?
            .into_iter()
            .map(|(state, _)| state)
            .filter(|state| state.domid != 0 && state.shutdown.is_none() && !state.dying)
            .collect(),
    };
    for target in &targets {
        ask(target, request, host)?;
    }
    let limit = stop.timeout.map(Duration::from_secs);
    let answer = limit.unwrap_or(ANSWER);
    for target in targets.iter().filter(|target| !target.paused) {
        until_taken(target.domid, request, answer, host)?;
    }
    for target in &targets {
        match (stop.wait, request) {
            (0, _) => {}
            (1, _) => wait::until_stopped(target, limit, host)?,
            (_, Request::PowerOff) => wait::until_ended(target, limit, host)?,
            (_, Request::Reboot) => wait::until_started_again(target, limit, host)?,
        }
    }
    Ok(())
}

fn ask(target: &DomainState, request: Request, host: &mut dyn Toolstack) -> Result<(), Failure> {
    not_control_domain(target.domid, "stopped")?;
    if let Some(reason) = target.shutdown {
        return Err(Failure::Usage(format!(
            "domain {} has stopped already ({reason})",
            target.domid
        )));
    }
    if target.paused {
        log::warn!(
            "domain {} is paused and sees the request only when it is unpaused",
            target.domid
        );
    }
    let word = request.word();
    let node = ("control/shutdown".to_owned(), word.to_owned());
    write_nodes(host, target.domid, &[node], word)
}

/// A guest that takes a request empties the node. One that does not has no driver for it, or hangs, or has not booted so far.
fn until_taken(
    domid: u16,
    request: Request,
    limit: Duration,
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let path = format!("{}/control/shutdown", names::path(domid));
    let mut waited = Duration::ZERO;
    loop {
        let node = host
            .store()?
            .read(&path)
            .context(|| format!("read {path} in xenstore"))?;
        if node.as_deref() != Some(request.word()) || wait::has_stopped(domid, host)? {
            return Ok(());
        }
        if waited >= limit {
            return Err(Failure::TimedOut(format!(
                "domain {domid} has not taken the request to {} within {} s: it may not have booted so far (see `ox console {domid}`), hang, or have no driver for it; `ox destroy {domid}` does not ask",
                match request {
                    Request::PowerOff => "power off",
                    Request::Reboot => "reboot",
                },
                waited.as_secs()
            )));
        }
        host.sleep(wait::POLL);
        waited += wait::POLL;
    }
}
