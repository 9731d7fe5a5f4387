//! Emulated machines: what to build one from, how to start it, and how its run ended.
//!
//! A [`Machine`] is a description. [`Machine::start`] boots an ISO on it and gives a [`Running`] machine with its serial
//! [`Console`]; [`Running::wait_exit`] says how the run ended, as an [`Outcome`] decided from the console's last words
//! and from how the emulator left. What the guest is expected to print beyond those last words does not belong here.

mod bochs;
mod choose;
mod console;
mod host_core;
mod outcome;
mod process;
mod qemu;

pub use choose::{Choice, Chosen, Kind, choose, kvm_usable};
pub use console::{Console, ConsoleError};
pub use outcome::{LastWords, Outcome};

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outcome::Verdict;
use process::Emulator;

/// Where the serial logs of all runs are kept: `target/logs` of the workspace.
pub fn log_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .join("target/logs")
}

/// The bus that a disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBus {
    /// A SATA disk of q35's own AHCI controller (QEMU only).
    Ahci,
    /// An NVMe controller with one namespace (QEMU only).
    Nvme,
    /// The master disk of the first channel of the PIIX3 IDE controller (Bochs only).
    Ide,
}

impl DiskBus {
    /// The bus of a machine on which dom0 sees its first disk as `/dev/sda`.
    pub const fn first(kind: Kind) -> Self {
        match kind {
            Kind::Bochs => Self::Ide,
            Kind::Tcg | Kind::Kvm => Self::Ahci,
        }
    }
}

/// A raw disk image and the controller that shows it to the machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The controller.
    pub bus: DiskBus,
    /// The raw image; its size is a multiple of 512 bytes.
    pub image: PathBuf,
    /// What the machine writes stays in the image, which no other machine may have meanwhile; else the image is never written to, and
    /// changes are thrown away.
    pub keep: bool,
}

/// A network card on the emulator's own user-mode network (gateway 10.0.2.2, no access from outside).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// Intel 82540EM, one legacy interrupt.
    E1000,
    /// Intel 82574L, MSI-X (QEMU only).
    E1000e,
}

/// A machine to boot an ISO on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Which emulator, and with it which virtualization extension.
    pub kind: Kind,
    /// Physical CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// Boot by UEFI (OVMF) in place of BIOS. QEMU only.
    pub uefi: bool,
    /// Replaces the CPU model: QEMU's `-cpu` argument, or Bochs's model name.
    pub cpu_model: Option<String>,
    /// Disks besides the CD-ROM that holds the ISO.
    pub disks: Vec<Disk>,
    /// The network card, if any.
    pub nic: Option<Nic>,
    /// Stop before the first instruction and wait for a debugger on TCP port 1234. QEMU only.
    pub gdb: bool,
    /// Count instructions: one every 2^N ns of virtual time, and no host's time for what is idle. `tcg` only.
    pub icount: Option<u8>,
    /// Instructions per emulated second. Bochs only.
    pub ips: u64,
    /// Show the emulated screen in a window. QEMU only.
    pub window: bool,
    /// Let the machine reset itself again and again in place of ending the run at its first reset.
    pub allow_reset: bool,
    /// The ISO boots Linux with no hypervisor under it: the last words are then the kernel's.
    pub bare: bool,
    /// Wall-clock time after which the machine is stopped, counted from the start.
    pub time_limit: Option<Duration>,
    /// The QEMU binary, where it is not `qemu-system-x86_64` on the path.
    pub qemu: Option<PathBuf>,
    /// The Bochs binary, where it is not the one that `cargo xtask setup` built.
    pub bochs: Option<PathBuf>,
}

impl Machine {
    /// A machine of one CPU and 2 GiB, booting by BIOS, with no disk and no network.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            cpus: 1,
            memory: 2048,
            uefi: false,
            cpu_model: None,
            disks: Vec::new(),
            nic: None,
            gdb: false,
            icount: None,
            ips: bochs::DEFAULT_IPS,
            window: false,
            allow_reset: false,
            bare: false,
            time_limit: None,
            qemu: None,
            bochs: None,
        }
    }

    /// Boots `iso`. The serial console goes whole to `target/logs/<name>.log`, what the emulator itself says to
    /// `target/logs/<name>.emulator.log`.
    ///
    /// # Errors
    /// When the description asks for what the emulator cannot do, when the emulator is not installed or ends at once.
    pub fn start(&self, name: &str, iso: &Path) -> Result<Running, MachineError> {
        let files = RunFiles::create(&log_dir(), name)?;
        if !iso.is_file() {
            return Err(MachineError::NoIso(iso.to_owned()));
        }
        let started = Instant::now();
        let (emulator, console) = match self.kind {
            Kind::Bochs => bochs::start(self, iso, &files)?,
            Kind::Kvm | Kind::Tcg => qemu::start(self, iso, &files)?,
        };
        Ok(Running {
            console,
            emulator,
            files,
            kind: self.kind,
            bare: self.bare,
            limit: self.time_limit.map(|limit| (started + limit, limit)),
        })
    }
}

/// A machine under way. Dropping it kills its emulator, and nothing else.
pub struct Running {
    console: Console,
    emulator: Emulator,
    files: RunFiles,
    kind: Kind,
    bare: bool,
    limit: Option<(Instant, Duration)>,
}

impl Running {
    /// The serial console.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// The file that holds the whole serial output.
    pub fn log(&self) -> &Path {
        &self.files.console
    }

    /// Host CPU time that the emulator has used so far, user and system, all threads.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        self.emulator.cpu_time()
    }

    /// Stops the emulator, all its threads, while `look` runs; it goes on afterwards, also when `look` panics. Files that it writes to are
    /// then as a kill at that moment would leave them: what it keeps in its own memory is not in them.
    ///
    /// # Errors
    /// When the emulator has ended, or does not stop: `look` has not run then.
    pub fn paused<T>(&mut self, look: impl FnOnce() -> T) -> io::Result<T> {
        self.emulator.paused(look)
    }

    /// Time left of the machine's own limit; `None` where it has none.
    pub fn time_left(&self) -> Option<Duration> {
        self.limit
            .map(|(end, _)| end.saturating_duration_since(Instant::now()))
    }

    /// How the run ended, if it has: never waits.
    pub fn poll_exit(&mut self) -> Option<Outcome> {
        let last_words = self.console.last_words(self.bare);
        let exit = self.emulator.poll();
        let was_reset = last_words == Some(LastWords::Reboot)
            && match self.kind {
                Kind::Bochs => bochs::was_reset(&self.files.emulator),
                // QEMU is told to end at a reset.
                Kind::Kvm | Kind::Tcg => exit.is_some(),
            };
        let evidence = outcome::Evidence {
            last_words_age: self.console.last_words_age(),
            last_words,
            exit,
            was_reset,
        };
        match outcome::judge(&evidence) {
            Verdict::Ended(end) => Some(end),
            Verdict::Died(status) => Some(Outcome::EmulatorDied(format!(
                "{status}; {}",
                self.files.emulator_says(self.kind)
            ))),
            Verdict::Running => match self.limit {
                Some((end, limit)) if Instant::now() >= end => Some(self.timed_out(limit)),
                _ => None,
            },
        }
    }

    /// Waits until the run has ended or `timeout` is over (or the machine's own limit, if that is sooner), then stops
    /// whatever still runs.
    pub fn wait_exit(&mut self, timeout: Duration) -> Outcome {
        let end = Instant::now() + timeout;
        let outcome = loop {
            if let Some(outcome) = self.poll_exit() {
                break outcome;
            }
            if Instant::now() >= end {
                break self.timed_out(timeout);
            }
            self.console.wait_for_change(Duration::from_millis(50));
        };
        self.emulator.kill();
        outcome
    }

    fn timed_out(&self, limit: Duration) -> Outcome {
        Outcome::TimeLimit {
            limit,
            last_line: self.console.last_line(),
        }
    }
}

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The ISO is missing.
    #[error("no ISO at {0}: build one with `cargo xtask iso`")]
    NoIso(PathBuf),
    /// The emulator's binary, or a firmware file it needs, is missing.
    #[error("{what} not found (looked for {looked}): {fix}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// Where it was looked for.
        looked: String,
        /// What to do.
        fix: &'static str,
    },
    /// The description asks for something that this emulator does not have.
    #[error("machine {kind}: {what}")]
    Unsupported {
        /// The machine.
        kind: Kind,
        /// What it cannot do, and what to do about it.
        what: &'static str,
    },
    /// The emulator ended before its console was there.
    #[error("{emulator} ended before its serial console was there: {text}")]
    Died {
        /// The emulator.
        emulator: &'static str,
        /// Its exit status and its own last lines.
        text: String,
    },
    /// A file or a process could not be made.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

impl MachineError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The files of one run, all named after it.
struct RunFiles {
    /// The serial output.
    console: PathBuf,
    /// The emulator's own messages.
    emulator: PathBuf,
    /// Bochs's configuration.
    config: PathBuf,
    /// The UEFI variable store.
    uefi_variables: PathBuf,
}

impl RunFiles {
    fn create(dir: &Path, name: &str) -> Result<Self, MachineError> {
        std::fs::create_dir_all(dir)
            .map_err(MachineError::io(format!("create {}", dir.display())))?;
        let files = Self {
            console: dir.join(format!("{name}.log")),
            emulator: dir.join(format!("{name}.emulator.log")),
            config: dir.join(format!("{name}.bochsrc")),
            uefi_variables: dir.join(format!("{name}.vars.fd")),
        };
        // A log of an earlier run must not be taken for this one's.
        for file in [&files.console, &files.emulator] {
            std::fs::write(file, "")
                .map_err(MachineError::io(format!("write {}", file.display())))?;
        }
        Ok(files)
    }

    /// The lines of the emulator's own log that tell why it ended.
    fn emulator_says(&self, kind: Kind) -> String {
        let text = String::from_utf8_lossy(&std::fs::read(&self.emulator).unwrap_or_default())
            .into_owned();
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        if kind == Kind::Bochs {
            // Its log is long; an error in its configuration comes before the log starts and is not marked.
            let marked = |line: &&str| line.contains("PANIC") || line.contains("bochsrc:");
            if lines.iter().any(marked) {
                lines.retain(marked);
            }
        }
        match lines.len() {
            0 => format!(
                "its own log ({}) says nothing of it",
                self.emulator.display()
            ),
            count => lines[count.saturating_sub(3)..].join(" | "),
        }
    }
}
