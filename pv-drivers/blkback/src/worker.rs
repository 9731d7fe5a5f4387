//! `oxblk serve`: one disk for one guest, from its rings to its image.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use oxen_backend::{DeviceId, Failure, Journal, Journals};
use oxen_blkif::Abi;
use oxen_daemon::confine::seal;
use oxen_xen::evtchn::EventChannels;
use oxen_xen::gntdev::Grants;

use crate::engine::Engine;
use crate::guest::XenGuest;
use crate::image::{Format, Image};
use crate::queue::Queue;
use crate::ring::{self, DiskRing};

/// Where workers wait for those before them, and find what those have left.
pub const FOLDER: &str = "/run/oxen/oxblk";
/// The file there that locks are of.
const LOCKS: &str = "locks";
/// System calls beyond those of any worker: the disk.
const CALLS: &[i64] = &[libc::SYS_io_uring_enter];
/// Beyond those, what the library of formats does to an image's file.
const CALLS_OF_FORMATS: &[i64] = &[
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
];

/// What a worker is started with.
#[derive(Clone, Debug, Args, PartialEq, Eq)]
pub struct Serve {
    /// The guest
    #[arg(long)]
    pub domid: u16,
    /// The disk's number in the guest
    #[arg(long)]
    pub number: u32,
    /// A file or a block device
    #[arg(long)]
    pub image: PathBuf,
    /// How the image holds its sectors
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The guest must not write
    #[arg(long)]
    pub read_only: bool,
    /// The guest must not discard
    #[arg(long)]
    pub no_discard: bool,
    /// The guest keeps its grants
    #[arg(long)]
    pub keep_grants: bool,
    /// Layout of requests
    #[arg(long, value_parser = parse_abi, default_value = "x86_64-abi")]
    pub abi: Abi,
    /// A queue: the guest's event channel and grants of its ring, as PORT:GRANT,GRANT
    #[arg(long = "queue", required = true)]
    pub queues: Vec<QueueAt>,
}

/// Where a guest's queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAt {
    /// The guest's event channel.
    pub port: u32,
    /// Grants of the ring's pages.
    pub pages: Vec<u32>,
}

impl FromStr for QueueAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not PORT:GRANT,GRANT");
        let (port, pages) = text.split_once(':').ok_or_else(wrong)?;
        let pages: Option<Vec<u32>> = pages.split(',').map(|page| page.parse().ok()).collect();
        Ok(Self {
            port: port.parse().map_err(|_| wrong())?,
            pages: pages.ok_or_else(wrong)?,
        })
    }
}

impl std::fmt::Display for QueueAt {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:", self.port)?;
        for (nth, page) in self.pages.iter().enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            write!(out, "{comma}{page}")?;
        }
        Ok(())
    }
}

fn parse_abi(name: &str) -> Result<Abi, String> {
    Abi::from_name(name).ok_or_else(|| format!("no layout is called {name:?}"))
}

/// Serves until the manager is gone, which ends our standard input.
///
/// # Errors
/// The guest breaks the protocol, or the disk cannot be served.
pub fn serve(arguments: &Serve) -> Result<(), Failure> {
    // What a worker before us had begun is over: its ring has kept the lock as long as that. So are its event channels, which the ring has, too.
    let lock = lock(Path::new(FOLDER), arguments).map_err(by_host("lock"))?;
    let image = Image::open(&arguments.image, arguments.format, arguments.read_only);
    let mut image = image.map_err(by_host("image"))?;
    if arguments.no_discard {
        image.geometry.discard = None;
    }
    let grants = Grants::open().map_err(by_host("granted pages"))?;
    let journals = journals(arguments)?;
    let queues = arguments.queues.iter().zip(journals);
    let queues = queues.map(|(queue, journal)| {
        let named = |error: &dyn std::fmt::Display| {
            Failure::Guest(format!("ring with grants {:?}: {error}", queue.pages))
        };
        let memory = grants
            .map(arguments.domid, &queue.pages)
            .map_err(|error| named(&error))?;
        let ring =
            DiskRing::attach(arguments.abi, memory, journal).map_err(|error| named(&error))?;
        Ok(Queue::new(ring))
    });
    let queues = queues.collect::<Result<Vec<_>, Failure>>()?;
    let ports: Vec<u32> = arguments.queues.iter().map(|queue| queue.port).collect();
    let events = EventChannels::open().map_err(by_host("event channels"))?;
    let mut guest = XenGuest::new(arguments.domid, grants, events, &ports)
        .map_err(|error| Failure::Guest(error.to_string()))?;
    if arguments.keep_grants {
        guest.keep_grants();
    }
    log::info!(
        "{}: {:?}, {} queues",
        arguments.image.display(),
        image.geometry,
        queues.len()
    );
    let parent = (io::stdin().as_fd())
        .try_clone_to_owned()
        .map_err(by_host("standard input"))?;
    let mut engine =
        Engine::new(guest, image, queues, parent, lock.as_fd()).map_err(by_host("engine"))?;
    let calls = match arguments.format {
        Format::Raw => CALLS.to_vec(),
        Format::Qcow2 => [CALLS, CALLS_OF_FORMATS].concat(),
    };
    seal(&calls).map_err(by_host("giving up rights"))?;
    engine.run()
}

/// The journal of each queue's ring.
fn journals(arguments: &Serve) -> Result<Vec<Journal>, Failure> {
    let device = DeviceId {
        domid: arguments.domid,
        number: arguments.number,
    };
    let words = arguments.queues.iter().map(|queue| {
        ring::journal(arguments.abi, queue.pages.len())
            .ok_or_else(|| Failure::Guest(format!("ring with grants {:?}: no ring", queue.pages)))
    });
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let queues: Vec<String> = arguments.queues.iter().map(QueueAt::to_string).collect();
    let rings = format!("{} {}", arguments.abi.name(), queues.join(" "));
    (Journals::new(FOLDER).open(device, &rings, &words))
        .map_err(|error| Failure::Host(error.to_string()))
}

fn by_host(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Host(format!("{what}: {error}"))
}

/// Waits until no other worker has the disk. All disks' locks are one file's, a byte each, so that none is left behind.
fn lock(folder: &Path, arguments: &Serve) -> io::Result<File> {
    create_dir_all(folder)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCKS))?;
    while let Err(error) = set_lock(&file, arguments, libc::F_OFD_SETLKW) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(file)
}

/// Locks a disk's byte, for as long as anybody has this file open (`F_OFD_SETLK`, fcntl(2)): also the kernel for what it has under way.
fn set_lock(file: &File, disk: &Serve, command: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: i64::from(disk.domid) << u32::BITS | i64::from(disk.number),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the call reads one `flock`, which lives until it returns, and changes nothing but the file's locks.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_written_as_it_is_read() {
        let queue = QueueAt {
            port: 9,
            pages: vec![8, 100],
        };
        assert_eq!(queue.to_string(), "9:8,100");
        assert_eq!(queue.to_string().parse(), Ok(queue));
        for wrong in ["", "9", "9:", "9:x", ":1", "9:1,"] {
            assert!(wrong.parse::<QueueAt>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_worker_waits_for_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let serve = Serve {
            domid: 3,
            number: 1,
            image: PathBuf::new(),
            format: Format::Raw,
            read_only: false,
            no_discard: false,
            keep_grants: false,
            abi: Abi::X86_64,
            queues: Vec::new(),
        };
        let first = lock(directory.path(), &serve).expect("free");
        let other = Serve {
            number: 2,
            ..serve.clone()
        };
        lock(directory.path(), &other).expect("not waited for");
        let file = OpenOptions::new()
            .write(true)
            .open(directory.path().join(LOCKS))
            .expect("there");
        let taken = || set_lock(&file, &serve, libc::F_OFD_SETLK).is_ok();
        // Whoever has a copy has it, too.
        let copy = first.try_clone().expect("a copy");
        drop(first);
        assert!(!taken());
        drop(copy);
        assert!(taken());
    }
}
