//! A process for each device that is served.
//!
//! A worker is this same program, started with other arguments. It ends when its standard input does: with the manager, however that
//! ends. On its standard output it says why it cannot go on, on standard error it logs. The kernel may end what it
//! had begun a while after it: who must not begin before that has a lock that ends with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use oxen_daemon::confine::CapabilitySet;
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};

use crate::{DeviceId, Event, Failure};

/// This program, whatever has become of its file since.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// What a manager may do as root alone may: make its workers nobody's, and end them.
pub const CAPABILITIES: CapabilitySet = CapabilitySet::KILL
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);
/// Bytes that a worker's last words may have.
const WORDS_MAX: u64 = 4096;
const BY_GUEST: &str = "guest: ";
const BY_HOST: &str = "host: ";

/// A worker's last words, on standard output.
pub fn say_failure(failure: &Failure) {
    let line = match failure {
        Failure::Guest(text) => format!("{BY_GUEST}{text}"),
        other => format!("{BY_HOST}{other}"),
    };
    // Where nobody listens any more there is nobody to tell.
    let _ = writeln!(io::stdout(), "{line}");
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
    /// Nothing is read of it before it ends.
    words: ChildStdout,
}

/// All workers of a manager. They are killed when it is dropped.
#[derive(Debug, Default)]
pub struct Workers {
    running: BTreeMap<DeviceId, Worker>,
}

impl Workers {
    /// Starts one for a device, which has none.
    ///
    /// # Errors
    /// The process cannot be made.
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
        self.stop(device);
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let words = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // A worker that is made to say a lot blocks itself only.
        if fcntl_getpipe_size(&words)? > WORDS_MAX as usize {
            fcntl_setpipe_size(&words, WORDS_MAX as usize)?;
        }
        self.running.insert(device, Worker { child, words });
        Ok(())
    }

    /// Ends a device's worker, if there is one, and waits until it is gone with all that it had begun.
    pub fn stop(&mut self, device: DeviceId) {
        if let Some(mut worker) = self.running.remove(&device) {
            end(device, &mut worker);
        }
    }

    /// Readable when [`Workers::events`] has something to say.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        (self.running.values())
            .map(|worker| worker.words.as_fd())
            .collect()
    }

    /// Workers that ended. Those whose words are not all there yet are waited for.
    pub fn events(&mut self) -> Vec<Event> {
        let ready: Vec<DeviceId> = (self.running.iter())
            .filter(|(_, worker)| is_readable(worker.words.as_fd()))
            .map(|(device, _)| *device)
            .collect();
        let ended = ready.into_iter().filter_map(|device| {
            let mut worker = self.running.remove(&device)?;
            let mut words = String::new();
            // Its words are written at once. One that says something and goes on shall not keep others waiting.
            let _ = worker.child.kill();
            let _ = (worker.words.by_ref())
                .take(WORDS_MAX)
                .read_to_string(&mut words);
            end(device, &mut worker);
            Some(match heard(&words) {
                Some(failure) => Event::Failed(device, failure),
                None => Event::Lost(device),
            })
        });
        ended.collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (device, worker) in &mut self.running {
            end(*device, worker);
        }
    }
}

fn end(device: DeviceId, worker: &mut Worker) {
    // One that has ended is not there to be killed.
    let _ = worker.child.kill();
    if let Err(error) = worker.child.wait() {
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
        workers.stop(DEVICE);
        assert!(!std::path::Path::new(&process).exists());
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
