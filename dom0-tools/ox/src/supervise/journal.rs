//! What the supervisor did and why: a line of JSON each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oxen_config::Action;
use serde::Serialize;
use uuid::Uuid;

use crate::records::Record;

/// The file is put aside, in place of the one before, when it is larger than this.
const LARGEST: u64 = 1 << 20;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Note {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domid: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Note {
    /// Of the supervisor itself.
    pub fn new(event: &'static str) -> Self {
        Self {
            event,
            name: None,
            domid: None,
            uuid: None,
            reason: None,
            action: None,
            to: None,
            why: None,
        }
    }

    /// Of a domain.
    pub fn about(record: &Record, event: &'static str) -> Self {
        Self {
            name: Some(record.name().to_owned()),
            domid: record.phase.domid(),
            uuid: Some(record.uuid),
            ..Self::new(event)
        }
    }

    /// Why a domain stopped.
    pub fn reason(self, reason: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..self
        }
    }

    /// What is done about it.
    pub fn action(self, action: Action) -> Self {
        Self {
            action: Some(action),
            ..self
        }
    }

    /// What came of it: a name or a file.
    pub fn to(self, to: &str) -> Self {
        Self {
            to: Some(to.to_owned()),
            ..self
        }
    }

    /// An explanation.
    pub fn why(self, why: &str) -> Self {
        Self {
            why: Some(why.to_owned()),
            ..self
        }
    }
}

/// The file that notes go to.
pub struct Journal {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Journal {
    /// Opens the file. Without one, notes go to standard error.
    pub fn open(path: &Path) -> Self {
        let file = open(path).inspect_err(|error| {
            log::warn!("{}: {error}; what happens is told here", path.display());
        });
        Self {
            path: path.to_owned(),
            file: Mutex::new(file.ok()),
        }
    }

    /// Writes a line.
    pub fn write(&self, note: Note) {
        #[derive(Serialize)]
        struct Line<'a> {
            time: String,
            #[serde(flatten)]
            note: &'a Note,
        }
        let time = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let line = serde_json::to_string(&Line { time, note: &note }).unwrap_or_default();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *file {
            Some(open) => append(open, &line),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match written {
            Ok(size) if size > LARGEST => *file = self.put_aside(),
            Ok(_) => {}
            Err(_) => eprintln!("{line}"),
        }
    }

    fn put_aside(&self) -> Option<File> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        fs::rename(&self.path, old)
            .and_then(|()| open(&self.path))
            .ok()
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn append(file: &mut File, line: &str) -> io::Result<u64> {
    // One write: lines of two threads, or of two supervisors in a row, do not mix.
    file.write_all(format!("{line}\n").as_bytes())?;
    Ok(file.metadata()?.len())
}
