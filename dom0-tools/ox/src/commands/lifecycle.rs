//! Verbs that change how a running domain goes on.

use std::time::Duration;

use super::{not_control_domain, write_nodes};
use crate::cli::TriggerEvent;
use crate::failure::{Context, Failure};
use crate::host::Toolstack;
use crate::names;

/// How often a state is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(100);

/// How long the console daemon may take to offer a terminal.
const TTY_WAIT: Duration = Duration::from_secs(5);

/// `ox pause`.
pub fn pause(word: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let domid = names::resolve(host, word)?.domid;
    not_control_domain(domid, "paused")?;
    let xen = host.xen()?;
    xen.pause(domid).context(|| format!("pause domain {domid}"))
}

/// `ox unpause`.
pub fn unpause(word: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let state = names::resolve(host, word)?;
    let domid = state.domid;
    if !state.paused {
        return Err(Failure::Usage(format!("domain {domid} is not paused")));
    }
    let xen = host.xen()?;
    xen.unpause(domid)
        .context(|| format!("unpause domain {domid}"))
}

/// `ox console`.
pub fn console(word: &str, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let domid = names::resolve(host, word)?.domid;
    if domid == 0 {
        return Err(Failure::Usage(
            "domain 0 has no console of its own: this is it".to_owned(),
        ));
    }
    attach(domid, host)
}

/// Attaches to a console as soon as the console daemon has made a terminal for it.
pub fn attach(domid: u16, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let path = format!("{}/console/tty", names::path(domid));
    let mut waited = Duration::ZERO;
    loop {
        let tty = host
            .store()?
            .read(&path)
            .context(|| format!("read {path} in xenstore"))?;
        match tty {
            Some(tty) if !tty.is_empty() => return host.attach(&tty),
            _ if waited >= TTY_WAIT => {
                return Err(Failure::TimedOut(format!(
                    "domain {domid} runs, but its console has no terminal after {} s; is xenconsoled running?",
                    TTY_WAIT.as_secs()
                )));
            }
            _ => {}
        }
        host.sleep(POLL);
        waited += POLL;
    }
}

/// `ox trigger`.
pub fn trigger(
    word: &str,
    event: TriggerEvent,
    vcpu: u32,
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let state = names::resolve(host, word)?;
    if vcpu >= state.vcpus {
        return Err(Failure::Usage(format!(
            "domain {} has vCPUs 0 to {}, not {vcpu}",
            state.domid,
            state.vcpus.saturating_sub(1)
        )));
    }
    // The numbers of XEN_DOMCTL_SENDTRIGGER_*.
    let number = match event {
        TriggerEvent::Nmi => 0,
        TriggerEvent::Reset => 1,
        TriggerEvent::Init => 2,
        TriggerEvent::Power => 3,
        TriggerEvent::Sleep => 4,
    };
    let xen = host.xen()?;
    xen.trigger(state.domid, number, vcpu)
        .context(|| format!("send {event:?} to domain {}", state.domid).to_lowercase())
}

/// `ox sysrq`.
pub fn sysrq(word: &str, letter: char, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let domid = names::resolve(host, word)?.domid;
    if !letter.is_ascii_alphanumeric() {
        return Err(Failure::Usage(format!(
            "{letter:?} is no system request: they are letters and digits"
        )));
    }
    let node = ("control/sysrq".to_owned(), letter.to_string());
    write_nodes(host, domid, &[node], "send a system request to")
}
