//! The machine `bochs`: a PC with an i440FX, and a CPU that has VMX.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::process::Emulator;
use super::{Console, DiskBus, Kind, Machine, MachineError, Nic, RunFiles};
use crate::provision;

/// Emulated instructions per emulated second, which is also the TSC's frequency: of the order of what a host does in a second, so that waiting for a
/// device costs the guest about what it costs a real one. The CPU model's CPUID leaves 0x15 and 0x16 claim 3.5 GHz whatever is set here; a guest that
/// believes them has a slow clock, and setting what they claim makes a boot take many minutes, most of it waiting for the UART.
pub(super) const DEFAULT_IPS: u64 = 200_000_000;

/// The newest CPU model of Bochs 3.0 with all of VMX that Oxen can use.
const CPU_MODEL: &str = "corei7_skylake_x";

const BIOS: &[&str] = &[
    "/usr/share/bochs/BIOS-bochs-latest",
    "/usr/local/share/bochs/BIOS-bochs-latest",
];
const VGA_BIOS: &[&str] = &[
    "/usr/share/vgabios/vgabios.bin",
    "/usr/share/bochs/VGABIOS-lgpl-latest",
];

/// MiB of the machine's memory that Bochs keeps in its own at most. Of a larger machine it puts what was not used for longest into
/// a file of its own that has no name.
const MOST_IN_MEMORY: u32 = 2048;

/// How long Bochs may take to connect its serial port. Where its memory is partly in a file it computes for some seconds before,
/// which is a minute on a busy host.
const CONNECT: Duration = Duration::from_secs(120);
/// Bytes per sector of a disk image.
const SECTOR: u64 = 512;

/// Starts Bochs with its first serial port connected to us over TCP on the loopback interface: of its serial modes the one that streams in both directions.
pub(super) fn start(
    machine: &Machine,
    iso: &Path,
    files: &RunFiles,
) -> Result<(Emulator, Console), MachineError> {
    check(machine)?;
    let program = find_program(machine.bochs.as_deref())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .map_err(MachineError::io("listen on 127.0.0.1"))?;
    let port = listener
        .local_addr()
        .map_err(MachineError::io("listen on 127.0.0.1"))?
        .port();
    remove_locks(machine);
    let config = Config {
        machine,
        iso,
        bios: first_existing(
            BIOS,
            "Bochs's BIOS",
            "install the package bochsbios (`cargo xtask setup` does)",
        )?,
        vga_bios: first_existing(
            VGA_BIOS,
            "the VGA BIOS",
            "install the package vgabios (`cargo xtask setup` does)",
        )?,
        log: &files.emulator,
        port,
    };
    let text = config.render()?;
    fs::write(&files.config, text).map_err(MachineError::io(format!(
        "write {}",
        files.config.display()
    )))?;
    let log = File::create(&files.console).map_err(MachineError::io(format!(
        "write {}",
        files.console.display()
    )))?;
    // Errors in the configuration come before Bochs opens its log. Appending keeps them apart from what it writes there afterwards.
    let writing = || MachineError::io(format!("write {}", files.emulator.display()));
    let early_messages = File::options()
        .append(true)
        .open(&files.emulator)
        .map_err(writing())?;
    let early_messages_too = early_messages.try_clone().map_err(writing())?;
    let mut emulator = Emulator::start(&program, None, |command| {
        command
            .arg("-q")
            .arg("-f")
            .arg(&files.config)
            .env("BXSHARE", "/usr/share/bochs")
            .stdin(Stdio::null())
            .stdout(early_messages)
            .stderr(early_messages_too);
    })
    .map_err(MachineError::io(format!("start {}", program.display())))?;
    let serial = accept(&listener, &mut emulator, files)?;
    let input = serial
        .try_clone()
        .map_err(MachineError::io("set up the serial connection"))?;
    let console =
        Console::new(serial, input, log).map_err(MachineError::io("start the console's thread"))?;
    Ok((emulator, console))
}

/// Removes the locks beside images that are written to: a Bochs that was killed leaves them, and the next one would refuse the images.
fn remove_locks(machine: &Machine) {
    for disk in machine.disks.iter().filter(|disk| disk.keep) {
        let mut lock = disk.image.clone().into_os_string();
        lock.push(".lock");
        // Most often there is none.
        let _ = fs::remove_file(lock);
    }
}

/// Whether Bochs's own log tells of a reset after the one at power-on.
pub(super) fn was_reset(log: &Path) -> bool {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .matches("bx_pc_system_c::Reset(")
        .count()
        > 1
}

fn check(machine: &Machine) -> Result<(), MachineError> {
    let unsupported = |what| {
        Err(MachineError::Unsupported {
            kind: Kind::Bochs,
            what,
        })
    };
    if machine.uefi {
        return unsupported("has no UEFI firmware: use tcg");
    }
    if machine.gdb {
        return unsupported("is built without a debugger stub: use tcg");
    }
    if machine.icount.is_some() {
        return unsupported("always counts instructions: leave icount out");
    }
    if machine.nic == Some(Nic::E1000e) {
        return unsupported("has no e1000e: use e1000");
    }
    if machine.disks.len() > 1 || machine.disks.iter().any(|disk| disk.bus != DiskBus::Ide) {
        return unsupported("takes one disk, on ide");
    }
    Ok(())
}

/// The named binary, else the one in the cache, which is built if it is missing. A distribution's Bochs is no substitute: Debian 12's is four times
/// slower and starts at a debugger's prompt.
fn find_program(named: Option<&Path>) -> Result<PathBuf, MachineError> {
    // Several tests may start at once, and only one may build.
    static BUILDING: Mutex<()> = Mutex::new(());
    if let Some(program) = named {
        return Ok(program.to_owned());
    }
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    provision::bochs::binary().map_err(|error| MachineError::Missing {
        what: "Bochs 3.0",
        looked: format!("{}: {error:#}", provision::bochs::cached().display()),
        fix: "run `cargo xtask setup`, or name one with --bochs (3.0 or later, with --enable-vmx=2 and the nogui display)",
    })
}

fn first_existing(
    paths: &[&'static str],
    what: &'static str,
    fix: &'static str,
) -> Result<&'static str, MachineError> {
    paths
        .iter()
        .copied()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| MachineError::Missing {
            what,
            looked: paths.join(", "),
            fix,
        })
}

/// Takes Bochs's connection, unless it ends before.
fn accept(
    listener: &TcpListener,
    emulator: &mut Emulator,
    files: &RunFiles,
) -> Result<TcpStream, MachineError> {
    let doing = "take Bochs's serial connection";
    listener
        .set_nonblocking(true)
        .map_err(MachineError::io(doing))?;
    let end = Instant::now() + CONNECT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_nodelay(true))
                    .map_err(MachineError::io(doing))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(MachineError::io(doing)(error)),
        }
        if let Some(status) = emulator.poll() {
            return Err(MachineError::Died {
                emulator: "Bochs",
                text: format!("{status}; {}", files.emulator_says(Kind::Bochs)),
            });
        }
        if Instant::now() >= end {
            return Err(MachineError::Died {
                emulator: "Bochs",
                text: format!("no serial connection within {} s", CONNECT.as_secs()),
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

struct Config<'a> {
    machine: &'a Machine,
    iso: &'a Path,
    bios: &'static str,
    vga_bios: &'static str,
    log: &'a Path,
    port: u16,
}

impl Config<'_> {
    fn render(&self) -> Result<String, MachineError> {
        let machine = self.machine;
        let mut text = String::new();
        let mut line = |parts: std::fmt::Arguments| {
            // Writing to a string cannot fail.
            let _ = text.write_fmt(parts);
            text.push('\n');
        };
        line(format_args!("config_interface: textconfig"));
        line(format_args!("display_library: nogui"));
        line(format_args!(
            "memory: guest={}, host={}",
            machine.memory,
            machine.memory.min(MOST_IN_MEMORY)
        ));
        line(format_args!(
            "romimage: file=\"{}\", options=fastboot",
            self.bios
        ));
        line(format_args!("vgaromimage: file=\"{}\"", self.vga_bios));
        line(format_args!(
            "cpu: model={}, count={}, ips={}, reset_on_triple_fault=0, ignore_bad_msrs=1",
            machine.cpu_model.as_deref().unwrap_or(CPU_MODEL),
            machine.cpus,
            machine.ips
        ));
        // No synchronization with the host: one tick an instruction, every run the same.
        line(format_args!("clock: sync=none, time0=utc"));
        let slot = if machine.nic.is_some() {
            ", slot1=e1000"
        } else {
            ""
        };
        line(format_args!("pci: enabled=1, chipset=i440fx{slot}"));
        line(format_args!("vga: extension=vbe, update_freq=1"));
        line(format_args!(
            "com1: enabled=1, mode=socket-client, dev=127.0.0.1:{}",
            self.port
        ));
        line(format_args!(
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14"
        ));
        line(format_args!(
            "ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15"
        ));
        if let Some(disk) = machine.disks.first() {
            let size = fs::metadata(&disk.image)
                .map_err(MachineError::io(format!("read {}", disk.image.display())))?
                .len();
            let geometry = Geometry::of(size).ok_or(MachineError::Unsupported {
                kind: Kind::Bochs,
                what: "takes disk images whose size is a multiple of 16 * 63 * 512 bytes",
            })?;
            line(format_args!(
                "ata0-master: type=disk, path=\"{}\", mode={}, cylinders={}, heads={}, spt={}",
                disk.image.display(),
                if disk.keep { "flat" } else { "volatile" },
                geometry.cylinders,
                geometry.heads,
                geometry.sectors
            ));
        }
        line(format_args!(
            "ata1-master: type=cdrom, path=\"{}\", status=inserted",
            self.iso.display()
        ));
        line(format_args!("boot: cdrom"));
        if machine.nic.is_some() {
            line(format_args!(
                "e1000: card=0, enabled=1, mac=52:54:00:12:34:56, ethmod=slirp"
            ));
        }
        line(format_args!("log: \"{}\"", self.log.display()));
        line(format_args!("panic: action=fatal"));
        line(format_args!("error: action=report"));
        line(format_args!("info: action=report"));
        line(format_args!("debug: action=ignore"));
        Ok(text)
    }
}

/// The geometry that Bochs wants for a flat image: its size, exactly.
struct Geometry {
    cylinders: u64,
    heads: u64,
    sectors: u64,
}

impl Geometry {
    fn of(size: u64) -> Option<Self> {
        let (heads, sectors) = (16, 63);
        let cylinder = heads * sectors * SECTOR;
        (size > 0 && size.is_multiple_of(cylinder)).then(|| Self {
            cylinders: size / cylinder,
            heads,
            sectors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(machine: &Machine) -> String {
        Config {
            machine,
            iso: Path::new("/a.iso"),
            bios: "/bios",
            vga_bios: "/vga",
            log: Path::new("/log"),
            port: 4321,
        }
        .render()
        .expect("a machine that Bochs can do")
    }

    #[test]
    fn the_default_cpu_has_vmx_and_runs_are_repeatable() {
        let text = render(&Machine::new(Kind::Bochs));
        assert!(text.contains("model=corei7_skylake_x, count=1"), "{text}");
        assert!(text.contains("clock: sync=none"), "{text}");
        assert!(text.contains("dev=127.0.0.1:4321"), "{text}");
    }

    #[test]
    fn a_large_machine_is_not_all_in_memory() {
        let memory = |memory| {
            let mut machine = Machine::new(Kind::Bochs);
            machine.memory = memory;
            render(&machine)
        };
        assert!(memory(1024).contains("memory: guest=1024, host=1024\n"));
        assert!(memory(3072).contains("memory: guest=3072, host=2048\n"));
    }

    #[test]
    fn what_bochs_lacks_is_refused() {
        let refused = |change: fn(&mut Machine)| {
            let mut machine = Machine::new(Kind::Bochs);
            change(&mut machine);
            check(&machine).is_err()
        };
        assert!(refused(|machine| machine.uefi = true));
        assert!(refused(|machine| machine.gdb = true));
        assert!(refused(|machine| machine.nic = Some(Nic::E1000e)));
        assert!(check(&Machine::new(Kind::Bochs)).is_ok());
    }

    #[test]
    fn a_lock_that_a_killed_bochs_has_left_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("disk");
        let lock = folder.path().join("disk.lock");
        for keep in [false, true] {
            fs::write(&lock, "").expect("a lock");
            let mut machine = Machine::new(Kind::Bochs);
            machine.disks.push(super::super::Disk {
                bus: DiskBus::Ide,
                image: image.clone(),
                keep,
            });
            remove_locks(&machine);
            assert_eq!(lock.exists(), !keep);
        }
    }

    #[test]
    fn a_disk_that_has_no_geometry_is_refused() {
        assert!(Geometry::of(0).is_none());
        assert!(Geometry::of(1_000_000).is_none());
        assert_eq!(
            Geometry::of(16 * 63 * 512 * 20).map(|geometry| geometry.cylinders),
            Some(20)
        );
    }
}
