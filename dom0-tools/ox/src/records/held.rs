//! The right to change something about a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{LOCK, NEW, PREFIX, RECORD, Record, path, read, write};

/// The lock of a name, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Held {
    lock: PathBuf,
    record: PathBuf,
    new: PathBuf,
    // Closing it gives the lock back.
    _file: File,
}

impl Held {
    /// Waits for the lock of a name.
    pub fn take(directory: &Path, name: &str) -> io::Result<Self> {
        if let Some(held) = Self::try_take(directory, name)? {
            return Ok(held);
        }
        log::info!("another tool is at work on {name}; waiting for it");
        loop {
            let file = open(directory, name)?;
            flock(&file, FlockOperation::LockExclusive)?;
            if let Some(held) = Self::of(directory, name, file)? {
                return Ok(held);
            }
        }
    }

    /// Takes the lock of a name if nobody has it.
    pub fn try_take(directory: &Path, name: &str) -> io::Result<Option<Self>> {
        loop {
            // A look that finds it taken must not look like the end of a lock to the supervisor, see `open`.
            if let Ok(file) = File::open(path(directory, name, LOCK))
                && !lock_now(&file)?
            {
                return Ok(None);
            }
            let file = open(directory, name)?;
            if !lock_now(&file)? {
                return Ok(None);
            }
            if let Some(held) = Self::of(directory, name, file)? {
                return Ok(Some(held));
            }
        }
    }

    /// Removes the locks that nobody holds, and records that were not written whole: their owners were killed.
    pub fn sweep(directory: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let file_name = entry?.file_name();
            let name = file_name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .and_then(|name| name.strip_suffix(LOCK).or_else(|| name.strip_suffix(NEW)));
            let Some(name) = name else {
                continue;
            };
            if let Some(held) = Self::try_take(directory, name)? {
                match fs::remove_file(&held.new) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The file may have been removed by who had the lock before: then it is not the lock any more.
    fn of(directory: &Path, name: &str, file: File) -> io::Result<Option<Self>> {
        let lock = path(directory, name, LOCK);
        let there = match fs::metadata(&lock) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            there => there?,
        };
        let own = file.metadata()?;
        Ok(
            ((there.dev(), there.ino()) == (own.dev(), own.ino())).then(|| Self {
                lock,
                record: path(directory, name, RECORD),
                new: path(directory, name, NEW),
                _file: file,
            }),
        )
    }

    /// The record, if there is one.
    pub fn read(&self) -> io::Result<Option<Record>> {
        read(&self.record)
    }

    /// Writes the record.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        write(&self.record, &self.new, record)
    }

    /// Removes the record.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.record) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One that is left does no harm. It is removed while it is still locked, so that nobody waits for a file without a name.
        let _ = fs::remove_file(&self.lock);
    }
}

/// False if another has it.
fn lock_now(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Opened for writing, so that the kernel tells the supervisor (inotify) when a killed tool's lock is closed.
fn open(directory: &Path, name: &str) -> io::Result<File> {
    let lock = path(directory, name, LOCK);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    match options.open(&lock) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
            options.open(&lock)
        }
        result => result,
    }
}
