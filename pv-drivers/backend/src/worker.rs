//! A process for each device that is served.
//!
//! A worker is this same program, started with other arguments. It ends when its standard input does: with the manager, however that
//! ends. On its standard output it says why it cannot go on, on standard error it logs. The kernel may end what it
//! had begun a while after it: who must not begin before that has a lock that ends with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use oxen_daemon::confine::CapabilitySet;
use rustix::io::Errno;
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};

use crate::{DeviceId, Event, Failure};

/// This program, whatever has become of its file since.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// What a manager may do as root alone may: make its workers nobody's, and end them.
pub const CAPABILITIES: CapabilitySet = CapabilitySet::KILL
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);
/// Bytes that a worker's last words may have.
const WORDS_MAX: usize = 4096;
const BY_GUEST: &str = "guest: ";
const BY_HOST: &str = "host: ";

/// Lets this process have as many descriptors as it may: each worker takes three.
pub fn allow_many() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        log::warn!("the limit of open files stays: {error}");
    }
}

/// A worker's last words, on standard output.
pub fn say_failure(failure: &Failure) {
    let line = match failure {
        Failure::Guest(text) => format!("{BY_GUEST}{text}\n"),
        other => format!("{BY_HOST}{other}\n"),
    };
    // At once: who has heard some of it waits for no more. Where nobody listens there is nobody to tell.
    let _ = io::stdout().write_all(line.as_bytes());
}

fn heard(words: &str) -> Option<Failure> {
    let line = words.lines().next()?;
    if let Some(text) = line.strip_prefix(BY_GUEST) {
        return Some(Failure::Guest(text.to_owned()));
    }
    let text = line.strip_prefix(BY_HOST)?;
    Some(Failure::Host(text.to_owned()))
}

#[derive(Debug)]
struct Worker {
    child: Child,
    /// Readable when it is gone.
    end: OwnedFd,
    /// Nothing is read of it before it ends.
    words: ChildStdout,
}

/// A worker that was killed. What it waits for in the kernel may keep it for as long as the storage likes.
#[derive(Debug)]
struct Dying {
    child: Child,
    end: OwnedFd,
    /// What is to be told when it is gone.
    last: Event,
}

/// All workers of a manager. They are killed when it is dropped.
#[derive(Debug, Default)]
pub struct Workers {
    running: BTreeMap<DeviceId, Worker>,
    dying: BTreeMap<DeviceId, Dying>,
}

impl Workers {
    /// Starts one for a device, which has none.
    ///
    /// # Errors
    /// The process cannot be made, or there is still one.
    pub fn start(&mut self, device: DeviceId, arguments: &[OsString]) -> io::Result<()> {
        let mut program = Command::new(OWN_PROGRAM);
        // So that a list of processes shows who it is.
        if let Some(name) = std::env::args_os().next() {
            program.arg0(name);
        }
        program.args(arguments);
        self.start_program(device, &mut program)
    }

    fn start_program(&mut self, device: DeviceId, program: &mut Command) -> io::Result<()> {
        if self.running.contains_key(&device) || self.dying.contains_key(&device) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // A worker that is made to say a lot blocks itself only.
        if fcntl_getpipe_size(&words)? > WORDS_MAX {
            fcntl_setpipe_size(&words, WORDS_MAX)?;
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let end = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
        self.running.insert(device, Worker { child, end, words });
        Ok(())
    }

    /// Kills a device's worker. False: there is none. Otherwise [`Event::Ended`] tells when it is gone with all that it had begun.
    pub fn stop(&mut self, device: DeviceId) -> bool {
        if let Some(worker) = self.running.remove(&device) {
            self.kill(device, worker, Event::Ended(device));
        }
        match self.dying.get_mut(&device) {
            Some(dying) => dying.last = Event::Ended(device),
            None => return false,
        }
        true
    }

    fn kill(&mut self, device: DeviceId, worker: Worker, last: Event) {
        let Worker { mut child, end, .. } = worker;
        // One that has ended is not there to be killed, but to be waited for.
        let _ = child.kill();
        self.dying.insert(device, Dying { child, end, last });
    }

    /// Readable when [`Workers::events`] has something to say, or something to do.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let words = self.running.values().map(|worker| worker.words.as_fd());
        let ends = self.dying.values().map(|dying| dying.end.as_fd());
        words.chain(ends).collect()
    }

    /// Workers that are gone. One that has said its last words, or closed its standard output, is killed.
    pub fn events(&mut self) -> Vec<Event> {
        let spoke = (self.running).extract_if(.., |_, worker| is_readable(worker.words.as_fd()));
        for (device, mut worker) in spoke.collect::<Vec<_>>() {
            // They are written at once: more is not waited for.
            let mut words = [0; WORDS_MAX];
            let length = worker.words.read(&mut words).unwrap_or(0);
            let last = match heard(&String::from_utf8_lossy(&words[..length])) {
                Some(failure) => Event::Failed(device, failure),
                None => Event::Lost(device),
            };
            self.kill(device, worker, last);
        }
        let gone = (self.dying).extract_if(.., |_, dying| is_readable(dying.end.as_fd()));
        let last = gone.map(|(device, mut dying)| {
            wait(device, &mut dying.child);
            dying.last
        });
        last.collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in self.running.values_mut() {
            let _ = worker.child.kill();
        }
        let dying = (self.dying.iter_mut()).map(|(device, dying)| (device, &mut dying.child));
        let running = (self.running.iter_mut()).map(|(device, worker)| (device, &mut worker.child));
        dying
            .chain(running)
            .for_each(|(device, child)| wait(*device, child));
    }
}

fn wait(device: DeviceId, child: &mut Child) {
    if let Err(error) = child.wait() {
        log::warn!("{device}: its process cannot be waited for: {error}");
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DEVICE: DeviceId = DeviceId {
        domid: 3,
        number: 1,
    };

    fn with(script: &str) -> Workers {
        let mut workers = Workers::default();
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        workers.start_program(DEVICE, &mut shell).expect("a shell");
        workers
    }

    fn wait(workers: &mut Workers) -> Vec<Event> {
        for _ in 0..600 {
            let events = workers.events();
            if !events.is_empty() {
                return events;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Vec::new()
    }

    #[test]
    fn last_words_are_heard() {
        let mut workers = with("echo 'guest: a lie'; exit 1");
        let events = wait(&mut workers);
        assert!(
            matches!(&events[..], [Event::Failed(DEVICE, Failure::Guest(text))] if text == "a lie"),
            "{events:?}"
        );
        let mut workers = with("echo 'host: no disk'; exit 1");
        let events = wait(&mut workers);
        assert!(
            matches!(&events[..], [Event::Failed(DEVICE, Failure::Host(text))] if text == "no disk"),
            "{events:?}"
        );
    }

    #[test]
    fn a_killed_worker_is_lost() {
        let mut workers = with("kill -9 $$");
        let events = wait(&mut workers);
        assert!(matches!(events[..], [Event::Lost(DEVICE)]), "{events:?}");
        assert!(workers.descriptors().is_empty());
    }

    #[test]
    fn a_stopped_worker_is_gone() {
        let mut workers = with("exec sleep 1000");
        assert!(workers.events().is_empty());
        let process = format!("/proc/{}", workers.running[&DEVICE].child.id());
        assert!(workers.stop(DEVICE));
        assert!(matches!(wait(&mut workers)[..], [Event::Ended(DEVICE)]));
        assert!(!std::path::Path::new(&process).exists());
        assert!(!workers.stop(DEVICE));
        assert!(workers.descriptors().is_empty());
    }

    /// What it had to say is nobody's concern any more, and there is no other before it is gone.
    #[test]
    fn a_worker_that_is_stopped_while_it_dies_is_only_gone() {
        let mut workers = with("exec sleep 1000");
        let worker = workers.running.remove(&DEVICE).expect("it runs");
        workers.kill(DEVICE, worker, Event::Lost(DEVICE));
        let another = workers.start_program(DEVICE, &mut Command::new("true"));
        assert!(another.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy));
        assert!(workers.stop(DEVICE));
        assert!(matches!(wait(&mut workers)[..], [Event::Ended(DEVICE)]));
    }

    #[test]
    fn a_worker_sees_the_end_of_its_manager() {
        let mut workers = with("cat >/dev/null; echo 'host: the manager is gone'");
        drop(
            workers
                .running
                .get_mut(&DEVICE)
                .expect("it runs")
                .child
                .stdin
                .take(),
        );
        assert!(matches!(wait(&mut workers)[..], [Event::Failed(..)]));
    }
}
