//! A small Debian on a disk, as a guest's root: built by mmdebstrap from the packages of Debian 12, with systemd, and kept in the cache.
//!
//! It has no kernel: a guest brings its own, with the demo guest's RAM disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{archive, cache, packages};
use crate::host;
use crate::progress::Step;

/// The cache's folder, renamed with each change of what is built.
const FOLDER: &str = "debian-bookworm-1";
/// The image's name in there.
const IMAGE: &str = "disk";
const SUITE: &str = "bookworm";
const SUITES: [&str; 2] = [SUITE, "bookworm-security"];
/// Beside what every Debian has. What these recommend is left out.
const PACKAGES: &str = "systemd-sysv,udev,iproute2,iputils-ping,wget";
/// What nobody reads in an emulator.
const LEFT_OUT: [&str; 5] = ["doc", "info", "locale", "man", "zoneinfo"];
/// KiB of the disk: 800 of the cylinders that Bochs wants, of 504 KiB each; half of it is free.
const SIZE: u32 = 800 * 504;

/// Settings, by shell commands that have the root in `$1`: root's password is `oxen`; the card's address is what `ip=` on the kernel's
/// command line says, which systemd has networkd see to; nothing is looked for or cleaned up on its own.
const SETTINGS: [&str; 7] = [
    r#"echo debian >"$1/etc/hostname""#,
    r#"echo '/dev/xvda / ext4 defaults 0 1' >"$1/etc/fstab""#,
    // mmdebstrap leaves the host's.
    r#": >"$1/etc/resolv.conf""#,
    r#"echo root:oxen | chroot "$1" chpasswd"#,
    r#"chroot "$1" systemctl --quiet enable systemd-networkd"#,
    r#"chroot "$1" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer"#,
    r#"rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/*"#,
];

/// Makes a file system of an archive: from standard input to standard output, which is a file, where holes stay holes. mke2fs takes owners
/// from a folder, so this is run by root, or by what looks like root to it, which may make no device nodes: the kernel does so in the guest.
const TO_IMAGE: &str = r#"set -e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
tar -x --exclude='./dev/*' -C "$work/root"
/sbin/mke2fs -q -t ext4 -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 -d "$work/root" "$work/disk" "$1k" >&2
dd if="$work/disk" bs=64k conv=sparse status=none"#;

/// The image, raw, of an ext4 file system; from the cache if it is there. It is not to be written to.
///
/// # Errors
/// The packages cannot be had, or a tool fails.
pub fn root() -> Result<PathBuf> {
    if !is_cached() && !host::is_debian() {
        bail!("no Debian root: Debian's mmdebstrap and apt make it");
    }
    let folder = cache::folder(FOLDER, |work| {
        packages()?;
        let step = Step::start("making a Debian root");
        make(work, &step)?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join(IMAGE))
}

/// Whether it is there already.
pub fn is_cached() -> bool {
    host::cache().join(FOLDER).exists()
}

fn make(work: &Path, step: &Step) -> Result<()> {
    let tree = work.join("root.tar");
    step.detail("packages");
    bootstrap(&tree)?;
    step.detail("file system");
    to_image(&tree, &work.join(IMAGE))?;
    fs::remove_file(tree)?;
    Ok(())
}

/// Writes the root as an archive. Root is not needed: mmdebstrap takes a user namespace then.
fn bootstrap(tree: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--include", PACKAGES]);
    for folder in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    for setting in SETTINGS {
        command.arg(format!("--customize-hook={setting}"));
    }
    command.arg(SUITE).arg(tree);
    command.args(archive::sources(&SUITES)?);
    host::run_quiet(&mut command).context("Debian's packages cannot be made a root")
}

fn to_image(tree: &Path, image: &Path) -> Result<()> {
    let mut command = if host::is_root() {
        Command::new("sh")
    } else {
        let mut command = Command::new("mmdebstrap");
        command.args(["--unshare-helper", "sh"]);
        command
    };
    let output = command
        .args(["-c", TO_IMAGE, "sh", &SIZE.to_string()])
        .stdin(File::open(tree)?)
        .stdout(File::create(image)?)
        .stderr(Stdio::piped())
        .output()
        .context("cannot start a shell")?;
    if !output.status.success() {
        bail!(
            "the root cannot be made a file system: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_whole_cylinders_for_bochs_and_whole_blocks_for_ext4() {
        assert_eq!(SIZE % (16 * 63 * 512 / 1024), 0);
        assert_eq!(SIZE % 4, 0);
    }
}
