//! A boot of Oxen on an emulated machine: what goes onto the ISO, and dom0 once it is up.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use xtask::iso::{self, Boot, IsoSpec, Module};
use xtask::machine::{Kind, Machine, Outcome, Running, log_dir};
use xtask::provision::newc::Newc;
use xtask::provision::{self, Suite};
use xtask::{build, host, test};

use crate::{Failure, Shell, ensure};

/// A boot to be made. Fields may be changed freely before [`Setup::boot`] or [`Setup::run_to_end`].
pub struct Setup {
    /// The machine.
    pub machine: Machine,
    /// Options added to the hypervisor's command line.
    pub hypervisor_options: String,
    /// Options added to the command line of dom0's kernel.
    pub dom0_options: String,
    /// dom0's kernel; `None` leaves both modules off the ISO.
    pub kernel: Option<PathBuf>,
    initrd: PathBuf,
    /// The RAM disk with this test's own files, which goes away with the setup.
    own_initrd: Option<TemporaryFile>,
    name: String,
}

impl Setup {
    /// A boot of Debian 12's kernel on a machine of one CPU. `name` is the test's, and names its files.
    ///
    /// The kernel is a plain ELF file, which boots sooner than the distribution's packed one.
    ///
    /// # Errors
    /// When the kernel or the initial RAM disk cannot be provisioned.
    pub fn new(name: &str, kind: Kind) -> Result<Self, Failure> {
        let mut setup = Self::with_kernel_of(name, kind, Suite::Bookworm)?;
        setup.kernel = Some(plain_kernel(Suite::Bookworm)?);
        Ok(setup)
    }

    /// As [`Setup::new`], with the kernel of a Debian suite as the distribution packs it.
    ///
    /// # Errors
    /// As for [`Setup::new`].
    pub fn with_kernel_of(name: &str, kind: Kind, suite: Suite) -> Result<Self, Failure> {
        let dom0 = one_at_a_time(|| provision::dom0(suite))?;
        let mut machine = Machine::new(kind);
        machine.memory = 1024;
        machine.time_limit = Some(boot_limit(kind) * 3);
        machine.qemu = env::var_os(test::QEMU_VARIABLE).map(PathBuf::from);
        machine.bochs = env::var_os(test::BOCHS_VARIABLE).map(PathBuf::from);
        Ok(Self {
            machine,
            hypervisor_options: String::new(),
            dom0_options: String::new(),
            kernel: Some(dom0.kernel),
            initrd: dom0.initrd,
            own_initrd: None,
            name: file_name(name),
        })
    }

    /// Boots Debian 12's kernel as the distribution packs it.
    ///
    /// # Errors
    /// When it cannot be provisioned.
    pub fn use_packed_kernel(&mut self) -> Result<(), Failure> {
        self.kernel = Some(one_at_a_time(|| provision::dom0(Suite::Bookworm))?.kernel);
        Ok(())
    }

    /// Where this test may put files of its own.
    pub fn file(&self, suffix: &str) -> PathBuf {
        log_dir().join(format!("{}.{suffix}", self.name))
    }

    /// Writes a file of this test's own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, suffix: &str, content: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.file(suffix);
        std::fs::create_dir_all(log_dir())?;
        std::fs::write(&path, content)
            .map_err(|error| format!("write {}: {error}", path.display()))?;
        Ok(path)
    }

    /// A copy of this test's own of the disk with a Debian root. The caller removes it.
    ///
    /// # Errors
    /// When the disk cannot be provisioned or copied.
    pub fn copy_debian(&self, suffix: &str) -> Result<PathBuf, Failure> {
        let image = one_at_a_time(provision::debian::root)?;
        let copy = self.file(suffix);
        std::fs::create_dir_all(log_dir())?;
        // Most of it is holes, which it keeps.
        let mut command = Command::new("cp");
        command.args(["--sparse=always", "--reflink=auto"]);
        host::run_quiet(command.arg(image).arg(&copy))?;
        Ok(copy)
    }

    /// Gives dom0 the tools and the demo guest.
    ///
    /// # Errors
    /// When the tools cannot be built.
    pub fn use_tools(&mut self) -> Result<(), Failure> {
        let guest_kernel = plain_kernel(Suite::Bookworm)?;
        self.initrd = one_at_a_time(|| provision::with_tools(&self.initrd, &guest_kernel))?;
        Ok(())
    }

    /// Gives dom0 Xen's own tools too, beside ours.
    ///
    /// # Errors
    /// When they cannot be provisioned.
    pub fn use_xen_tools(&mut self) -> Result<(), Failure> {
        self.initrd = one_at_a_time(|| provision::with_xen_tools(&self.initrd))?;
        Ok(())
    }

    /// Puts a file into dom0's image.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn add_file(&mut self, path: &str, from: &Path) -> Result<(), Failure> {
        self.add(archive_of(path, from, false)?)
    }

    /// Puts a program into dom0's image.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn add_program(&mut self, path: &str, from: &Path) -> Result<(), Failure> {
        self.add(archive_of(path, from, true)?)
    }

    /// Puts an archive of files into dom0's image, at `path`: behind a guest's RAM disk it gives the guest those files.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn add_guest_archive(&mut self, path: &str, archive: &Newc) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes)?;
        let file = TemporaryFile(self.write_file("archive", &bytes)?);
        self.add_file(path, &file.0)
    }

    fn add(&mut self, archive: Newc) -> Result<(), Failure> {
        let image = archive.behind(&self.initrd)?;
        self.initrd = self.write_file("initrd", &image)?;
        let own = self.initrd.clone();
        self.own_initrd.get_or_insert_with(|| TemporaryFile(own));
        Ok(())
    }

    /// Puts a small test guest, by its package's name, into dom0's image; returns where `ox create` finds it.
    ///
    /// # Errors
    /// When the guest cannot be built, or the image not be written.
    pub fn add_guest(&mut self, package: &str) -> Result<String, Failure> {
        let path = format!("/boot/guest/{package}");
        self.add_file(&path, &build::guest(package)?)?;
        Ok(path)
    }

    /// Puts the kernel of a Debian suite, as the distribution packs it, into dom0's image, for a guest; returns its path there.
    ///
    /// # Errors
    /// When it cannot be provisioned.
    pub fn add_guest_kernel(&mut self, suite: Suite) -> Result<String, Failure> {
        let path = format!("/boot/guest/vmlinuz-{}", suite.name());
        let kernel = one_at_a_time(|| provision::dom0(suite))?.kernel;
        self.add_file(&path, &kernel)?;
        Ok(path)
    }

    /// Puts the kernel that Debian makes for machines in a cloud, of a suite, into dom0's image, for a guest, and the smallest
    /// RAM disk for it; returns their paths there.
    ///
    /// # Errors
    /// When the kernel cannot be provisioned, or a file not be written.
    pub fn add_guest_cloud_kernel(&mut self, suite: Suite) -> Result<[String; 2], Failure> {
        let paths =
            ["vmlinuz", "initrd"].map(|file| format!("/boot/guest/{file}-cloud-{}", suite.name()));
        let kernel = one_at_a_time(|| provision::cloud_kernel(suite))?;
        self.add_file(&paths[0], &kernel)?;
        let ramdisk = provision::initrd::guest(&kernel)?;
        let ramdisk = TemporaryFile(self.write_file("cloud", &ramdisk)?);
        self.add_file(&paths[1], &ramdisk.0)?;
        Ok(paths)
    }

    /// Puts GRUB into dom0's image, for a guest; returns its path there.
    ///
    /// # Errors
    /// When it cannot be provisioned.
    pub fn add_guest_grub(&mut self) -> Result<&'static str, Failure> {
        const PATH: &str = "/boot/guest/grub";
        let image = one_at_a_time(provision::pvh_grub)?;
        self.add_file(PATH, &image)?;
        Ok(PATH)
    }

    /// Boots a small test guest, by its package's name, in dom0's place.
    ///
    /// # Errors
    /// When the guest cannot be built.
    pub fn use_guest(&mut self, package: &str) -> Result<(), Failure> {
        // One cargo at a time would be waited for anyway.
        self.kernel = Some(xtask::build::guest(package)?);
        Ok(())
    }

    fn start(&self) -> Result<(Running, TemporaryFile), Failure> {
        let iso = self.file("iso");
        std::fs::create_dir_all(log_dir())?;
        let modules = self.kernel.iter().flat_map(|kernel| {
            [
                Module {
                    path: kernel.clone(),
                    // The kernel's own tests of its ciphers would take an emulated CPU a fifth of the boot.
                    arguments: format!("console=hvc0 cryptomgr.notests {}", self.dom0_options)
                        .trim_end()
                        .to_owned(),
                },
                Module {
                    path: self.initrd.clone(),
                    arguments: String::new(),
                },
            ]
        });
        iso::build(&IsoSpec {
            output: iso.clone(),
            boot: Boot::Hypervisor {
                image: hypervisor()?,
                arguments: format!(
                    "com1=115200,8n1 console=com1 noreboot {}",
                    self.hypervisor_options
                )
                .trim_end()
                .to_owned(),
                modules: modules.collect(),
            },
        })?;
        let iso = TemporaryFile(iso);
        let running = self.machine.start(&self.name, &iso.0)?;
        Ok((running, iso))
    }

    /// Starts the machine and waits for dom0's shell.
    ///
    /// # Errors
    /// When the hypervisor or the ISO cannot be built, the emulator does not start, or dom0 does not get to its shell in time.
    pub fn boot(&self) -> Result<Dom0, Failure> {
        let (mut running, iso) = self.start()?;
        let limit = boot_limit(self.machine.kind);
        match Shell::open(running.console(), limit).map(Shell::into_marker) {
            Ok(next_marker) => Ok(Dom0 {
                running,
                next_marker,
                limit,
                _iso: iso,
            }),
            // Where the emulator has ended, why it did tells more than that the console is closed.
            Err(error) => Err(match running.poll_exit() {
                Some(outcome) => format!("{outcome}\n{error}").into(),
                None => error.into(),
            }),
        }
    }

    /// Starts the machine and waits until it stops by itself.
    ///
    /// # Errors
    /// When the hypervisor or the ISO cannot be built, or the emulator does not start.
    pub fn run_to_end(&self) -> Result<Outcome, Failure> {
        self.run_and_read().map(|(outcome, _)| outcome)
    }

    /// As [`Setup::run_to_end`]; also returns all that was printed.
    ///
    /// # Errors
    /// As for [`Setup::run_to_end`].
    pub fn run_and_read(&self) -> Result<(Outcome, String), Failure> {
        let (mut running, _iso) = self.start()?;
        let outcome = running.wait_exit(boot_limit(self.machine.kind));
        Ok((outcome, running.console().text()))
    }
}

/// A dom0 whose shell takes commands.
pub struct Dom0 {
    running: Running,
    next_marker: u32,
    limit: Duration,
    _iso: TemporaryFile,
}

impl Dom0 {
    /// Runs a command and returns what it printed, without the last line's end.
    ///
    /// # Errors
    /// When it exits with another status than 0, or does not end in time.
    pub fn run(&mut self, command: &str) -> Result<String, Failure> {
        let output = self.try_run(command)?;
        ensure!(
            output.status == 0,
            "dom0: `{command}` exited with {}: {}",
            output.status,
            output.text.trim_end()
        );
        Ok(output.text.trim_end().to_owned())
    }

    /// Runs a command that may fail.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn try_run(&mut self, command: &str) -> Result<crate::Output, Failure> {
        let mut shell = Shell::resume(self.running.console(), self.limit, self.next_marker);
        let output = shell.run(command);
        self.next_marker = shell.into_marker();
        Ok(output?)
    }

    /// The machine.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Lines that the hypervisor itself has printed.
    pub fn hypervisor_log(&mut self) -> Vec<String> {
        let text = self.running.console().text();
        let ours = text.lines().filter(|line| line.starts_with("(oxen) "));
        ours.map(|line| line.trim_end().to_owned()).collect()
    }

    /// Powers dom0 off and expects the machine to go off.
    ///
    /// # Errors
    /// When the run ends in any other way, which is named.
    pub fn power_off(mut self) -> Result<(), Failure> {
        self.running.console().send_line("poweroff")?;
        let outcome = self.running.wait_exit(self.limit);
        ensure!(
            outcome == Outcome::PowerOff,
            "dom0 was told to power off, but: {outcome}"
        );
        Ok(())
    }
}

fn archive_of(path: &str, from: &Path, executable: bool) -> Result<Newc, Failure> {
    let content =
        std::fs::read(from).map_err(|error| format!("read {}: {error}", from.display()))?;
    let mut archive = Newc::new();
    archive.file(path.trim_start_matches('/'), content, executable);
    Ok(archive)
}

/// A file that goes away with its owner: an ISO for each test would pile up.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // One that is left does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Provisioning downloads, unpacks and builds: never twice at a time.
fn one_at_a_time<T, E>(provision: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    static PROVISIONING: Mutex<()> = Mutex::new(());
    let _lock = PROVISIONING.lock().unwrap_or_else(PoisonError::into_inner);
    provision()
}

fn plain_kernel(suite: Suite) -> Result<PathBuf, Failure> {
    Ok(one_at_a_time(|| provision::plain::kernel(suite))?)
}

/// How long a boot may take: several times what it takes on a slow machine with two emulators at once.
fn boot_limit(kind: Kind) -> Duration {
    Duration::from_secs(match kind {
        Kind::Kvm => 60,
        Kind::Tcg => 150,
        Kind::Bochs => 400,
    })
}

/// Builds the hypervisor, once for all tests of this process.
fn hypervisor() -> Result<PathBuf, Failure> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    match built.as_deref().map(Path::to_owned) {
        Some(image) => Ok(image),
        None => {
            let image = build::hypervisor()?;
            *built = Some(image.clone());
            Ok(image)
        }
    }
}

fn file_name(test: &str) -> String {
    test.replace("::", "-")
}
