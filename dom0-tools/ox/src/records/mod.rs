//! What the tools remember of each domain that they made: its configuration, and how far it is.
//!
//! There is a file for each name, on a tmpfs: it lasts as long as dom0 runs. Whoever wants to change something about a name
//! first holds its lock ([`Held`]). The lock goes with the process that has it, the record stays: so a record says at any time
//! what is to be finished or taken back if that process is killed.

mod held;

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oxen_config::DomainConfig;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use held::Held;

/// Where records are kept.
pub const DIRECTORY: &str = "/run/oxen/domains";
/// How the names of all files begin.
const PREFIX: &str = "_";
/// How the names of records end.
const RECORD: &str = ".json";
/// How the names of records end that are being written.
const NEW: &str = ".new";
/// How the names of locks end.
const LOCK: &str = ".lock";

/// What there is to know of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Identity; a restart keeps it.
    pub uuid: Uuid,
    /// What it is made from. The name in it is the record's.
    pub config: DomainConfig,
    /// How far it is.
    pub phase: Phase,
    /// How often it was made again.
    pub restarts: u32,
    /// Lives in a row that ended soon, and attempts to make it again that failed.
    pub in_vain: u32,
}

/// How far a domain is. Times are seconds since dom0 started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is being made for the first time. Without somebody who holds the lock, what there is of it is taken back.
    Making,
    /// It runs; when it stops, something is to be done.
    Running {
        /// Its number.
        domid: u16,
        /// When it started.
        since: u64,
    },
    /// It is there, and stays as it is when it stops.
    Kept {
        /// Its number.
        domid: u16,
    },
    /// It is being destroyed.
    Ending {
        /// Its number.
        domid: u16,
    },
    /// It gets another name and identity, and is then made again.
    Renaming {
        /// Its number.
        domid: u16,
        /// Its new name.
        name: String,
        /// Its new identity.
        uuid: Uuid,
        /// When it is to be made again.
        not_before: u64,
    },
    /// It is to be made again.
    Restarting {
        /// The number of its former self, which is to be destroyed first.
        old: Option<u16>,
        /// Not earlier than this.
        not_before: u64,
    },
}

impl Phase {
    /// The number of the domain that there is.
    pub fn domid(&self) -> Option<u16> {
        match self {
            Phase::Running { domid, .. }
            | Phase::Kept { domid }
            | Phase::Ending { domid }
            | Phase::Renaming { domid, .. } => Some(*domid),
            Phase::Restarting { old, .. } => *old,
            Phase::Making => None,
        }
    }
}

impl Record {
    /// The domain's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }
}

/// All records of a directory. One that cannot be read is left out, with a warning: the others are worth having.
pub fn all(directory: &Path) -> io::Result<Vec<Record>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !path
            .as_os_str()
            .as_encoded_bytes()
            .ends_with(RECORD.as_bytes())
        {
            continue;
        }
        match read(&path) {
            Ok(record) => records.extend(record),
            Err(error) => log::warn!("{} is left out: {error}", path.display()),
        }
    }
    records.sort_by(|a: &Record, b| a.name().cmp(b.name()));
    Ok(records)
}

/// The record of the domain with this number, if one of ours is.
pub fn of_domain(directory: &Path, domid: u16, uuid: Uuid) -> io::Result<Option<Record>> {
    let found = all(directory)?.into_iter().find(|record| {
        record.uuid == uuid && record.phase.domid().is_none_or(|number| number == domid)
    });
    Ok(found)
}

/// The record of a name.
pub fn of_name(directory: &Path, name: &str) -> io::Result<Option<Record>> {
    read(&path(directory, name, RECORD))
}

fn read(path: &Path) -> io::Result<Option<Record>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
    }
}

/// Replaces a record at once: a reader sees the old one or the new one.
fn write(path: &Path, new: &Path, record: &Record) -> io::Result<()> {
    let bytes = serde_json::to_vec(record)?;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(&bytes)?;
    fs::rename(new, path)
}

/// Names have no "/" and are shorter than a file's name can be; the prefix keeps "." and ".." what they are.
fn path(directory: &Path, name: &str, suffix: &str) -> PathBuf {
    directory.join(format!("{PREFIX}{name}{suffix}"))
}

#[cfg(test)]
mod tests;
