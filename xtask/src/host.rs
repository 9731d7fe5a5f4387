//! The host: its commands, and who we are on it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where provisioned things are kept, outside of the workspace: `OXEN_CACHE`, else `~/.cache/oxen`.
pub fn cache() -> PathBuf {
    if let Some(path) = std::env::var_os("OXEN_CACHE") {
        return path.into();
    }
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cache"))
        });
    base.unwrap_or_else(|| workspace().join("target"))
        .join("oxen")
}

/// The cargo that runs us, or the one in the search path.
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Where a command is, if it is in the search path (or where administrators' commands are).
pub fn find_command(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A command that says nothing unless it fails.
pub fn run_quiet(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| {
        format!("cannot start {name}; is its package installed? (cargo xtask doctor)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let tail: Vec<_> = text.lines().rev().take(15).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    bail!("{name} failed ({}):\n{}", output.status, tail.join("\n"))
}

/// A command's standard output.
pub fn capture<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this is a Debian system, whose package manager we can use.
pub fn is_debian() -> bool {
    find_command("apt-get").is_some() && Path::new("/etc/debian_version").exists()
}

/// Whether we are root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
