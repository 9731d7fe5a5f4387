//! What the verbs for disks and for network cards have in common.

use std::io::Write;

use oxen_config::DomainConfig;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::BlockList;
use crate::devices::{Class, Device};
use crate::failure::{Context, Failure};
use crate::host::{Change, DomainState, Toolstack};
use crate::records::{Held, Record};
use crate::{names, output, records};

/// What a list says of a device of any class.
#[derive(Debug, Serialize)]
pub(super) struct Common {
    pub domain: u16,
    pub number: u32,
    /// `ox` or `kernel`.
    pub backend: &'static str,
    pub state: &'static str,
    /// Why it is not served.
    pub error: Option<String>,
    #[serde(skip)]
    pub device: Device,
}

impl Common {
    /// A cell's text, with the error behind it if there is one.
    pub(super) fn with_error(&self, text: &str) -> String {
        match &self.error {
            Some(error) => format!("{text} ({error})"),
            None => text.to_owned(),
        }
    }
}

/// A row of a list.
pub(super) trait Row: Serialize + Sized {
    const CLASS: &'static Class;
    const HEADER: &'static [&'static str];
    /// Columns with numbers.
    const RIGHT: &'static [usize];

    /// From the nodes of the back end.
    fn new(
        common: Common,
        read: &mut dyn FnMut(&str) -> Result<Option<String>, Failure>,
    ) -> Result<Self, Failure>;

    fn cells(&self) -> Vec<String>;
}

/// The devices of a domain.
pub(super) fn rows<R: Row>(domid: u16, host: &mut dyn Toolstack) -> Result<Vec<R>, Failure> {
    let devices = R::CLASS.devices(domid, host)?;
    let store = host.store()?;
    let row = |device: Device| {
        let about = || format!("list the {} of domain {domid}", R::CLASS.plural);
        let error = device.error(store).context(about)?;
        let back = device.back.clone();
        let mut read = |key: &str| store.read(&format!("{back}/{key}")).context(about);
        let common = Common {
            domain: domid,
            number: device.number,
            backend: device.server.name(),
            state: state_name(read("state")?.as_deref()),
            error,
            device,
        };
        R::new(common, &mut read)
    };
    devices.into_iter().map(row).collect()
}

/// Shows the devices of domains.
pub(super) fn list<R: Row>(
    arguments: &BlockList,
    host: &mut dyn Toolstack,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut all: Vec<R> = Vec::new();
    for (state, _) in names::resolve_all(host, &arguments.domains)? {
        all.extend(rows(state.domid, host)?);
    }
    if arguments.json.json {
        return output::json(out, &all);
    }
    output::table(out, R::HEADER, R::RIGHT, all.iter().map(Row::cells))
}

/// Makes a device, and waits until it is served; `name` is what its user calls it. If it is not, nothing of it is left.
pub(super) fn make(
    class: &Class,
    device: &Device,
    name: &str,
    creation: &[Change],
    host: &mut dyn Toolstack,
) -> Result<(), Failure> {
    let made = host.store()?.apply(creation);
    made.context(|| format!("attach {name}"))?;
    class.wait(device, name, host).inspect_err(|_| {
        // It was never there for the guest.
        if let Ok(store) = host.store() {
            let _ = device.remove(store);
        }
    })
}

/// A domain whose devices are to be changed.
#[derive(Debug)]
pub(super) struct Guest {
    pub domid: u16,
    pub uuid: Uuid,
    /// Its record, and the lock of its name: nobody else changes it, ends it or makes it again meanwhile. One without a record lives once.
    record: Option<(Held, Record)>,
}

/// The domain that is meant, which must not be this one.
pub(super) fn guest(word: &str, host: &mut dyn Toolstack) -> Result<Guest, Failure> {
    let DomainState { domid, uuid, .. } = names::resolve(host, word)?;
    super::not_control_domain(domid, "given devices")?;
    let about = || format!("read the record of domain {domid}");
    let seen = records::of_domain(&host.records(), domid, uuid).context(about)?;
    let Some(seen) = seen else {
        return Ok(Guest {
            domid,
            uuid,
            record: None,
        });
    };
    let held = names::hold(host, seen.name())?;
    // It may have ended while the lock was waited for, or have another name or number now.
    let record = held.read().context(about)?;
    let record = record.filter(|now| now.uuid == uuid && now.phase.domid() == Some(domid));
    let there = host.xen()?.domain(domid).context(about)?;
    match (record, there.is_some_and(|there| there.uuid == uuid)) {
        (Some(record), true) => Ok(Guest {
            domid,
            uuid,
            record: Some((held, record)),
        }),
        _ => Err(Failure::NoDomain(word.to_owned())),
    }
}

impl Guest {
    /// Changes what it is made from when it is made again.
    pub(super) fn change(mut self, change: impl FnOnce(&mut DomainConfig)) -> Result<(), Failure> {
        if let Some((held, record)) = &mut self.record {
            change(&mut record.config);
            let about = || format!("write the record of domain {}", self.domid);
            held.write(record).context(about)?;
        }
        Ok(())
    }
}

/// Takes both ends of a device away, now and for the domain's later lives.
pub(super) fn take_away(
    guest: Guest,
    device: &Device,
    host: &mut dyn Toolstack,
    change: impl FnOnce(&mut DomainConfig),
) -> Result<(), Failure> {
    let removed = device.remove(host.store()?);
    removed.context(|| format!("detach {} from domain {}", device.front, guest.domid))?;
    guest.change(change)
}

fn state_name(state: Option<&str>) -> &'static str {
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
