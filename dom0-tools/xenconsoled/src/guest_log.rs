//! The log file of a guest's console: all that it wrote, up to a bound, then the newest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LONGEST_NAME: usize = 64;

/// A log in two files: `guest-NAME.log`, and what was in it before as `guest-NAME.log.1`.
#[derive(Debug)]
pub struct GuestLog {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl GuestLog {
    /// Opens the log of a guest for appending; a file has `limit` bytes at most.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn open(directory: &Path, name: &str, domid: u16, limit: u64) -> io::Result<Self> {
        let path = directory.join(format!("guest-{}.log", file_name(name, domid)));
        let file = open(&path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            path,
            file,
            limit,
        })
    }

    /// Appends.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            self.file = open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// A guest's name as part of a file's name: nothing that leads out of the directory.
fn file_name(name: &str, domid: u16) -> String {
    let name: String = name
        .chars()
        .take(LONGEST_NAME)
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    if name.is_empty() {
        format!("domain-{domid}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_log_stays_in_its_bound_and_keeps_the_newest() {
        let directory = TempDir::new().expect("a directory");
        let mut log = GuestLog::open(directory.path(), "demo", 1, 100).expect("a log");
        for i in 0..100 {
            log.write(format!("line {i:4}\n").as_bytes())
                .expect("it is written");
        }
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect("a log");
        let (new, old) = (read("guest-demo.log"), read("guest-demo.log.1"));
        assert!(new.len() <= 100 && old.len() <= 100);
        assert!(new.ends_with("line   99\n"));
    }

    #[test]
    fn a_restart_appends() {
        let directory = TempDir::new().expect("a directory");
        for text in [b"one ", b"two "] {
            let mut log = GuestLog::open(directory.path(), "a", 1, 100).expect("a log");
            log.write(text).expect("it is written");
        }
        let text = fs::read(directory.path().join("guest-a.log")).expect("a log");
        assert_eq!(text, b"one two ");
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        assert_eq!(file_name("../../etc/passwd", 3), ".._.._etc_passwd");
        assert_eq!(file_name("", 3), "domain-3");
        assert_eq!(file_name("a\0b\u{e9}", 3), "a_b_");
        assert_eq!(file_name(&"x".repeat(500), 3).len(), LONGEST_NAME);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = TempDir::new().expect("a directory");
        let target = directory.path().join("target");
        std::os::unix::fs::symlink(&target, directory.path().join("guest-a.log")).expect("a link");
        assert!(GuestLog::open(directory.path(), "a", 1, 100).is_err());
        assert!(!target.exists());
    }
}
