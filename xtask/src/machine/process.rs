//! The emulator as a child process: started in a process group of its own, killed with it, and with nothing else.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::host_core::HostCore;

/// Kernel ticks per second in `/proc/PID/stat`: fixed at 100 in the Linux user ABI on x86 (`USER_HZ`).
const USER_HZ: u64 = 100;

/// How long an emulator may take to stop: a thread that waits for the host's disk does that first.
const STOPS: Duration = Duration::from_secs(60);
/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(1);

/// A running emulator.
pub(super) struct Emulator {
    child: Child,
    status: Option<ExitStatus>,
    /// Its own for as long as it runs.
    _core: Option<HostCore>,
}

impl Emulator {
    /// Starts `program` with what `configure` sets on it, on `core` if there is one. Where util-linux's `setpriv` is installed, the emulator dies with the thread
    /// that started it, so that an xtask which is killed leaves no emulator behind.
    pub(super) fn start(
        program: &Path,
        core: Option<HostCore>,
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        const SETPRIV: &str = "/usr/bin/setpriv";
        let mut command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        configure(&mut command);
        let mut spawn = || command.process_group(0).spawn();
        let child = match &core {
            Some(core) => core.start(spawn)?,
            None => spawn()?,
        };
        Ok(Self {
            child,
            status: None,
            _core: core,
        })
    }

    /// The child's pipes, for whoever set them up.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status, once it has ended.
    pub(super) fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Kills the emulator's process group and takes its exit status. Does nothing once it has ended.
    pub(super) fn kill(&mut self) {
        // After the status was taken the process id may belong to somebody else.
        if self.poll().is_some() {
            return;
        }
        if let Some(group) = self.group() {
            // An error means that it has just ended by itself, which the wait below sees.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.status = self.child.wait().ok();
    }

    /// See [`super::Running::paused`].
    pub(super) fn paused<T>(&mut self, look: impl FnOnce() -> T) -> io::Result<T> {
        let ended = || io::Error::other("the emulator has ended");
        // As for `kill`.
        if self.poll().is_some() {
            return Err(ended());
        }
        let group = self.group().ok_or_else(ended)?;
        kill_process_group(group, Signal::STOP)?;
        let _goes_on = GoesOn(group);
        let tasks = format!("/proc/{}/task", self.child.id());
        let end = Instant::now() + STOPS;
        while !all_stopped(Path::new(&tasks))? {
            if Instant::now() >= end {
                return Err(io::Error::other(format!(
                    "the emulator has not stopped within {} s",
                    STOPS.as_secs()
                )));
            }
            thread::sleep(LOOK);
        }
        Ok(look())
    }

    /// Its process group, which is its own.
    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// See [`super::Running::cpu_time`].
    pub(super) fn cpu_time(&self) -> io::Result<Duration> {
        parse_cpu_time(&fs::read_to_string(format!(
            "/proc/{}/stat",
            self.child.id()
        ))?)
        .ok_or_else(|| io::Error::other("unexpected format of /proc/PID/stat"))
    }
}

/// Whether `program` can be started: a path that is a file, or a name found on `PATH`.
pub(super) fn on_path(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has a stopped process group go on in the end.
struct GoesOn(Pid);

impl Drop for GoesOn {
    fn drop(&mut self) {
        // An error means that it was killed meanwhile.
        let _ = kill_process_group(self.0, Signal::CONT);
    }
}

/// Whether each thread of a process is stopped, by its `/proc/PID/task`.
fn all_stopped(tasks: &Path) -> io::Result<bool> {
    for task in fs::read_dir(tasks)? {
        match fs::read_to_string(task?.path().join("stat")) {
            Ok(stat) if state(&stat) == Some('T') => {}
            Ok(_) => return Ok(false),
            // It has ended since.
            Err(_) => {}
        }
    }
    Ok(true)
}

/// The state of a thread (field 3, proc(5)), `T` where a signal has stopped it.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Sum of `utime` and `stime` (fields 14 and 15, proc(5)). The command name in field 2 may hold blanks and parentheses.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / USER_HZ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;
    use std::process::Stdio;

    #[test]
    fn cpu_time_is_user_plus_system_whatever_the_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 10 0 0 0 150 50 9 9 20 0 1 0 1 1 1";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu_time("garbage"), None);
    }

    #[test]
    fn the_state_is_read_whatever_the_name() {
        assert_eq!(state("7 (a) R (b) T 1 7"), Some('T'));
        assert_eq!(state("garbage"), None);
    }

    /// CPU time that it has had, as the kernel counts it: in nanoseconds.
    fn ran(tasks: &Path) -> String {
        let stat = fs::read_to_string(tasks.with_file_name("schedstat"));
        stat.expect("the times of a process")
    }

    #[test]
    fn one_that_is_paused_does_nothing_and_goes_on() {
        let mut emulator = Emulator::start(Path::new("/bin/sh"), None, |command| {
            command.args(["-c", "while :; do :; done"]);
        })
        .expect("sh starts");
        let tasks = PathBuf::from(format!("/proc/{}/task", emulator.child.id()));
        let runs = || {
            let before = ran(&tasks);
            thread::sleep(Duration::from_millis(50));
            ran(&tasks) != before
        };
        let soon = || (0..100).any(|_| runs());
        assert!(soon(), "it does not run at all");
        let paused = emulator.paused(|| (all_stopped(&tasks).expect("its threads"), runs()));
        assert_eq!(paused.expect("it stops"), (true, false));
        assert!(soon(), "it does not go on");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            emulator.paused(|| panic!("on purpose"))
        }));
        assert!(panicked.is_err());
        assert!(soon(), "it does not go on behind a panic");
        emulator.kill();
        assert!(emulator.paused(|| ()).is_err(), "it has ended");
    }

    #[test]
    fn dropping_kills_the_whole_group() {
        let emulator = Emulator::start(Path::new("/bin/sh"), None, |command| {
            command.args(["-c", "sleep 60 & wait"]).stdin(Stdio::null());
        })
        .expect("sh starts");
        let group = Pid::from_raw(i32::try_from(emulator.child.id()).expect("small pid"))
            .expect("nonzero pid");
        drop(emulator);
        // The orphaned `sleep` is reaped by init, which takes a moment.
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            rustix::process::test_kill_process_group(group).is_err()
        });
        assert!(gone, "the process group outlived its emulator");
    }
}
