//! Unpacked kernels, kept from one build to the next: unpacking takes most of the time that making a guest takes.
//!
//! A directory of root's holds a file for each kernel, named by the digest of the packed one and its unpacked size. A file is
//! written under another name and renamed when it is whole. Links beside them, named by what the kernel's own file is (device,
//! number, size, times), lead to it without reading and digesting that file again. Who unpacks holds a lock: one does at a
//! time, and those that wait find the kernel kept. What the builds that were killed left behind goes with the next one that
//! holds the lock.
//!
//! Nothing that goes wrong here fails a build: the kernel is unpacked then, as without a cache.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oxen_core::kernel::PvhKernel;
use oxen_xen::file_view::FileView;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::error::BuildError;
use crate::kernel::Kernel;

const LOCK: &str = "lock";
/// How the names of links to kernels begin.
const LINK: &str = "at-";
/// How the names of files begin that are not whole yet.
const NEW: &str = "new-";
/// More links than so many are of kernels that went long ago.
const MOST_LINKS: usize = 64;
/// A file that changed so short ago may change again without its times telling.
const SETTLED: Duration = Duration::from_secs(2);

/// Where unpacked kernels are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCache {
    directory: PathBuf,
    limit: u64,
}

impl KernelCache {
    /// Keeps up to `limit` bytes in `directory`, which is made when it is needed.
    pub fn new(directory: impl Into<PathBuf>, limit: u64) -> Self {
        Self {
            directory: directory.into(),
            limit,
        }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The kernel that was unpacked from this very file.
    pub(crate) fn by_origin(&self, origin: &Origin) -> Option<FileView> {
        self.view(&fs::read_link(self.directory.join(&origin.0)).ok()?)
    }

    /// The kernel that is packed in `packed`, by `unpack` if it is not there.
    pub(crate) fn get(
        &self,
        packed: &[u8],
        size: usize,
        origin: Option<&Origin>,
        unpack: impl FnOnce() -> Result<Vec<u8>, BuildError>,
    ) -> Result<Kernel, BuildError> {
        let name = name(packed, size);
        let turn = match Turn::take(self) {
            Ok(turn) => turn,
            Err(error) => {
                let place = self.directory.display();
                log::warn!("{place}: unpacked kernels cannot be kept here: {error}");
                return unpack().map(Kernel::Own);
            }
        };
        if let Some(kept) = self.view(Path::new(&name)) {
            turn.link(origin, &name);
            return Ok(Kernel::Kept(kept));
        }
        let unpacked = unpack()?;
        match turn.keep(&name, &unpacked) {
            Ok(()) => turn.link(origin, &name),
            Err(error) => log::debug!("the unpacked kernel is not kept: {error}"),
        }
        Ok(Kernel::Own(unpacked))
    }

    /// A kernel that is kept, if it is whole.
    fn view(&self, name: &Path) -> Option<FileView> {
        // A link's target comes from the directory, whose names have no folders in them.
        let name = name.file_name()?.to_str()?;
        let size: u64 = name.rsplit_once('-')?.1.parse().ok()?;
        let file = File::open(self.directory.join(name)).ok()?;
        let view = FileView::of(&file).ok()?;
        if view.len() as u64 != size || PvhKernel::parse(&view).is_err() {
            log::warn!("{name}: the kept kernel is damaged; it is unpacked anew");
            let _ = fs::remove_file(self.directory.join(name));
            return None;
        }
        // What was used last is kept longest.
        let _ = file.set_modified(SystemTime::now());
        Some(view)
    }
}

/// What a kernel is kept as: the digest of its packed form, and the bytes of its unpacked one.
fn name(packed: &[u8], size: usize) -> String {
    let digest = Sha256::digest(packed);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}-{size}")
}

/// Which file a kernel came from, as long as that stays what it is: the name of its link.
#[derive(Debug)]
pub(crate) struct Origin(String);

impl Origin {
    /// `None` for a file that has changed just now: its times might not tell the next change.
    pub fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let changed = metadata.ctime().max(metadata.mtime());
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed.try_into().ok()?);
        if changed + SETTLED > SystemTime::now() {
            return None;
        }
        // A file system in memory, and a clock that was not set, may say the same after the next boot.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let times = [
            (metadata.mtime(), metadata.mtime_nsec()),
            (metadata.ctime(), metadata.ctime_nsec()),
        ]
        .map(|(seconds, nanoseconds)| format!("{seconds}.{nanoseconds:09}"))
        .join("-");
        Some(Self(format!(
            "{LINK}{}-{:x}-{:x}-{}-{times}",
            boot.trim(),
            metadata.dev(),
            metadata.ino(),
            metadata.len()
        )))
    }
}

/// The right to change what is kept.
struct Turn<'a> {
    cache: &'a KernelCache,
    // Closing it gives the lock back.
    _lock: File,
}

impl<'a> Turn<'a> {
    fn take(cache: &'a KernelCache) -> io::Result<Self> {
        let directory = &cache.directory;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(directory.join(LOCK))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            log::info!("another tool unpacks a kernel; waiting for it");
            flock(&lock, FlockOperation::LockExclusive)?;
        }
        Ok(Self { cache, _lock: lock })
    }

    /// Keeps a kernel, in place of those that have not been used for longest.
    fn keep(&self, name: &str, unpacked: &[u8]) -> io::Result<()> {
        let size = unpacked.len() as u64;
        self.make_room(size)?;
        let directory = &self.cache.directory;
        let new = directory.join(format!("{NEW}{name}"));
        let mut options = OpenOptions::new();
        options.create_new(true).write(true).mode(0o600);
        let written = options.open(&new).and_then(|mut file| {
            file.write_all(unpacked)?;
            // The name must not outlive the content if the power goes.
            file.sync_all()?;
            fs::rename(&new, directory.join(name))
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Removes what nobody writes any more and links that lead nowhere, then kernels until `size` bytes are within the limit.
    fn make_room(&self, size: u64) -> io::Result<()> {
        let KernelCache { directory, limit } = self.cache;
        if size > *limit {
            let error = format!("its {size} bytes are more than the cache may have, {limit}");
            return Err(io::Error::other(error));
        }
        let (mut kernels, mut links) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some(name) if name.starts_with(NEW) => fs::remove_file(&path)?,
                Some(name) if name.starts_with(LINK) => links.push(path),
                Some(LOCK) | None => {}
                Some(_) => {
                    let metadata = path.metadata()?;
                    kernels.push((metadata.modified()?, metadata.len(), path));
                }
            }
        }
        kernels.sort();
        let mut total: u64 = kernels.iter().map(|(_, size, _)| size).sum();
        for (_, bytes, path) in kernels {
            if total + size <= *limit {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
        }
        let all = links.len() > MOST_LINKS;
        for link in links.iter().filter(|link| all || !link.exists()) {
            fs::remove_file(link)?;
        }
        check_free(directory, size)
    }

    /// Makes the kernel be found by its file, too. Without the link it is found all the same.
    fn link(&self, origin: Option<&Origin>, name: &str) {
        let Some(Origin(origin)) = origin else {
            return;
        };
        let link = self.cache.directory.join(origin);
        let made = match symlink(name, &link) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&link).and_then(|()| symlink(name, &link))
            }
            made => made,
        };
        if let Err(error) = made {
            log::debug!("{}: {error}", link.display());
        }
    }
}

/// Fails if the file system would be nearly full with `size` bytes more: it may be the one that all of dom0 lives on.
fn check_free(directory: &Path, size: u64) -> io::Result<()> {
    let place = rustix::fs::statvfs(directory)?;
    let free = place.f_bavail.saturating_mul(place.f_frsize);
    // A ramfs knows no limit and says that it has no blocks at all.
    if place.f_blocks == 0 || free > size + size / 2 {
        return Ok(());
    }
    let error = format!("{} has only {} MiB free", directory.display(), free >> 20);
    Err(io::Error::other(error))
}

#[cfg(test)]
mod tests;
