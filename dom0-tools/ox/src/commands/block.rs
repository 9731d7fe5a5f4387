//! `ox block-attach`, `ox block-detach` and `ox block-list`.

use oxen_config::DiskSpec;
use oxen_config::disk::vdev_number;
use serde::Serialize;

use super::devices::{self, Common, Row};
use crate::cli::BlockDetach;
use crate::devices::{Class, DISKS};
use crate::disks::{self, Disk};
use crate::failure::{Context, Failure};
use crate::host::Toolstack;

/// A disk that a domain has.
#[derive(Debug, Serialize)]
pub(super) struct DiskRow {
    #[serde(flatten)]
    common: Common,
    vdev: String,
    read_only: bool,
    target: String,
}

impl Row for DiskRow {
    const CLASS: &'static Class = &DISKS;
    const HEADER: &'static [&'static str] = &[
        "Dom", "Vdev", "Number", "Backend", "State", "Mode", "Target",
    ];
    const RIGHT: &'static [usize] = &[0, 2];

    fn new(
        common: Common,
        read: &mut dyn FnMut(&str) -> Result<Option<String>, Failure>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            common,
            vdev: read("dev")?.unwrap_or_default(),
            read_only: read("mode")?.as_deref() != Some("w"),
            target: read("params")?.unwrap_or_default(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let common = &self.common;
        vec![
            common.domain.to_string(),
            self.vdev.clone(),
            common.number.to_string(),
            common.backend.to_owned(),
            common.state.to_owned(),
            if self.read_only { "r" } else { "w" }.to_owned(),
            common.with_error(&self.target),
        ]
    }
}

/// Gives a domain a disk, also for its later lives.
pub fn attach(word: &str, spec: &[String], host: &mut dyn Toolstack) -> Result<(), Failure> {
    let guest = devices::guest(word, host)?;
    let domid = guest.domid;
    let mut spec =
        DiskSpec::from_words(spec).map_err(|error| Failure::Usage(format!("{error}")))?;
    disks::locate(&mut spec)?;
    let disk = Disk::check(&spec)?;
    let device = disk.device(domid);
    let there = host.store()?.read(&device.front);
    let there = there.context(|| format!("attach {} to domain {domid}", spec.vdev))?;
    if there.is_some() {
        return Err(Failure::Usage(format!(
            "domain {domid} has a disk {} already; `ox block-list` shows all",
            spec.vdev
        )));
    }
    devices::make(&DISKS, &device, &disk.name(), &disk.creation(domid), host)?;
    guest.change(|config| config.disks.push(spec.clone()))
}

/// Takes a disk away from a domain, also for its later lives.
pub fn detach(arguments: &BlockDetach, host: &mut dyn Toolstack) -> Result<(), Failure> {
    let guest = devices::guest(&arguments.domain, host)?;
    let domid = guest.domid;
    let word = &arguments.device;
    let number = vdev_number(word)
        .ok_or_else(|| Failure::Usage(format!("{word:?} is no disk; write xvda, or a number")))?;
    let disks = DISKS.devices(domid, host)?;
    let disk = disks.into_iter().find(|disk| disk.number == number);
    let disk = disk.ok_or_else(|| {
        Failure::Usage(format!(
            "domain {domid} has no disk {word}; `ox block-list` shows all"
        ))
    })?;
    if !arguments.force && !disk.close(host)? {
        return Err(Failure::TimedOut(format!(
            "domain {domid} has not let go of {word}; try again, or --force: then what it has not written is lost"
        )));
    }
    devices::take_away(guest, &disk, host, |config| {
        config.disks.retain(|disk| disk.number() != Some(number));
    })
}
