//! The machines `kvm` and `tcg`: QEMU's q35.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::host_core::HostCore;
use super::process::Emulator;
use super::{Console, DiskBus, Kind, Machine, MachineError, Nic, RunFiles};

/// The TCP port that a debugger connects to.
pub(super) const GDB_PORT: u16 = 1234;

/// OVMF's code and its empty variable store, as the distributions name them.
const OVMF: &[(&str, &str)] = &[
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
];

/// Starts QEMU with its first serial port on the child's own pipes.
pub(super) fn start(
    machine: &Machine,
    iso: &Path,
    files: &RunFiles,
) -> Result<(Emulator, Console), MachineError> {
    check(machine)?;
    let program = machine
        .qemu
        .clone()
        .unwrap_or_else(|| PathBuf::from("qemu-system-x86_64"));
    if !super::process::on_path(&program) {
        return Err(MachineError::Missing {
            what: "QEMU",
            looked: program.display().to_string(),
            fix: "install qemu-system-x86 (`cargo xtask setup` does) or name the binary with --qemu",
        });
    }
    let firmware = if machine.uefi {
        Some(uefi_firmware(files)?)
    } else {
        None
    };
    let arguments = arguments(machine, iso, display(machine, &program), firmware.as_ref());
    let errors = File::create(&files.emulator).map_err(MachineError::io(format!(
        "write {}",
        files.emulator.display()
    )))?;
    let log = File::create(&files.console).map_err(MachineError::io(format!(
        "write {}",
        files.console.display()
    )))?;
    let core = (machine.kind == Kind::Tcg && machine.cpus > 1)
        .then(HostCore::claim)
        .transpose()
        .map_err(MachineError::io("find a core of the host for QEMU"))?;
    let mut emulator = Emulator::start(&program, core, |command| {
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
    })
    .map_err(MachineError::io(format!("start {}", program.display())))?;
    let (Some(output), Some(input)) = (
        emulator.child().stdout.take(),
        emulator.child().stdin.take(),
    ) else {
        return Err(MachineError::Died {
            emulator: "QEMU",
            text: "it has no pipes".into(),
        });
    };
    let console =
        Console::new(output, input, log).map_err(MachineError::io("start the console's thread"))?;
    Ok((emulator, console))
}

fn check(machine: &Machine) -> Result<(), MachineError> {
    let unsupported = |what| MachineError::Unsupported {
        kind: machine.kind,
        what,
    };
    if machine.disks.iter().any(|disk| disk.bus == DiskBus::Ide) {
        return Err(unsupported("q35 has no IDE controller: use ahci or nvme"));
    }
    if machine.icount.is_some() && machine.kind == Kind::Kvm {
        return Err(unsupported("icount needs emulation: use tcg"));
    }
    Ok(())
}

/// OVMF's code, and a variable store of this run's own.
fn uefi_firmware(files: &RunFiles) -> Result<(PathBuf, PathBuf), MachineError> {
    let Some((code, variables)) = OVMF.iter().find(|(code, _)| Path::new(code).exists()) else {
        return Err(MachineError::Missing {
            what: "OVMF, the UEFI firmware",
            looked: OVMF
                .iter()
                .map(|(code, _)| *code)
                .collect::<Vec<_>>()
                .join(", "),
            fix: "install the package ovmf (`cargo xtask setup` does)",
        });
    };
    let own = files.uefi_variables.clone();
    fs::copy(variables, &own).map_err(MachineError::io(format!(
        "copy {variables} to {}",
        own.display()
    )))?;
    Ok((PathBuf::from(code), own))
}

/// The window to show the screen in: what this QEMU was built with, if a desktop is there to show it on.
fn display(machine: &Machine, program: &Path) -> &'static str {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    if !machine.window || !desktop {
        return "none";
    }
    let known = Command::new(program)
        .args(["-display", "help"])
        .output()
        .map(|output| output.stdout);
    let known = String::from_utf8_lossy(&known.unwrap_or_default()).into_owned();
    let windows = ["gtk", "sdl"];
    windows
        .into_iter()
        .find(|name| known.lines().any(|line| line.trim() == *name))
        .unwrap_or("none")
}

fn arguments(
    machine: &Machine,
    iso: &Path,
    display: &str,
    firmware: Option<&(PathBuf, PathBuf)>,
) -> Vec<OsString> {
    let mut list = Arguments::default();
    let (accelerator, default_cpu) = match machine.kind {
        Kind::Kvm => ("kvm", "host"),
        Kind::Tcg | Kind::Bochs => ("tcg", "max"),
    };
    list.add("-machine", "q35").add("-accel", accelerator);
    list.add("-cpu", machine.cpu_model.as_deref().unwrap_or(default_cpu));
    list.add("-smp", machine.cpus.to_string())
        .add("-m", machine.memory.to_string());
    // Only what is named here is in the machine, whatever a version of QEMU adds by default.
    list.flag("-nodefaults").flag("-no-user-config");
    list.add("-vga", "std");
    list.add("-display", display);
    list.add("-chardev", "stdio,id=com1,signal=off")
        .add("-serial", "chardev:com1");
    list.add("-drive", drive("cd", iso, ",media=cdrom,readonly=on"));
    list.add("-device", "ide-cd,drive=cd,bus=ide.0,bootindex=0");
    for (index, disk) in machine.disks.iter().enumerate() {
        let id = format!("disk{index}");
        let snapshot = if disk.keep { "off" } else { "on" };
        let options = format!(",format=raw,snapshot={snapshot}");
        list.add("-drive", drive(&id, &disk.image, &options));
        list.add(
            "-device",
            match disk.bus {
                DiskBus::Nvme => format!("nvme,drive={id},serial=oxen{index}"),
                DiskBus::Ahci | DiskBus::Ide => format!("ide-hd,drive={id},bus=ide.{}", index + 1),
            },
        );
    }
    if let Some(nic) = machine.nic {
        let model = match nic {
            Nic::E1000 => "e1000",
            Nic::E1000e => "e1000e",
        };
        list.add("-netdev", "user,id=net0,restrict=on");
        list.add("-device", format!("{model},netdev=net0,romfile="));
    }
    if let Some((code, variables)) = firmware {
        list.add("-drive", pflash(code, ",readonly=on"))
            .add("-drive", pflash(variables, ""));
    }
    if !machine.allow_reset {
        list.flag("-no-reboot");
    }
    if machine.gdb {
        list.flag("-S")
            .add("-gdb", format!("tcp:127.0.0.1:{GDB_PORT}"));
    }
    if let Some(shift) = machine.icount {
        // Idle time passes at once: by the host's clock, a halted CPU would wake as late as the host does.
        list.add("-icount", format!("shift={shift},sleep=off"));
    }
    list.0
}

/// A `-drive` value. QEMU wants a comma in a file name doubled.
fn drive(id: &str, file: &Path, options: &str) -> String {
    format!("if=none,id={id},file={}{options}", escape(file))
}

fn pflash(file: &Path, options: &str) -> String {
    format!("if=pflash,format=raw,file={}{options}", escape(file))
}

fn escape(file: &Path) -> String {
    file.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn add(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::Disk;
    use super::*;

    fn line(machine: &Machine) -> String {
        let parts = arguments(machine, Path::new("/a,b.iso"), "none", None);
        let parts: Vec<String> = parts
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        parts.join(" ")
    }

    #[test]
    fn tcg_emulates_every_feature_and_never_opens_kvm() {
        let line = line(&Machine::new(Kind::Tcg));
        assert!(
            line.contains("-accel tcg") && line.contains("-cpu max"),
            "{line}"
        );
        assert!(!line.contains("kvm"), "{line}");
    }

    #[test]
    fn a_comma_in_a_path_is_not_an_option() {
        assert!(line(&Machine::new(Kind::Tcg)).contains("file=/a,,b.iso,media=cdrom"));
    }

    #[test]
    fn a_cpu_model_replaces_the_default() {
        let mut machine = Machine::new(Kind::Tcg);
        machine.cpu_model = Some("max,-svm".into());
        assert!(line(&machine).contains("-cpu max,-svm"));
    }

    #[test]
    fn each_disk_gets_its_own_port() {
        let mut machine = Machine::new(Kind::Tcg);
        machine.disks = [DiskBus::Ahci, DiskBus::Nvme]
            .map(|bus| Disk {
                bus,
                image: "/d".into(),
                keep: false,
            })
            .to_vec();
        let line = line(&machine);
        assert!(line.contains("ide-hd,drive=disk0,bus=ide.1"), "{line}");
        assert!(line.contains("nvme,drive=disk1"), "{line}");
    }

    #[test]
    fn what_q35_lacks_is_refused() {
        let mut machine = Machine::new(Kind::Tcg);
        machine.disks.push(Disk {
            bus: DiskBus::Ide,
            image: "/d".into(),
            keep: false,
        });
        assert!(check(&machine).is_err());
    }
}
