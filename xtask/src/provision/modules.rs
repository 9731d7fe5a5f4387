//! Kernel modules: the few that a dom0 needs, with all that they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::newc::Newc;
use crate::host;

/// Xen's device nodes, disks, network cards, and what tests look at.
pub(super) const DOM0: &[&str] = &[
    "xen-evtchn",
    "xen-privcmd",
    "xen-gntdev",
    "xen-gntalloc",
    "xenfs",
    "ahci",
    "ata_piix",
    "ata_generic",
    "sd_mod",
    "sr_mod",
    "nvme",
    "e1000",
    "e1000e",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_console",
    "rtc_cmos",
    "msr",
    "cpuid",
    "isofs",
    "loop",
    "brd",
    "null_blk",
    "xen-blkback",
    "tun",
    "bridge",
    "xen-netback",
];

/// Front ends of the demo guest's PV devices, and what mounts a root file system on such a disk: of which ext4 wants its checksums by name.
pub(super) const GUEST: &[&str] = &[
    "xen-blkfront",
    "xen-netfront",
    "ext4",
    "crc32c_generic",
    "crc32c_intel",
];

/// Has depmod make the lists of the modules in `folder/modules`, where the package left that to its installation.
///
/// # Errors
/// depmod is missing or fails.
pub(super) fn make_lists(folder: &Path) -> Result<()> {
    let modules = folder.join("modules");
    if modules.join("modules.dep").exists() {
        return Ok(());
    }
    let version = fs::read_to_string(folder.join("version"))?;
    // depmod wants lib/modules/VERSION below the root that it is given.
    let root = folder.join("depmod");
    fs::create_dir_all(root.join("lib/modules"))?;
    std::os::unix::fs::symlink("../../../modules", root.join("lib/modules").join(&version))?;
    let depmod = host::find_command("depmod").context("depmod is missing; package kmod has it")?;
    let result = host::run_quiet(Command::new(depmod).arg("-b").arg(&root).arg(&version));
    fs::remove_dir_all(&root)?;
    result
}

/// Adds the `wanted` modules of `folder` to the image, unpacked, with the lists that busybox's modprobe reads.
///
/// # Errors
/// A module cannot be read, or none of the wanted ones is there.
pub(super) fn add_to(image: &mut Newc, folder: &Path, wanted: &[&str]) -> Result<()> {
    make_lists(folder)?;
    let source = folder.join("modules");
    let version = fs::read_to_string(folder.join("version"))?;
    let target = format!("lib/modules/{}", version.trim());
    let lists = read_lists(&source)?;
    let files = lists.closure(wanted);
    if files.is_empty() {
        bail!(
            "{} lists none of the modules {}",
            source.display(),
            wanted.join(", ")
        );
    }
    for file in &files {
        let content = read_plain(&source.join(file))?;
        image.file(&format!("{target}/{}", plain_name(file)), content, false);
    }
    let names: BTreeSet<String> = files.iter().map(|file| name_of(file)).collect();
    image.file(
        &format!("{target}/modules.dep"),
        lists.dependencies_of(&files).into_bytes(),
        false,
    );
    image.file(
        &format!("{target}/modules.alias"),
        lists.aliases_of(&names).into_bytes(),
        false,
    );
    Ok(())
}

/// What depmod found out.
struct Lists {
    /// The file of each module with the files that it needs, all that these need included.
    dependencies: BTreeMap<String, Vec<String>>,
    /// Lines `alias PATTERN MODULE`.
    aliases: String,
}

fn read_lists(source: &Path) -> Result<Lists> {
    let read = |name: &str| {
        let path = source.join(name);
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    Ok(Lists {
        dependencies: parse_dependencies(&read("modules.dep")?),
        aliases: read("modules.alias")?,
    })
}

fn parse_dependencies(text: &str) -> BTreeMap<String, Vec<String>> {
    let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (file.to_owned(), words(needs)))
        .collect()
}

impl Lists {
    /// Files of the wanted modules and of all that they depend on. What is built in has none.
    fn closure(&self, wanted: &[&str]) -> BTreeSet<String> {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| name_of(name)).collect();
        let found = self
            .dependencies
            .iter()
            .filter(|(file, _)| wanted.contains(&name_of(file)));
        found
            .flat_map(|(file, needs)| std::iter::once(file).chain(needs))
            .cloned()
            .collect()
    }

    fn dependencies_of(&self, files: &BTreeSet<String>) -> String {
        let line = |file: &String| {
            let needs = self.dependencies.get(file).map_or(&[][..], Vec::as_slice);
            let needs: Vec<&str> = needs.iter().map(|file| plain_name(file)).collect();
            format!("{}: {}\n", plain_name(file), needs.join(" "))
        };
        files.iter().map(line).collect()
    }

    fn aliases_of(&self, names: &BTreeSet<String>) -> String {
        let ours = self.aliases.lines().filter(|line| {
            line.split_ascii_whitespace()
                .nth(2)
                .is_some_and(|module| names.contains(&name_of(module)))
        });
        ours.map(|line| format!("{line}\n")).collect()
    }
}

/// A module's name from its file's: dashes and underscores mean the same.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// The file's name without its compression.
fn plain_name(file: &str) -> &str {
    [".xz", ".zst", ".gz"]
        .iter()
        .find_map(|end| file.strip_suffix(end))
        .unwrap_or(file)
}

/// A module's content: busybox's modprobe and older kernels take it only unpacked.
fn read_plain(file: &PathBuf) -> Result<Vec<u8>> {
    let unpacker = match file.extension().and_then(|kind| kind.to_str()) {
        Some("xz") => ("xz", "xz-utils"),
        Some("zst") => ("zstd", "zstd"),
        Some("gz") => ("gzip", "gzip"),
        _ => {
            return fs::read(file).with_context(|| format!("{} cannot be read", file.display()));
        }
    };
    let (program, package) = unpacker;
    let output = Command::new(program)
        .arg("-dc")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}; package {package} has it"))?;
    if !output.status.success() {
        bail!("{} cannot be unpacked by {program}", file.display());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/a/ahci.ko.xz: kernel/a/libahci.ko.xz kernel/a/libata.ko.xz\n\
        kernel/a/libahci.ko.xz: kernel/a/libata.ko.xz\n\
        kernel/a/libata.ko.xz:\n\
        kernel/b/xen-privcmd.ko:\n\
        kernel/c/floppy.ko.xz:\n";

    fn lists() -> Lists {
        Lists {
            dependencies: parse_dependencies(DEPENDENCIES),
            aliases: "alias pci:v1* ahci\nalias fd:* floppy\nalias xen:p xen_privcmd\n".into(),
        }
    }

    #[test]
    fn a_module_comes_with_all_that_it_needs_and_nothing_else() {
        let files = lists().closure(&["ahci", "xen_privcmd", "built-in"]);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        assert_eq!(
            files,
            [
                "kernel/a/ahci.ko.xz",
                "kernel/a/libahci.ko.xz",
                "kernel/a/libata.ko.xz",
                "kernel/b/xen-privcmd.ko"
            ]
        );
    }

    #[test]
    fn the_lists_name_unpacked_files_of_the_chosen_modules_only() {
        let lists = lists();
        let files = lists.closure(&["ahci"]);
        assert!(
            lists
                .dependencies_of(&files)
                .contains("kernel/a/ahci.ko: kernel/a/libahci.ko kernel/a/libata.ko\n")
        );
        let names = BTreeSet::from(["xen_privcmd".to_owned()]);
        assert_eq!(lists.aliases_of(&names), "alias xen:p xen_privcmd\n");
    }
}
