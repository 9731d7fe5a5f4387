//! A disk in a qcow2 image that QEMU's own tool has made, and judges in the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use oxen_tests::input::{sha256, unpacked};
use oxen_tests::{Failure, Setup, ensure};

use super::Guest;

/// Where it is in dom0.
pub const PATH: &str = "/root/cow";
const TOOL: &str = "qemu-img";

/// The image, where it was made and comes back to.
pub struct Image(PathBuf);

impl Image {
    /// Makes an empty one, for dom0's image.
    pub fn add(setup: &mut Setup) -> Result<Self, Failure> {
        let path = setup.write_file("qcow2", &[])?;
        tool(&["create", "-q", "-f", "qcow2"], &path, &["4M"])?;
        setup.add_file(PATH, &path)?;
        Ok(Self(path))
    }

    /// A guest writes to it, discards, and reads back; its back end is killed in between. The image has what the guest saw.
    pub fn is_used(&self, guest: &mut Guest<'_>) -> Result<(), Failure> {
        guest.dom0.run(&format!(
            "ox block-attach demo format=qcow2,vdev=xvdf,access=rw,target={PATH}"
        ))?;
        let write = |from: u32, at: u32| {
            format!(
                "seq {from} {} >/text; dd if=/text of=/dev/xvdf bs=4k seek={at} conv=fsync",
                from + 20_000
            )
        };
        let said = guest.run(&format!(
            "n=0; until [ -b /dev/xvdf ] || [ $n = 60 ]; do sleep 1; n=$((n+1)); done; {} && {} && echo fine",
            write(1, 0),
            write(50_000, 300)
        ))?;
        ensure!(said.ends_with("fine"), "{said}");
        guest
            .dom0
            .run("kill -9 $(ps | grep '[o]xblk serve.*qcow2' | awk '{ print $1 }')")?;
        let said = guest.run(&format!(
            "{} && blkdiscard -o 65536 -l 65536 /dev/xvdf && echo fine",
            write(90_000, 700)
        ))?;
        ensure!(said.ends_with("fine"), "{said}");
        let said = guest
            .run("echo 3 >/proc/sys/vm/drop_caches; wc -c </dev/xvdf; sha256sum </dev/xvdf")?;
        let seen = said
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        guest.dom0.run("ox block-detach demo xvdf")?;
        self.holds(guest, &seen)
    }

    /// The tool finds nothing wrong with what is left in dom0, and the same content as the guest.
    fn holds(&self, guest: &mut Guest<'_>, seen: &str) -> Result<(), Failure> {
        let text = guest.dom0.run(&format!("gzip -c {PATH} | base64"))?;
        std::fs::write(&self.0, unpacked(&text)?)?;
        tool(&["check", "-q", "-f", "qcow2"], &self.0, &[])?;
        let raw = self.0.with_extension("raw");
        let raw_path = raw.to_string_lossy();
        tool(
            &["convert", "-f", "qcow2", "-O", "raw"],
            &self.0,
            &[&raw_path],
        )?;
        let content = std::fs::read(&raw)?;
        std::fs::remove_file(&raw)?;
        std::fs::remove_file(&self.0)?;
        ensure!(
            sha256(&content) == seen,
            "the image has {}, the guest has {seen}",
            sha256(&content)
        );
        ensure!(
            content[65_536..131_072].iter().all(|byte| *byte == 0),
            "what was discarded is still there"
        );
        Ok(())
    }
}

fn tool(before: &[&str], image: &Path, behind: &[&str]) -> Result<(), Failure> {
    let output = Command::new(TOOL)
        .args(before)
        .arg(image)
        .args(behind)
        .output()
        .map_err(|error| format!("{TOOL} (package qemu-utils): {error}"))?;
    ensure!(
        output.status.success(),
        "{TOOL} {before:?} {}: {}{}",
        image.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
