//! What a worker leaves to the one after it: the journals of its rings (`oxen_ring`), in a file of this domain's memory.
//!
//! A device has a file as long as it has the same rings. The kernel keeps it, with all that was stored, when a worker or the manager is
//! killed; a machine that goes down takes it and the guests along. The manager removes it before a front end is told to bring new rings, and
//! with the device. The file says for which rings it is as well, for those of a guest that does not wait to be told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use oxen_xen::PAGE_SIZE;
use oxen_xen::shared_file::SharedFile;

use crate::DeviceId;

const SUFFIX: &str = ".journal";

/// The files of all devices of a kind, below a folder of their own.
#[derive(Clone, Debug)]
pub struct Journals {
    folder: PathBuf,
}

/// A ring's journal. It has the words that were asked for.
#[derive(Clone, Debug)]
pub struct Journal {
    file: Arc<SharedFile>,
    words: Range<usize>,
}

impl AsRef<[AtomicU32]> for Journal {
    #[inline]
    fn as_ref(&self) -> &[AtomicU32] {
        &(*self.file).as_ref()[self.words.clone()]
    }
}

impl Journals {
    /// Below a folder that is there, or will be.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Devices that have one.
    pub fn devices(&self) -> Vec<DeviceId> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        (entries.flatten())
            .filter_map(|entry| device_of(entry.file_name().to_str()?))
            .collect()
    }

    /// Whether a device has one.
    pub fn has(&self, device: DeviceId) -> bool {
        self.path(device).exists()
    }

    /// Removes a device's, if it has one: what comes next begins anew.
    ///
    /// # Errors
    /// It is there still.
    pub fn remove(&self, device: DeviceId) -> io::Result<()> {
        let path = self.path(device);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(named(&path, &error)),
            _ => Ok(()),
        }
    }

    /// A device's journals, one for each ring, of so many words each: what an earlier worker has left for the same rings, or zeroes. What the
    /// rings are, `rings` says in any way that is theirs only. Whoever calls this has made sure that no earlier worker is left.
    ///
    /// # Errors
    /// No file can be made there, or mapped.
    pub fn open(&self, device: DeviceId, rings: &str, words: &[usize]) -> io::Result<Vec<Journal>> {
        let path = self.path(device);
        let layout = Layout::new(rings, words);
        let file = (layout.found(&path))
            .and_then(|found| found.map_or_else(|| layout.make(&path), Ok))
            .and_then(|file| SharedFile::of(&file))
            .map_err(|error| named(&path, &error))?;
        let file = Arc::new(file);
        let parts = layout.parts.into_iter();
        let journals = parts.map(|words| Journal {
            file: file.clone(),
            words,
        });
        Ok(journals.collect())
    }

    fn path(&self, device: DeviceId) -> PathBuf {
        let name = format!("{}-{}{SUFFIX}", device.domid, device.number);
        self.folder.join(name)
    }
}

fn device_of(name: &str) -> Option<DeviceId> {
    let (domid, number) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    Some(DeviceId {
        domid: domid.parse().ok()?,
        number: number.parse().ok()?,
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("journal {}: {error}", path.display()))
}

/// What is where in a file.
struct Layout {
    /// The first pages.
    head: Vec<u8>,
    /// The journals, each in pages of its own: their rings' threads share no cache line.
    parts: Vec<Range<usize>>,
    /// Bytes of all.
    size: usize,
}

impl Layout {
    fn new(rings: &str, words: &[usize]) -> Self {
        let mut head = rings.as_bytes().to_vec();
        head.resize((head.len() + 1).next_multiple_of(PAGE_SIZE), 0);
        let mut size = head.len();
        let parts = words.iter().map(|&words| {
            let start = size / 4;
            size += (words * 4).next_multiple_of(PAGE_SIZE);
            start..start + words
        });
        let parts = parts.collect();
        Self { head, parts, size }
    }

    /// The file, if it is there and for these rings.
    fn found(&self, path: &Path) -> io::Result<Option<File>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        // One that is whole only when its last byte is: see `make`.
        if file.metadata()?.len() != self.size as u64 {
            return Ok(None);
        }
        let mut head = vec![0; self.head.len()];
        file.read_exact_at(&mut head, 0)?;
        Ok((head == self.head).then_some(file))
    }

    /// A new one in its place. It is written, not only made long: memory that lacks is told here, where it is no death.
    fn make(&self, path: &Path) -> io::Result<File> {
        let mut file = (OpenOptions::new().read(true).write(true))
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let mut content = self.head.clone();
        content.resize(self.size, 0);
        file.write_all(&content)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    const DEVICE: DeviceId = DeviceId {
        domid: 3,
        number: 51712,
    };

    fn first_words(journals: &[Journal]) -> Vec<u32> {
        let words = journals.iter().map(|journal| &journal.as_ref()[0]);
        words.map(|word| word.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn journals_are_kept_for_the_same_rings_only() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let journals = Journals::new(folder.path());
        let open = |rings: &str, words: &[usize]| journals.open(DEVICE, rings, words);
        let first = open("8,9", &[258, 1030])?;
        assert_eq!(first_words(&first), [0, 0]);
        assert_eq!(first[1].as_ref().len(), 1030);
        for (nth, journal) in first.iter().enumerate() {
            for word in journal.as_ref() {
                word.store(nth as u32 + 1, Ordering::Relaxed);
            }
        }
        drop(first);
        assert_eq!(first_words(&open("8,9", &[258, 1030])?), [1, 2]);
        assert_eq!(first_words(&open("8,9", &[258, 1030])?), [1, 2]);
        // Other rings, or as many in another way.
        assert_eq!(first_words(&open("8,10", &[258, 1030])?), [0, 0]);
        assert_eq!(first_words(&open("8,9", &[258, 1030])?), [0, 0]);
        open("8,9", &[258])?[0].as_ref()[0].store(7, Ordering::Relaxed);
        assert_eq!(first_words(&open("8,9", &[258, 1030])?), [0, 0]);
        Ok(())
    }

    #[test]
    fn a_removed_one_is_gone() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let journals = Journals::new(folder.path());
        assert!(journals.devices().is_empty());
        journals.remove(DEVICE)?;
        let old = journals.open(DEVICE, "8", &[10])?;
        // A lock beside it is none.
        File::create(folder.path().join("locks"))?;
        assert_eq!(journals.devices(), [DEVICE]);
        assert!(journals.has(DEVICE));
        journals.remove(DEVICE)?;
        assert!(!journals.has(DEVICE));
        assert!(journals.devices().is_empty());
        // Who had it has it to his end, and nobody else.
        old[0].as_ref()[0].store(7, Ordering::Relaxed);
        assert_eq!(first_words(&journals.open(DEVICE, "8", &[10])?), [0]);
        Ok(())
    }

    /// Whoever made it was killed before it was whole.
    #[test]
    fn half_a_file_is_made_anew() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let journals = Journals::new(folder.path());
        let opened = journals.open(DEVICE, "8", &[10])?;
        opened[0].as_ref()[0].store(7, Ordering::Relaxed);
        drop(opened);
        let path = journals.path(DEVICE);
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(PAGE_SIZE as u64)?;
        assert_eq!(first_words(&journals.open(DEVICE, "8", &[10])?), [0]);
        let nowhere = Journals::new(folder.path().join("nothing"));
        let error = nowhere
            .open(DEVICE, "8", &[10])
            .map(drop)
            .expect_err("no folder");
        assert!(error.to_string().contains("3-51712.journal"), "{error}");
        Ok(())
    }
}
