//! The state file: what must outlive the daemon, as a list of changes that grows and is rewritten now and then.
//!
//! One line is one turn of the daemon: it counts as a whole or, if a crash cut it short, not at all. A turn is written
//! before anybody hears of its outcome.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oxen_xenstore::store::{Change, latin1};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// First line of the file.
const HEADER: &str = "oxen xenstored state 1";
/// The file is rewritten when it is larger than this and than thrice its last rewrite.
const REWRITE_ABOVE: u64 = 1 << 20;

/// One thing to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Of the store.
    Store(Change),
    /// A ring begins, or is written down whole.
    Ring {
        /// Its domain.
        domain: u16,
        /// Index up to which requests are taken.
        consumed: u32,
        /// Bytes taken of which no request was made yet.
        #[serde(with = "latin1")]
        partial: Vec<u8>,
        /// Index up to which responses are out.
        produced: u32,
        /// Bytes that wait to go out.
        #[serde(with = "latin1")]
        waiting: Vec<u8>,
    },
    /// Requests were taken from a ring.
    Received {
        /// Its domain.
        domain: u16,
        /// Index up to which they are taken.
        consumed: u32,
        /// Bytes taken of which no request was made yet.
        #[serde(with = "latin1")]
        partial: Vec<u8>,
    },
    /// Bytes were put at the end of what waits to go out to a ring.
    Sent {
        /// Its domain.
        domain: u16,
        /// The bytes.
        #[serde(with = "latin1")]
        bytes: Vec<u8>,
    },
}

/// The state file, open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    rewritten: u64,
    /// Held as long as the daemon runs.
    _lock: File,
}

impl Journal {
    /// Makes sure that no other daemon uses this file, and reads what it holds.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>)> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path);
        let lock = lock.with_context(|| format!("cannot open {}", lock_path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another xenstored runs with {}; stop it first",
                path.display()
            );
        }
        let records = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => vec![],
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            Ok(bytes) => parse(&bytes).or_else(|error| {
                let aside = path.with_extension("bad");
                log::error!(
                    "{} makes no sense ({error:#}); it is kept as {}",
                    path.display(),
                    aside.display()
                );
                fs::rename(path, &aside)
                    .map(|()| vec![])
                    .with_context(|| format!("cannot rename {}", path.display()))
            })?,
        };
        Ok((
            Self {
                path: path.to_owned(),
                file: None,
                size: 0,
                rewritten: 0,
                _lock: lock,
            },
            records,
        ))
    }

    /// Adds a turn's records.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let line = line(records)?;
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| io::Error::other("the file was not written whole yet"))?;
        if let Err(error) = file.write_all(&line) {
            // What stands there now is no whole line: nothing may follow it.
            self.file = None;
            return Err(error);
        }
        self.size += u64::try_from(line.len()).unwrap_or(0);
        Ok(())
    }

    /// Whether it is time for [`Self::rewrite`].
    pub fn wants_rewrite(&self) -> bool {
        self.file.is_none() || self.size > REWRITE_ABOVE.max(self.rewritten.saturating_mul(3))
    }

    /// Replaces all that was recorded by `records`, at once.
    pub fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut bytes = format!("{HEADER}\n").into_bytes();
        bytes.extend(line(records)?);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, &self.path)?;
        self.size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.rewritten = self.size;
        self.file = Some(file);
        Ok(())
    }
}

fn line(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(records)?;
    line.push(b'\n');
    Ok(line)
}

fn parse(bytes: &[u8]) -> Result<Vec<Record>> {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').enumerate();
    let header = lines.next().map(|(_, line)| line);
    if header != Some(format!("{HEADER}\n").as_bytes()) {
        bail!("its first line is not `{HEADER}`");
    }
    let mut records = vec![];
    for (nth, line) in lines {
        if line.ends_with(b"\n") {
            let batch: Vec<Record> =
                serde_json::from_slice(line).with_context(|| format!("line {}", nth + 1))?;
            records.extend(batch);
        } else {
            log::warn!("the last turn was not written whole and does not count");
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(consumed: u32) -> Record {
        Record::Received {
            domain: 1,
            consumed,
            partial: vec![0, 255],
        }
    }

    #[test]
    fn what_is_appended_is_read_again_and_a_torn_line_is_not() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("state");
        let (mut journal, records) = Journal::open(&path)?;
        assert!(records.is_empty() && journal.wants_rewrite());
        assert!(journal.append(&[received(0)]).is_err());
        journal.rewrite(&[received(1)])?;
        journal.append(&[received(2), received(3)])?;
        assert!(Journal::open(&path).is_err(), "two daemons at once");
        drop(journal);
        OpenOptions::new()
            .append(true)
            .open(&path)?
            .write_all(b"[{\"received\":")?;
        let (mut journal, records) = Journal::open(&path)?;
        assert_eq!(records, [received(1), received(2), received(3)]);
        journal.rewrite(&[])?;
        drop(journal);
        assert_eq!(Journal::open(&path)?.1, []);
        Ok(())
    }

    #[test]
    fn a_file_of_nonsense_is_put_aside() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("state");
        fs::write(&path, "nonsense\n")?;
        assert_eq!(Journal::open(&path)?.1, []);
        assert!(path.with_extension("bad").exists());
        Ok(())
    }
}
