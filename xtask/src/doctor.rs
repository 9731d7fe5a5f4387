//! `cargo xtask doctor`: what this host can do, and what to do about what it cannot.

use std::fs;
use std::path::Path;

use crate::host;
use crate::machine::kvm_usable;
use crate::provision::sysroot::{self, Sysroot};
use crate::provision::{self, Suite, bochs, debian};

const SETUP: &str = "cargo xtask setup sees to it";

/// A finding: what is there, or what is missing and how to get it.
type Finding = Result<String, String>;

/// Prints a line for each thing that matters. Changes nothing.
pub fn report() {
    heading("host");
    line("system", Ok(system()));
    line("CPUs", Ok(cpus()));
    line("packages", packages());
    line("Rust", version("rustc"));
    line("target x86_64-unknown-none", target());
    heading("machines");
    line(
        "kvm   (VT-x, nested)",
        kvm_usable().map(|()| "works".into()),
    );
    line("tcg   (AMD-V, emulated)", version("qemu-system-x86_64"));
    line("bochs (VT-x, emulated)", bochs_binary());
    heading("tools");
    for tool in ["grub-mkrescue", "xorriso", "mformat", "busybox", "depmod"] {
        line(tool, version(tool));
    }
    heading(&format!("cache {}", host::cache().display()));
    for suite in Suite::ALL {
        let found = suite.cached_version();
        line(
            &format!("dom0 kernel of {}", suite.name()),
            found.ok_or_else(|| format!("not fetched yet; {SETUP}")),
        );
    }
    let root = match debian::is_cached() {
        true => Ok("made".into()),
        false => Err(format!("not made yet; {SETUP}")),
    };
    line("Debian root for guests", root);
}

fn heading(text: &str) {
    println!("{text}");
}

fn line(what: &str, finding: Finding) {
    match finding {
        Ok(text) => println!("  ok       {what}: {text}"),
        Err(text) => println!("  missing  {what}: {text}"),
    }
}

fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.unwrap_or("unknown").trim_matches('"');
    let who = if host::is_root() {
        "root"
    } else if host::find_command("sudo").is_some() {
        "not root, with sudo"
    } else {
        "not root, no sudo"
    };
    format!("{name}; {who}")
}

/// How many CPUs there are, and what of virtualization they and the host's kernel have.
fn cpus() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"));
    let has =
        |flag: &str| flags.is_some_and(|line| line.split_whitespace().any(|word| word == flag));
    let virtualization = match (has("vmx"), has("svm")) {
        (true, _) => "VT-x",
        (_, true) => "AMD-V",
        _ => "no VT-x, no AMD-V",
    };
    let device = if Path::new("/dev/kvm").exists() {
        "/dev/kvm is there"
    } else {
        "no /dev/kvm"
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count}; {virtualization}; {device}")
}

fn packages() -> Finding {
    let missing = provision::missing_packages();
    if missing.is_empty() {
        return Ok("all there".into());
    }
    Err(format!("{}; {SETUP}", missing.join(" ")))
}

fn target() -> Finding {
    match sysroot::present() {
        Ok(Some(Sysroot::Installed)) => Ok("installed in the toolchain".into()),
        Ok(Some(Sysroot::Source(library))) => {
            Ok(format!("built from its source in {}", library.display()))
        }
        Ok(None) => Err(SETUP.into()),
        Err(error) => Err(format!("{error:#}")),
    }
}

fn bochs_binary() -> Finding {
    let path = bochs::cached();
    if path.exists() {
        return Ok(path.display().to_string());
    }
    Err(format!("not built yet; {SETUP}"))
}

/// The first line of what a tool says of its version.
fn version(tool: &str) -> Finding {
    let path = host::find_command(tool).ok_or_else(|| SETUP.to_owned())?;
    let argument = if tool == "busybox" {
        "--help"
    } else {
        "--version"
    };
    let text = host::capture(&path.to_string_lossy(), &[argument]).unwrap_or_default();
    let first = text.lines().find(|line| !line.trim().is_empty());
    Ok(first.map_or_else(|| path.display().to_string(), |line| line.trim().to_owned()))
}
