//! What is behind a disk: a file or a block device.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use clap::ValueEnum;
use io_uring::{opcode, squeue, types};
use oxen_blkif::SECTOR;
use rustix::fs::{ioctl_blkpbszget, ioctl_blksszget};

use crate::buffer::Pool;
use crate::formatted::{self, Formatted};
use crate::job::{Job, Step};

/// `FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE`
const PUNCH: i32 = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;

/// How an image holds the sectors of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One after the other.
    #[default]
    Raw,
    /// QEMU's format, which grows with what is written.
    Qcow2,
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    medium: Medium,
    /// What a guest has to know.
    pub geometry: Geometry,
}

#[derive(Debug)]
enum Medium {
    /// For io_uring.
    Plain {
        file: File,
        /// It discards, but cannot promise zeroes in their place, which `fallocate` would.
        discards_only: bool,
    },
    /// For the library that knows its format.
    Formatted(Box<Formatted>),
}

/// What a guest has to know about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes that can be read and written at least.
    pub sector_size: u32,
    /// Bytes that the medium reads and writes at once.
    pub physical_sector_size: u32,
    /// Bytes that can be discarded at least, where any can.
    pub discard: Option<u32>,
    /// The guest must not write.
    pub read_only: bool,
    /// Data goes past dom0's page cache.
    pub direct: bool,
}

impl Image {
    /// Opens a file or a block device. Raw ones past the page cache, where that can be done in the sectors that the guest is
    /// shown.
    ///
    /// # Errors
    /// It cannot be opened, is something else, or is empty; the message names it.
    pub fn open(path: &Path, format: Format, read_only: bool) -> io::Result<Self> {
        let image = match format {
            Format::Raw => Self::open_raw(path, read_only),
            Format::Qcow2 => Self::open_qcow2(path, read_only),
        };
        image.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn open_qcow2(path: &Path, read_only: bool) -> io::Result<Self> {
        let image = Formatted::open(path, read_only)?;
        let sectors = image.size() / SECTOR;
        if sectors == 0 {
            return Err(io::Error::other("empty"));
        }
        Ok(Self {
            medium: Medium::Formatted(Box::new(image)),
            geometry: Geometry {
                sectors,
                sector_size: SECTOR as u32,
                physical_sector_size: SECTOR as u32,
                discard: Some(formatted::DISCARD).filter(|_| !read_only),
                read_only,
                direct: false,
            },
        })
    }

    fn open_raw(path: &Path, read_only: bool) -> io::Result<Self> {
        let open = |flags: i32| {
            OpenOptions::new()
                .read(true)
                .write(!read_only)
                .custom_flags(libc::O_CLOEXEC | flags)
                .open(path)
        };
        let file = open(0)?;
        let metadata = file.metadata()?;
        let is_device = metadata.file_type().is_block_device();
        if !is_device && !metadata.is_file() {
            return Err(io::Error::other("neither a file nor a block device"));
        }
        let (sector_size, physical_sector_size, discard) = if is_device {
            let (sector, physical) = (ioctl_blksszget(&file)?, ioctl_blkpbszget(&file)?);
            (sector, physical, device_discard(metadata.rdev()))
        } else {
            let block = u32::try_from(metadata.blksize()).unwrap_or(4096);
            (SECTOR as u32, SECTOR as u32, Some(block))
        };
        let direct = open(libc::O_DIRECT)
            .ok()
            .filter(|file| can_read(file, sector_size));
        let is_direct = direct.is_some();
        let mut file = direct.unwrap_or(file);
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR;
        if sectors == 0 {
            return Err(io::Error::other("empty"));
        }
        Ok(Self {
            medium: Medium::Plain {
                file,
                discards_only: is_device && !zeroes(metadata.rdev()),
            },
            geometry: Geometry {
                sectors,
                sector_size,
                physical_sector_size,
                discard: discard.filter(|_| !read_only),
                read_only,
                direct: is_direct,
            },
        })
    }

    /// Whether its sectors are one after the other, so that io_uring reads and writes them.
    pub const fn is_plain(&self) -> bool {
        matches!(self.medium, Medium::Plain { .. })
    }

    /// Does the step that a job is at, or says how the kernel is to do it; `None` if the job is at none.
    pub fn act(&mut self, job: &mut Job) -> Option<Act> {
        match &mut self.medium {
            Medium::Plain {
                file,
                discards_only,
            } => match job.step() {
                Some((Step::Discard { bytes }, offset, _)) if *discards_only => {
                    Some(Act::Done(discard(file, offset, bytes)))
                }
                _ => entry(file, job).map(Act::ByKernel),
            },
            Medium::Formatted(image) => image.act(job).map(Act::Done),
        }
    }
}

/// How a step of a job is done.
#[derive(Debug)]
pub enum Act {
    /// By io_uring, which is to be given this.
    ByKernel(squeue::Entry),
    /// It is done: bytes moved, or the negative error.
    Done(i32),
}

/// A job's step for io_uring.
fn entry(file: &File, job: &mut Job) -> Option<squeue::Entry> {
    let file = types::Fd(file.as_raw_fd());
    let (step, offset, range) = job.step()?;
    let length = u32::try_from(range.len()).ok()?;
    Some(match step {
        Step::Sync => opcode::Fsync::new(file)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Step::Discard { bytes } => opcode::Fallocate::new(file, bytes)
            .offset(offset)
            .mode(PUNCH)
            .build(),
        Step::Read => {
            let buffer = job.buffer.as_mut()?;
            let known = buffer.known();
            let to = buffer.bytes_mut()[range].as_mut_ptr();
            match known {
                Some(known) => opcode::ReadFixed::new(file, to, length, known)
                    .offset(offset)
                    .build(),
                None => opcode::Read::new(file, to, length).offset(offset).build(),
            }
        }
        Step::Write => {
            let buffer = job.buffer.as_ref()?;
            let from = buffer.bytes()[range].as_ptr();
            match buffer.known() {
                Some(known) => opcode::WriteFixed::new(file, from, length, known)
                    .offset(offset)
                    .build(),
                None => opcode::Write::new(file, from, length)
                    .offset(offset)
                    .build(),
            }
        }
    })
}

/// Whether a sector can be read on its own: file systems differ in what they let past the page cache.
fn can_read(file: &File, sector_size: u32) -> bool {
    let mut buffer = Pool::default().take(sector_size as usize);
    let sector = &mut buffer.bytes_mut()[..sector_size as usize];
    file.read_at(sector, 0).is_ok()
}

/// Discards so many bytes of a block device; returns what io_uring would. The kernel has it in no other way for who cannot do with zeroes,
/// and everything waits for it.
fn discard(device: &File, offset: u64, bytes: u64) -> i32 {
    /// `BLKDISCARD` (`linux/fs.h`).
    const DISCARD: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0x12, 119);
    // SAFETY: the call reads two numbers of 64 bits, where the range begins and how long it is, and keeps nothing.
    let range = unsafe { rustix::ioctl::Setter::<DISCARD, [u64; 2]>::new([offset, bytes]) };
    // SAFETY: as above; it is done to a block device that was opened for writing, and refused elsewhere.
    let done = unsafe { rustix::ioctl::ioctl(device, range) };
    done.map_or_else(|error| -error.raw_os_error(), |()| 0)
}

/// What can be discarded of a block device at least, if anything can.
fn device_discard(device: u64) -> Option<u32> {
    // Larger than 32 bits where there is no limit to speak of.
    let most = queue_number(device, "discard_max_bytes").unwrap_or(u64::MAX);
    let granularity = queue_number(device, "discard_granularity")?;
    u32::try_from(granularity)
        .ok()
        .filter(|granularity| *granularity > 0 && most > 0)
}

/// Whether a block device can do what `fallocate` wants of it: make zeroes without being sent them.
fn zeroes(device: u64) -> bool {
    queue_number(device, "write_zeroes_max_bytes").is_some_and(|most| most > 0)
}

/// What the kernel says of a block device's queue.
fn queue_number(device: u64, name: &str) -> Option<u64> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    // A partition has the queue of its disk.
    let here = format!("/sys/dev/block/{major}:{minor}");
    let queue = [format!("{here}/queue"), format!("{here}/../queue")];
    let text = queue
        .iter()
        .find_map(|queue| std::fs::read_to_string(format!("{queue}/{name}")).ok())?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_so_many_sectors() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![1; 10_000]).expect("written");
        let geometry = Image::open(&path, Format::Raw, false)
            .expect("a file")
            .geometry;
        assert_eq!((geometry.sectors, geometry.sector_size), (19, 512));
        assert!(geometry.discard.is_some());
        let geometry = Image::open(&path, Format::Raw, true)
            .expect("a file")
            .geometry;
        assert_eq!((geometry.read_only, geometry.discard), (true, None));
    }

    #[test]
    fn what_is_no_disk_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let empty = directory.path().join("empty");
        std::fs::write(&empty, [0; 511]).expect("written");
        for (path, why) in [
            (directory.path(), "directory"),
            (Path::new("/dev/null"), "neither a file nor a block device"),
            (&empty, "empty"),
            (Path::new("/nowhere/disk"), "No such file"),
        ] {
            let open = |format| Image::open(path, format, false);
            let error = open(Format::Raw).expect_err("no disk").to_string();
            let named = error.starts_with(&path.display().to_string());
            assert!(named && error.contains(why), "{error}");
            let error = open(Format::Qcow2).expect_err("no image").to_string();
            assert!(error.starts_with(&path.display().to_string()), "{error}");
        }
    }
}
