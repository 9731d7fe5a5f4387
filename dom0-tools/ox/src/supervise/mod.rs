//! The supervisor: does what a domain's configuration says for the case that it stops.
//!
//! One process for all domains. It waits for word from xenstore that some domain stopped, and for locks of records to be given back;
//! then it looks at all records ([`due`]) and works at each that needs it in a thread of its own ([`act`]), while it holds
//! the record's lock. All that it knows is in the records, so it may be killed at any time.

mod act;
mod due;
mod journal;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oxen_daemon::confine::{CapabilitySet, Needs, confine};
use rustix::fs::{FlockOperation, flock};

use crate::cli::Supervise;
use crate::dump::DIRECTORY as DUMPS;
use crate::failure::{Context, Failure};
use crate::host::{Machine, Toolstack};
use crate::records::{self, DIRECTORY, Held, Record};
use crate::settings;
use due::Due;
use journal::{Journal, Note};
use watch::Watch;

/// Held by the supervisor as long as it runs.
const LOCK: &str = "/run/oxen/supervisor.lock";
/// How long a domain is left alone with which something went wrong.
const REST: Duration = Duration::from_secs(5);
/// How often all records are looked at, whatever is heard.
const ROUND: Duration = Duration::from_secs(60);

/// Domains with which something went wrong, and when they are to be tried again.
type Resting = Arc<Mutex<BTreeMap<String, Instant>>>;

/// Whether a supervisor runs.
pub fn is_running() -> bool {
    File::open(LOCK).is_ok_and(|file| {
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Does `ox supervise`, until it is killed.
pub fn run(arguments: &Supervise) -> Result<(), Failure> {
    let directory = Path::new(DIRECTORY);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.context(|| format!("create {DIRECTORY}"))?;
    let _lock = lock().context(|| format!("lock {LOCK}; does another supervisor run"))?;
    let journal = Arc::new(Journal::open(&arguments.log));
    let mut watch = Watch::new(directory).context(|| format!("watch {DIRECTORY}"))?;
    give_up(&arguments.log)?;
    let mut host = Machine::default();
    let resting = Resting::default();
    let kept = records::all(directory).map_or(0, |records| records.len());
    journal.write(Note::new("supervising").why(&format!("{kept} domains have a record")));
    loop {
        watch.reconnect();
        let wait = look(&mut host, directory, &resting, &journal).unwrap_or_else(|failure| {
            journal.write(Note::new("cannot-look").why(&failure.to_string()));
            // With connections of its own making: the old ones may be what is wrong.
            host = Machine::default();
            REST
        });
        watch
            .wait(wait)
            .context(|| "wait for domains to stop".to_owned())?;
    }
}

/// Gives up what the supervisor needs for nothing: it makes guests from kernels wherever they are, and writes only where it keeps
/// something.
fn give_up(log: &Path) -> Result<(), Failure> {
    let mut own: Vec<PathBuf> = ["/run/oxen", "/dev/xen", DUMPS].map(PathBuf::from).into();
    own.extend(log.parent().map(Path::to_owned));
    own.extend(settings::kernel_cache()?.map(|cache| cache.directory().to_owned()));
    for directory in &own {
        // Rules are for files that are there.
        fs::create_dir_all(directory).context(|| format!("create {}", directory.display()))?;
    }
    let own: Vec<&Path> = own.iter().map(PathBuf::as_path).collect();
    confine(&Needs {
        reads: &[Path::new("/")],
        writes: &own,
        capabilities: CapabilitySet::DAC_READ_SEARCH,
        ..Needs::default()
    });
    Ok(())
}

/// The lock tells others that a supervisor runs; it goes with the process.
fn lock() -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Looks at all records, and puts a thread to each that needs something. Gives how long nothing else is due.
fn look(
    host: &mut Machine,
    directory: &Path,
    resting: &Resting,
    journal: &Arc<Journal>,
) -> Result<Duration, Failure> {
    Held::sweep(directory).context(|| format!("sweep {DIRECTORY}"))?;
    let all = records::all(directory).context(|| format!("read {DIRECTORY}"))?;
    let all = without_doubles(all, host)?;
    let domains = host.xen()?.domains();
    let domains = domains.context(|| "list the domains".to_owned())?;
    let now = host
        .uptime()
        .context(|| "read the uptime of dom0".to_owned())?;
    let mut wait = ROUND;
    for record in all {
        match due::due(&record, &domains, now) {
            Due::Never => {}
            Due::At(time) => wait = wait.min(Duration::from_secs(time.saturating_sub(now))),
            Due::Now => match rest_of(resting, record.name()) {
                Some(rest) => wait = wait.min(rest),
                None => spawn(directory, &record, resting, journal)?,
            },
        }
    }
    Ok(wait)
}

/// A rename that was cut short leaves two records of one domain: the one that xenstore's name leads to stays.
fn without_doubles(all: Vec<Record>, host: &mut Machine) -> Result<Vec<Record>, Failure> {
    let mut single = Vec::new();
    for record in &all {
        let doubled = all
            .iter()
            .any(|other| other.uuid == record.uuid && other.name() != record.name());
        let Some(domid) = record.phase.domid().filter(|_| doubled) else {
            single.push(record.clone());
            continue;
        };
        let name = crate::names::read_name(host.store()?, domid)?;
        let about = || format!("remove a record of {}", record.name());
        let directory = host.records();
        if name.as_deref() == Some(record.name()) {
            single.push(record.clone());
        } else if let Some(held) = Held::try_take(&directory, record.name()).context(about)? {
            held.remove().context(about)?;
        }
    }
    Ok(single)
}

/// How long a domain is still to be left alone.
fn rest_of(resting: &Resting, name: &str) -> Option<Duration> {
    let mut resting = resting.lock().unwrap_or_else(PoisonError::into_inner);
    let rest = resting.get(name)?.saturating_duration_since(Instant::now());
    if rest.is_zero() {
        resting.remove(name);
        return None;
    }
    Some(rest)
}

/// Works at a domain if nobody else does. When its lock is given back, by us or by another, the watch tells.
fn spawn(
    directory: &Path,
    record: &Record,
    resting: &Resting,
    journal: &Arc<Journal>,
) -> Result<(), Failure> {
    let name = record.name().to_owned();
    let held = Held::try_take(directory, &name).context(|| format!("lock the name {name:?}"))?;
    let Some(held) = held else {
        return Ok(());
    };
    let (resting, journal, about) = (resting.clone(), journal.clone(), record.clone());
    let started = std::thread::Builder::new().spawn(move || {
        let mut host = Machine::default();
        if let Err(failure) = act::act(&held, &mut host, &journal) {
            journal.write(Note::about(&about, "failed").why(&failure.to_string()));
            let mut resting = resting.lock().unwrap_or_else(PoisonError::into_inner);
            resting.insert(about.name().to_owned(), Instant::now() + REST);
        }
        drop(held);
    });
    started
        .map(drop)
        .context(|| format!("start a thread for {name}"))
}
